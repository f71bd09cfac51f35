"""The replay store of a run that is not running: found by its checkpoints, opened without an environment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from visrep.config import Config, load_config
from visrep.data.dataset import MANIFEST, read_json
from visrep.data.store import FrameStore, StoreSpec, saved_store
from visrep.errors import UserError
from visrep.runs.checkpoints import CheckpointStore
from visrep.runs.directory import live_folder, mirror_folder
from visrep.runs.manifest import past_replay_manifest, replayed
from visrep.runs.phases import phase_names


@dataclass(frozen=True)
class SavedReplay:
    """The rows of one phase, as a checkpoint of the run holds them.

    Attributes:
        run_dir: of the run.
        config: of the run.
        phase: whose rows these are, "pretrain" or "finetune".
        agent_step: of the run when they were saved.
        checkpoint: sha256 of the checkpoint's state.
        rows: what the store's ``save`` returned.
    """

    run_dir: Path
    config: Config
    phase: str
    agent_step: int
    checkpoint: str
    rows: dict[str, Any]

    def open(self) -> FrameStore:
        """The rows, mapped read-only; every row's checksum is compared.

        Raises:
            UserError: missing, truncated or changed files.
        """
        return saved_store(StoreSpec.from_columns(self.rows["columns"]), self.rows, self._folder)

    def manifest(self) -> dict[str, Any]:
        """What ``write_dataset`` takes: the manifest of save_buffer=true, and which run and checkpoint it was.

        Raises:
            UserError: the run's provenance.json is missing or damaged.
        """
        path = self.run_dir / "provenance.json"
        provenance = read_json(path)
        lacking = [key for key in ("environment", "versions") if key not in provenance]
        if lacking:
            raise UserError(f"{path} does not say the run's {lacking[0]}: restore it from a copy")
        acted = replayed(self.phase, self.agent_step)
        more = {"run": str(self.run_dir.resolve()), "checkpoint": self.checkpoint}
        return past_replay_manifest(self.config, provenance, acted, **more)

    @property
    def _folder(self) -> Path:
        place = live_folder if self.config.run.storage == "disk" else mirror_folder
        return place(self.run_dir / "state", self.phase)


def require_run(run_dir: Path) -> Config:
    """The configuration of a run that has a replay store.

    Raises:
        UserError: no run directory, or the run learned from recorded data.
    """
    if (run_dir / MANIFEST).is_file():
        raise UserError(f"replay={run_dir} is a dataset already: name a run directory")
    if not (run_dir / "config.yaml").is_file():
        what = "has no config.yaml" if run_dir.is_dir() else "is not there" if not run_dir.exists() else "is a file"
        raise UserError(f"replay={run_dir} is not a run directory: it {what}")
    config = load_config(run_dir / "config.yaml")
    if config.run.data is not None:
        raise UserError(
            f"replay={run_dir}: this run learned from recorded data (data={config.run.data}), it has no replay of its "
            "own: use those data"
        )
    return config


def find_replay(run_dir: Path, phase: str | None = None) -> SavedReplay:
    """The rows of a phase from the newest checkpoint that holds them; the run may not be running.

    Args:
        run_dir: of the run.
        phase: "pretrain" or "finetune"; None takes that of the newest checkpoint.

    Raises:
        UserError: no run, no checkpoint or a damaged one, or it does not hold that phase's rows (any more).
    """
    config = require_run(run_dir)
    phases = phase_names(config)
    if phase is not None and phase not in phases:
        raise UserError(f"phase={phase}: {run_dir} has the phase {' and '.join(phases)} only")
    newest = None
    for saved, digest in _checkpoints(run_dir, config):
        # The last checkpoint of a finished run counts one phase more than there are.
        name = phases[min(int(saved["phase"]), len(phases) - 1)]
        parts = saved["parts"]
        found = SavedReplay(run_dir, config, name, parts["counters"]["agent_step"], digest, parts["store"])
        if phase in (None, name):
            if not found._folder.is_dir():
                raise UserError(f"the rows of phase {name} are missing: restore {found._folder} from a copy")
            return found
        newest = newest or found
    assert newest is not None and phase is not None
    raise _not_held(newest, phase)


def _checkpoints(run_dir: Path, config: Config) -> Iterator[tuple[dict[str, Any], str]]:
    """(state, sha256) of the kept checkpoints, the newest first."""
    folder = run_dir / "state"
    store = CheckpointStore(folder) if folder.is_dir() else None  # which makes a folder that is missing
    if store is None or store.latest() is None:
        raise UserError(
            f"{run_dir} has no checkpoint yet, so none of its rows are saved: continue the run; it writes one every "
            f"{config.run.checkpoint_frequency:,} agent steps (checkpoint_frequency), and one when it is stopped"
        )
    kept: tuple[Literal["latest", "previous"], ...] = ("latest", "previous")
    for which in kept[: 1 if store.previous() is None else 2]:
        yield store.load(which), store.digest(which)


def _not_held(newest: SavedReplay, phase: str) -> UserError:
    run_dir, where = newest.run_dir, f"the newest checkpoint is of {newest.phase}, agent step {newest.agent_step:,}"
    if phase == "finetune":
        return UserError(f"{run_dir} holds no rows of phase finetune yet ({where}): continue it, or say phase=pretrain")
    own = run_dir / "buffer" / phase
    advice = (
        f"the run saved them itself (save_buffer=true), use {own}"
        if (own / MANIFEST).is_file()
        else "take phase=finetune, or repeat the run with save_buffer=true, which leaves each phase's replay in "
        f"{run_dir / 'buffer'}"
    )
    return UserError(
        f"the rows of phase pretrain are gone from {run_dir}: a run keeps them until two checkpoints of its task phase "
        f"are written ({where}); {advice}"
    )
