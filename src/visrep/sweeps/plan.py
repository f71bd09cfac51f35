"""From a sweep file to its jobs: which axes a stage depends on, what every placeholder stands for."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from visrep.command_keys import OWN_KEYS
from visrep.config import Command, parse
from visrep.envs.make import check_env
from visrep.errors import UserError
from visrep.runs.pretrained import dataset_settings, inheritable, inherited_settings
from visrep.runs.saved_replay import require_run
from visrep.sweeps.jobs import Job, settings_of
from visrep.sweeps.places import PLACES
from visrep.sweeps.spec import Entry, Stage, SweepFile, plain
from visrep.sweeps.values import check_values

PLACEHOLDER = re.compile(r"\$\{([^{}]*)\}")
GB = 1e9
DATA_DECIDES = ("env", "image_size", "action_repeat", "camera")  # keys of collect that a run on its data takes over
RUN_DECIDES = (*DATA_DECIDES, "observation", "frame_stack")  # and of a run that one on its replay takes over
Combination = dict[str, Entry]


@dataclass(frozen=True)
class _Reference:
    """``${run:stage}`` or ``${run:stage,axis=entry}``."""

    stage: str
    bound: Mapping[str, str]


def plan(file: SweepFile) -> list[Job]:
    """Every job of a sweep, each after the jobs that it starts from.

    Args:
        file: the checked file.

    Raises:
        UserError: a placeholder that names nothing, a job that would start from one that does not run, two jobs with
            one name, a key that the command does not know, a value that it would refuse.
    """
    return _Plan(file).jobs()


class _Plan:
    def __init__(self, file: SweepFile) -> None:
        self.file, self.spec = file, file.spec
        self.folder = Path(self.spec.out).expanduser()
        self.made: dict[str, Job] = {}
        self.axes: dict[str, tuple[str, ...]] = {}
        self.configs: dict[str, dict[str, Any]] = {}  # of the jobs that are runs, by name

    def jobs(self) -> list[Job]:
        writers: dict[tuple[str, Path], str] = {}
        for index, stage in enumerate(self.spec.stages):
            self.axes[stage.name] = self._axes_of(index, stage)
            before = len(self.made)
            for combination in self._combinations(stage):
                job = self._job(index, stage, combination)
                if job.name in self.made:
                    raise self.file.error(
                        f"stages[{index}]", f"two jobs would be named {job.name}: name axis values so that they differ"
                    )
                twin = writers.setdefault((stage.command, job.run_dir), job.name)
                if twin != job.name:
                    raise self.file.error(
                        f"stages[{index}]", f"{job.name} would overwrite {job.place.proof} of {twin} in {job.run_dir}"
                    )
                self.made[job.name] = job
            if len(self.made) == before:
                raise self.file.error(f"stages[{index}]", f"no combination is left for stage {stage.name}")
        for axis in self.spec.axes:
            if not any(axis in axes for axes in self.axes.values()):
                raise self.file.error(f"axes.{axis}", f"no stage depends on it: use ${{{axis}}} in a stage's set")
        return list(self.made.values())

    # -- what a stage depends on --------------------------------------------------------------------------------------

    def _sources(self, index: int, stage: Stage) -> Iterator[tuple[str, dict[str, Any]]]:
        """(place in the file, keys) of everything that may set keys of a stage."""
        yield f"stages[{index}].set", stage.set
        for axis, entries in self.spec.axes.items():
            for number, entry in enumerate(entries):
                if stage.name in entry.set:
                    yield f"axes.{axis}[{number}].set.{stage.name}", entry.set[stage.name]

    def _axes_of(self, index: int, stage: Stage) -> tuple[str, ...]:
        found: set[str] = set()
        for place, keys in self._sources(index, stage):
            for key, value in keys.items():
                for name in _placeholders(value):
                    found |= self._axes_behind(f"{place}.{key}", name, index)
        for axis, entries in self.spec.axes.items():
            if any(stage.name in (*entry.set, *entry.skip) for entry in entries):
                found.add(axis)
        return tuple(axis for axis in self.spec.axes if axis in found)

    def _axes_behind(self, where: str, name: str, index: int) -> set[str]:
        if name == "dir":
            return set()
        if not name.startswith("run:"):
            self.file.known(where, name, [*self.spec.axes, "dir"], "axis")
            return {name}
        reference = self._reference(where, name)
        earlier = [stage.name for stage in self.spec.stages[:index]]
        self.file.known(where, reference.stage, earlier, "earlier stage")
        for axis, entry in reference.bound.items():
            self.file.known(where, axis, self.axes[reference.stage], f"axis of stage {reference.stage}")
            self.file.known(where, entry, [known.name for known in self.spec.axes[axis]], f"value of axis {axis}")
        return set(self.axes[reference.stage]) - set(reference.bound)

    def _reference(self, where: str, name: str) -> _Reference:
        stage, *texts = name.removeprefix("run:").split(",")
        pairs = [text.partition("=") for text in texts]
        if not all(equals for _, equals, _ in pairs):
            raise self.file.error(where, f"${{{name}}} is not of the form ${{run:stage}} or ${{run:stage,axis=value}}")
        return _Reference(stage, {axis: entry for axis, _, entry in pairs})

    # -- which combinations run ---------------------------------------------------------------------------------------

    def _combinations(self, stage: Stage) -> Iterator[Combination]:
        axes = self.axes[stage.name]
        for entries in itertools.product(*(self.spec.axes[axis] for axis in axes)):
            combination = dict(zip(axes, entries))
            if not any(stage.name in entry.skip for entry in entries) and self._wanted(combination):
                yield combination

    def _wanted(self, combination: Combination) -> bool:
        if any(set(rule) <= set(combination) and _agrees(rule, combination) for rule in self.spec.exclude):
            return False
        # A rule speaks about a job only as far as the job has its axes: the job may serve a combination that is kept.
        return not self.spec.include or any(_agrees(rule, combination) for rule in self.spec.include)

    # -- one job ------------------------------------------------------------------------------------------------------

    def _job(self, index: int, stage: Stage, combination: Combination) -> Job:
        name, where = _name(stage, combination), f"stages[{index}].set"
        keys = {key: value for _, source in self._chosen(index, stage, combination) for key, value in source.items()}
        given = {key: plain(value) for key, value in keys.items() if value is not None}
        run_dir = self._run_dir(where, name, stage, given, combination)
        origins: dict[str, Job] = {}

        def place(text: str, symbolic: bool) -> str:
            """The text with its placeholders replaced; symbolic ones do not depend on where the sweep lies."""

            def replace(match: re.Match[str]) -> str:
                inside = match[1]
                if inside == "dir":
                    return "" if symbolic else str(run_dir)
                if not inside.startswith("run:"):
                    return plain(combination[inside].text)
                origin = self._origin(where, name, inside, combination)
                origins[origin.name] = origin
                return origin.name if symbolic else str(origin.run_dir)

            return PLACEHOLDER.sub(replace, text)

        place_key = PLACES[stage.command].key
        words = [f"{key}={place(text, symbolic=False)}" for key, text in given.items()]
        where_to = () if place_key in given else (f"{place_key}={run_dir}",)
        try:
            symbolic = [f"{key}={place(text, symbolic=True)}" for key, text in given.items()]
            settings = settings_of(stage.command, symbolic)
            self._check_words(name, stage.command, words, where_to, origins)
        except UserError as error:
            raise self.file.error(f"{where}, job {name}", str(error)) from error
        return Job(
            name=name,
            stage=stage.name,
            words=(stage.command, *words, *where_to),
            run_dir=run_dir,
            settings=settings,
            after={origin.name: origin.digest for origin in origins.values()},
            values={axis: entry.name for axis, entry in combination.items()},
            threads=stage.resources.threads,
            memory=round(stage.resources.memory_gb * GB),
            timeout=None if stage.timeout_minutes is None else 60.0 * stage.timeout_minutes,
        )

    def _run_dir(self, where: str, name: str, stage: Stage, given: Mapping[str, str], combination: Combination) -> Path:
        """Where a job writes: a folder named after it, or that of the job that it goes on with."""
        place = PLACES[stage.command]
        text = given.get(place.key)
        if place.own:
            if text not in (None, "${dir}"):
                raise self.file.error(
                    f"{where}.{place.key}", f"a sweep says itself where {stage.command} writes, {self.folder / name}: "
                    "leave this key out"
                )  # fmt: skip
            return self.folder / name
        found = re.fullmatch(r"\$\{(run:[^{}]*)\}", text or "")
        if found is None:
            raise self.file.error(
                f"{where}.{place.key}", f"{stage.command} takes the run of an earlier stage: write {place.key}: "
                "${run:<stage>}"
            )  # fmt: skip
        return self._origin(where, name, found[1], combination).run_dir

    def _check_words(
        self, name: str, command: str, words: list[str], where_to: tuple[str, ...], origins: Mapping[str, Job]
    ) -> None:
        """UserError now for what the command would refuse later, as far as its words tell."""
        for known in get_args(Command):
            if command == known:
                config = parse(words, known, self._base(known, words, origins))
                if config.run.data is None:
                    check_env(config.run.env)
                self.configs[name] = config.to_dict()
        if command in OWN_KEYS:
            check_values(command, (*words, *where_to), [origin.run_dir for origin in origins.values()])

    def _base(self, command: Command, words: list[str], origins: Mapping[str, Job]) -> dict[str, Any]:
        """What the run will take over from the encoder or the data that it starts from, which may not be there yet."""
        for origin in origins.values():
            if command == "finetune" and f"encoder={origin.run_dir}" in words:
                return inheritable(self.configs.get(origin.name, {}))
            if command == "pretrain" and origin.words[0] == "collect":
                return self._recorded_with(origin)
        return inherited_settings(words) if command == "finetune" else dataset_settings(words)

    def _recorded_with(self, collect: Job) -> dict[str, Any]:
        """What data will be recorded with: what the job says; of a run's replay, what that run says."""
        if "replay" not in collect.settings:
            return {key: collect.settings[key] for key in DATA_DECIDES if key in collect.settings}
        earlier = [self.configs[name] for name in collect.after if name in self.configs]
        source = next(word.partition("=")[2] for word in collect.words if word.startswith("replay="))
        config = earlier[0] if earlier else require_run(Path(source).expanduser()).to_dict()
        return {key: config[key] for key in RUN_DECIDES}

    def _chosen(self, index: int, stage: Stage, combination: Combination) -> Iterator[tuple[str, dict[str, Any]]]:
        """The stage's own keys, then those of the combination's entries, which win."""
        yield f"stages[{index}].set", stage.set
        for axis, entry in combination.items():
            yield f"axes.{axis}", entry.set.get(stage.name, {})

    def _origin(self, where: str, name: str, inside: str, combination: Combination) -> Job:
        reference = self._reference(where, inside)
        stage = next(stage for stage in self.spec.stages if stage.name == reference.stage)
        entries = {axis: {entry.name: entry for entry in self.spec.axes[axis]} for axis in self.axes[stage.name]}
        wanted = {axis: names[reference.bound[axis]] if axis in reference.bound else combination[axis]
                  for axis, names in entries.items()}  # fmt: skip
        origin = _name(stage, wanted)
        if origin not in self.made:
            raise self.file.error(
                where, f"{name} starts from {origin}, which is skipped or excluded: exclude it too, or take away the "
                f"key with ${{{inside}}} by setting it to null for that axis value"
            )  # fmt: skip
        return self.made[origin]


def _name(stage: Stage, combination: Combination) -> str:
    # No comma: data=... separates folders by it.
    parts = [f"{axis}={re.sub(r'[^A-Za-z0-9_.+-]', '-', entry.name)}" for axis, entry in combination.items()]
    return f"{stage.name}/{'_'.join(parts) or 'all'}"


def _agrees(rule: Mapping[str, tuple[str, ...]], combination: Combination) -> bool:
    return all(combination[axis].name in names for axis, names in rule.items() if axis in combination)


def _placeholders(value: Any) -> list[str]:
    return PLACEHOLDER.findall(plain(value)) if value is not None else []
