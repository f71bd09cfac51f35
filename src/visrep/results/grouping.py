"""Which runs a comparison takes, and which of them are seeds of one group."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visrep.errors import UserError, suggestion
from visrep.results.report import RECORDED, read_config

# Keys that tell runs apart without making another experiment of them; environments are compared apart anyway.
NOT_GROUPS = frozenset({"seed", "env", "run_dir", "resume", "device", "threads", "log_save_tb", "save_video"})


def find_runs(text: str) -> list[Path]:
    """Run directories of folders or patterns (``runs/*_seed=?``) joined by commas.

    A folder that is no run itself stands for all runs below it. Each run comes once, in the order of the text.

    Raises:
        UserError: a part names nothing, or there is no run below it.
    """
    found: dict[Path, None] = {}
    for part in (part.strip() for part in text.split(",")):
        folders = [Path(name) for name in sorted(glob.glob(str(Path(part).expanduser())))] if part else []
        if not folders:
            raise UserError(f"runs={text}: there is no {part!r}; name run directories or folders with runs")
        runs = [run for folder in folders for run in _runs_of(folder)]
        if not runs:
            raise UserError(f"runs={text}: no run lies in {part} (none has {' or '.join(RECORDED)})")
        found |= dict.fromkeys(runs)
    return list(found)


def _runs_of(folder: Path) -> list[Path]:
    if any((folder / name).exists() for name in RECORDED):
        return [folder]
    return sorted({file.parent for name in RECORDED for file in folder.rglob(name)})


def group_labels(runs: Sequence[Path], by: Sequence[str] = ()) -> list[str]:
    """One label per run, from the keys ``by`` of its config.yaml, or from the fewest that tell all runs apart.

    Runs that differ in their seed alone are one group, also where the seed stands inside a value
    (``encoder=runs/atc_seed=1``). Runs of different environments are compared apart, so those keys need not differ.

    Raises:
        UserError: no run has a key of that name.
    """
    configs = [read_config(run) for run in runs]
    known = {key for config in configs for key in config}
    for key in by:
        if key not in known:
            raise UserError(f"by={','.join(by)}: no run has the key {key!r}; {suggestion(key, known)}")
    values = [{key: _text(value, config) for key, value in config.items()} for config in configs]
    keys = by or _telling_keys(values, sorted(known - NOT_GROUPS))
    labels = [", ".join(f"{key}={_short(one[key])}" for key in keys if key in one) for one in values]
    return [label or "no such key" if keys else "all runs" for label in labels]


def _telling_keys(values: Sequence[dict[str, str]], keys: Sequence[str]) -> list[str]:
    """The fewest keys, taken one by one, that make as many groups as all; keys that every run has come first."""
    found: list[str] = []
    order = sorted(keys, key=lambda key: (any(key not in one for one in values), -_groups(values, [key])))
    for key in order:
        if _groups(values, [*found, key]) > _groups(values, found):
            found.append(key)
    return found


def _groups(values: Sequence[dict[str, str]], keys: Sequence[str]) -> int:
    """How many runs of one environment the keys tell apart, over all environments."""
    return len({(one.get("env"), *(one.get(key) for key in keys)) for one in values})


def _text(value: Any, config: dict[str, Any]) -> str:
    """A value, without the run's own seed in it."""
    return "none" if value is None else re.sub(rf"_?seed={config.get('seed')}\b", "", str(value))


def _short(value: str) -> str:
    """The last part of a path; folders above it seldom matter and fill the figure."""
    return ",".join(Path(part).name or part for part in value.split(","))
