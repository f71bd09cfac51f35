"""The sweep file: axes, stages, limits and tables, checked before anything starts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from visrep.collecting.place import check_dataset_place
from visrep.config_overrides import read_yaml
from visrep.errors import UserError, nearest

Scalar = str | int | float | bool
StageCommand = Literal["collect", "pretrain", "probe", "finetune", "train", "evaluate"]
METRIC = r"(train|eval|metrics)\.[A-Za-z0-9_./-]+|[A-Za-z0-9_./-]+\.json:.+"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Entry(_Part):
    """One value of an axis: a plain value, or a name with what it changes in each stage."""

    name: str = Field(min_length=1)
    value: Scalar | None = None  # what ${axis} stands for; the name where it is left out
    skip: tuple[str, ...] = ()  # stages that do not run for this entry
    set: dict[str, dict[str, Any]] = {}  # stage -> key -> value; null takes the stage's key away

    @property
    def text(self) -> Scalar:
        """What ``${axis}`` is replaced by."""
        return self.name if self.value is None else self.value


class Resources(_Part):
    """What one job of a stage takes."""

    threads: int = Field(default=1, ge=1)
    memory_gb: float = Field(default=1.0, gt=0)


class Stage(_Part):
    """One command, run once for every combination of the axes that its keys depend on."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    command: StageCommand
    set: dict[str, Any] = {}
    resources: Resources = Field(default_factory=Resources)
    timeout_minutes: float | None = Field(None, gt=0)


class Limits(_Part):
    """What the sweep may take of the machine; everything that is free where it is left out."""

    cores: int | None = Field(default=None, ge=1)
    memory_gb: float | None = Field(default=None, gt=0)


class TableSpec(_Part):
    """Which number of which stage is tabulated, and along which axes."""

    stage: str
    metric: str = Field(pattern=rf"^({METRIC})$")
    take: str = Field("last", pattern=r"^(last|mean_last_[1-9]\d*)$")
    columns: str | None = None  # "task" where the stage has such an axis
    over: str = "seed"


class SweepSpec(_Part):
    """A whole sweep file."""

    name: str = Field(min_length=1)
    out: str = Field(min_length=1)
    axes: dict[str, tuple[Entry, ...]]
    stages: tuple[Stage, ...] = Field(min_length=1)
    include: tuple[dict[str, tuple[str, ...]], ...] = ()
    exclude: tuple[dict[str, tuple[str, ...]], ...] = ()
    retries: int = Field(1, ge=0)
    nice: int = Field(0, ge=0, le=19)
    limits: Limits = Field(default_factory=Limits)
    tables: dict[str, TableSpec] = {}

    @field_validator("axes", mode="before")
    @classmethod
    def _entries(cls, axes: Any) -> Any:
        if not isinstance(axes, dict):
            return axes
        return {axis: [_entry(item) for item in items] if isinstance(items, list) else items
                for axis, items in axes.items()}  # fmt: skip

    @field_validator("include", "exclude", mode="before")
    @classmethod
    def _names(cls, rules: Any) -> Any:
        if not isinstance(rules, list):
            return rules
        return [{axis: [plain(name) for name in (names if isinstance(names, list) else [names])]
                 for axis, names in rule.items()} if isinstance(rule, dict) else rule for rule in rules]  # fmt: skip


def plain(value: Any) -> str:
    """A value as one types it after ``key=``."""
    if isinstance(value, bool):
        return str(value).lower()
    return "[" + ",".join(map(plain, value)) + "]" if isinstance(value, list | tuple) else str(value)


def _entry(item: Any) -> Any:
    return item if isinstance(item, dict) else {"name": plain(item), "value": item}


@dataclass(frozen=True)
class SweepFile:
    """A checked sweep and where it was read, for messages."""

    path: Path
    spec: SweepSpec

    def error(self, key: str, text: str) -> UserError:
        """A complaint about one place of the file."""
        return UserError(f"{self.path}: {key}: {text}")

    def known(self, key: str, word: str, words: Iterable[str], what: str) -> None:
        """Raise unless ``word`` is one of ``words``, naming the nearest."""
        names = list(words)
        if word not in names:
            raise self.error(key, f"there is no {what} {word!r}{_hint(word, names)}")


def read_sweep(path: Path) -> SweepFile:
    """Read and check a sweep file.

    Raises:
        UserError: naming the file, the place in it and the nearest known name.
    """
    path = Path(path)
    values = read_yaml(path)
    try:
        file = SweepFile(path, SweepSpec.model_validate(values))
    except ValidationError as error:
        raise UserError("\n".join(f"{path}: {_complaint(problem)}" for problem in error.errors())) from error
    _check_names(file)
    return file


def _check_names(file: SweepFile) -> None:
    """Every stage, axis and entry that is referred to exists, and none is named twice."""
    spec = file.spec
    check_dataset_place(f"{file.path}: out", spec.out)
    stages = [stage.name for stage in spec.stages]
    _unique(file, "stages", stages)
    for axis, entries in spec.axes.items():
        key = f"axes.{axis}"
        if not re.fullmatch(r"[A-Za-z_]\w*", axis) or axis in ("dir", "run"):
            raise file.error(key, "an axis is named by letters, digits and _, and neither dir nor run")
        if not entries:
            raise file.error(key, "an axis needs at least one value")
        _unique(file, key, [entry.name for entry in entries])
        for index, entry in enumerate(entries):
            for name in (*entry.skip, *entry.set):
                file.known(f"{key}[{index}]", name, stages, "stage")
    for rules, key in ((spec.include, "include"), (spec.exclude, "exclude")):
        for index, rule in enumerate(rules):
            for axis, names in rule.items():
                file.known(f"{key}[{index}]", axis, spec.axes, "axis")
                for name in names:
                    entry_names = [entry.name for entry in spec.axes[axis]]
                    file.known(f"{key}[{index}].{axis}", name, entry_names, f"value of axis {axis}")
    for name, table in spec.tables.items():
        file.known(f"tables.{name}.stage", table.stage, stages, "stage")
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise file.error(f"tables.{name}", "a table's name becomes a file's name: letters, digits, _ and -")


def _unique(file: SweepFile, key: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise file.error(key, f"{', '.join(twice)} is given twice")


def _complaint(problem: Mapping[str, Any]) -> str:
    loc = problem["loc"]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key {loc[-1]!r}{_hint(str(loc[-1]), _keys_at(loc[:-1]))}"
    if problem["type"] == "missing":
        return f"{where}: this key is missing"
    if problem["type"] == "string_pattern_mismatch" and loc[-1] == "metric":
        return f"{where}: {problem['input']!r} is neither eval.<quantity> (or train., metrics.) nor <file>.json:<path>"
    if problem["type"] == "string_pattern_mismatch" and loc[-1] == "take":
        return f"{where}: {problem['input']!r} is neither last nor mean_last_<n>"
    return f"{where}: {problem['msg']}, got {problem['input']!r}"


def _keys_at(loc: Iterable[str | int]) -> list[str]:
    """Keys of the mapping at a place of the file, read from the models."""
    here: Any = SweepSpec
    for part in loc:
        if isinstance(here, type) and issubclass(here, BaseModel):
            here = here.model_fields[str(part)].annotation
        else:
            here = get_args(here)[0 if isinstance(part, int) else 1]
    return list(here.model_fields)


def _hint(word: str, names: list[str]) -> str:
    near = nearest(word, names)
    return f"; did you mean {' or '.join(near)}?" if near else f"; known are {', '.join(names)}"
