"""Where a run of any kind begins and how it ends: its checkpoint, and what is told to the caller."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visrep.checkpoint import CheckpointStore
from visrep.config import Config
from visrep.errors import UserError
from visrep.runs.directory import RunDirectory


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        run_dir: its directory.
        finished: False when it was interrupted after a checkpoint.
        agent_step: where it stands.
    """

    run_dir: Path
    finished: bool
    agent_step: int


def saved_state(config: Config, checkpoints: CheckpointStore, directory: RunDirectory) -> dict[str, Any] | None:
    """The checkpoint to continue from, as the key ``resume`` says; None where nothing was begun."""
    if checkpoints.latest() is None:
        return None
    if config.run.resume == "never":
        raise UserError(
            f"{directory.path} holds a run and resume=never: use resume=auto to continue it, or another run_dir"
        )
    return checkpoints.load("previous" if config.run.resume == "previous" else "latest")
