"""``visrep collect replay=<run directory>``: the replay store of an existing run, whole, as a dataset."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from visrep.collecting.place import check_dataset_place, dataset_folder, summary
from visrep.config import differing_keys
from visrep.console import Console
from visrep.data.budget import USABLE, available_disk, text_bytes
from visrep.data.dataset import COLLECTING, write_dataset
from visrep.data.store import FrameStore
from visrep.data.writer import PROGRESS, differences, finished_dataset, unfinished_collection
from visrep.errors import UserError, suggestion
from visrep.files import take_lock, write_json_atomic, writing
from visrep.runs.phases import PhaseName
from visrep.runs.saved_replay import find_replay, require_run


@dataclass(frozen=True)
class ReplayRequest:
    """Which replay to save.

    Attributes:
        out: folder of the dataset; made if missing.
        replay: run directory.
        phase: "pretrain" or "finetune"; None takes that of the newest checkpoint.
    """

    out: str
    replay: str
    phase: str | None = None

    def __post_init__(self) -> None:
        check_dataset_place("out", self.out)
        if not self.replay.strip():
            raise UserError("replay is empty: name a run directory")
        if self.phase is not None and self.phase not in get_args(PhaseName):
            raise UserError(f"phase={self.phase}: {suggestion(self.phase, get_args(PhaseName))}")

    @classmethod
    def of(cls, keys: Mapping[str, Any]) -> ReplayRequest | None:
        """The request in the keys of ``visrep collect``; None where episodes are to be recorded.

        Raises:
            UserError: keys that do not go together.
        """
        if "replay" not in keys:
            if "phase" in keys:
                raise UserError(
                    f"phase={keys['phase']} goes with replay=<run directory>, which saves what a run has seen: leave "
                    "it out to record episodes"
                )
            return None
        others = [key for key in keys if key not in {field.name for field in fields(cls)}]
        if others:
            raise UserError(
                f"replay={keys['replay']} saves what that run has seen, as it is: leave out {', '.join(others)}, or "
                "leave out replay to record episodes"
            )
        return cls(**keys)

    @property
    def run_dir(self) -> Path:
        """Of the run."""
        return Path(self.replay).expanduser()


def collect_replay(console: Console, request: ReplayRequest) -> int:
    """Write the rows of a run's newest checkpoint as a dataset; does nothing where that is done.

    Args:
        console: where to print.
        request: which run, which phase, and where to.

    Returns:
        Exit status 0.

    Raises:
        UserError: no run, rows that are not (or no longer) there or damaged, a run that is running, a folder that holds
            other data, or no room on the disk. ``out`` holds no dataset then, and the same command begins again.
    """
    run_dir = request.run_dir
    require_run(run_dir)
    with ExitStack() as held:
        with writing(run_dir):
            held.enter_context(take_lock(run_dir, "wait until the run is over, or stop it", shared=True))
        found = find_replay(run_dir, request.phase)
        store, manifest = found.open(), found.manifest()
        folder = dataset_folder(request.out)
        held.enter_context(take_lock(folder, "wait for the other collection, or choose another out"))
        there = finished_dataset(folder)
        if there is not None:
            _check_same(_identity(there), _identity(manifest), f"{folder} holds a finished dataset")
            console.line(f"this dataset is finished already: {summary(there, folder)}")
            return 0
        _begin(folder, _identity(manifest), store)
        console.line(f"replay of {run_dir}, phase {found.phase}, up to agent step {found.agent_step:,}")
        whole = write_dataset(store, folder, manifest, replace=True)  # of a copy that was killed
        shutil.rmtree(folder / COLLECTING)
    console.line(summary(whole, folder))
    return 0


def _begin(folder: Path, identity: dict[str, Any], store: FrameStore) -> None:
    """Leave a note of what is copied, so that a copy that was killed is known for one and can begin again."""
    progress = unfinished_collection(folder)
    if progress is not None:
        if "replay" not in progress:
            raise UserError(f"{folder} holds an unfinished collection of episodes: choose another out")
        _check_same(progress["replay"], identity, f"{folder} holds an unfinished copy")
    needed, free = store.rows * store.nbytes_per_row, available_disk(folder)
    if needed > USABLE * free:
        raise UserError(
            f"the replay needs {text_bytes(needed)} on the disk of {folder}, {text_bytes(free)} are free: make room, "
            "or choose another out"
        )
    with writing(folder):
        (folder / COLLECTING).mkdir(exist_ok=True)
    write_json_atomic(folder / COLLECTING / PROGRESS, {"replay": identity})


def _identity(manifest: dict[str, Any]) -> dict[str, Any]:
    """What tells one replay from another. A dataset of save_buffer=true names no checkpoint."""
    provenance = manifest.get("provenance") or {}
    return {key: provenance.get(key) for key in ("policy", "config", "checkpoint")}


def _check_same(there: dict[str, Any], asked: dict[str, Any], what: str) -> None:
    """UserError with what sets two replays apart, if anything does."""
    if (there["policy"] or {}).get("kind") != "replay":
        raise UserError(f"{what} that is no run's replay: choose another out")
    lines = differences(there["policy"], asked["policy"])
    keys = differing_keys(there["config"] or {}, asked["config"])
    lines += [f"{key}: {old} there, {new} asked for" for key, old, new in keys]
    if not lines and there["checkpoint"] not in (None, asked["checkpoint"]):
        lines = ["the same settings, but another run, or the run was begun anew"]
    if lines:
        text = "".join(f"  {line}\n" for line in lines)
        raise UserError(f"{what} of another replay:\n{text}choose another out")
