"""Where a run of any kind begins and stands: its locked directory, the checkpoint to go on from, what is told of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from visrep.config import Config
from visrep.console import Console
from visrep.errors import UserError
from visrep.runs.checkpoints import CheckpointStore
from visrep.runs.compose import choose_device
from visrep.runs.directory import RunDirectory, command_line, versions
from visrep.runs.stopping import StopRequest


@dataclass
class Opened:
    """A run whose directory is this process's own.

    Attributes:
        config: of the run.
        directory: locked.
        checkpoints: of the run.
        saved: the checkpoint to go on from; None where nothing was begun.
        stop: true once somebody asked the run to stop.
        console: where the user is told.
        device: of networks and batches.
    """

    config: Config
    directory: RunDirectory
    checkpoints: CheckpointStore
    saved: dict[str, Any] | None
    stop: StopRequest
    console: Console
    device: torch.device

    def provenance(self, environment: dict[str, Any], **more: Any) -> dict[str, Any]:
        """What made the files of this run, for their metadata."""
        return {"config": self.config.to_dict(), "environment": environment, "versions": versions(), **more}

    def announce(self, provenance: dict[str, Any]) -> None:
        """Record what the run computes on; one that goes on says what has changed since it began."""
        about = {**provenance, "command": command_line(), "device": str(self.device)}
        changed = self.directory.write_provenance(about)
        for change in changed if self.saved is not None else ():
            self.console.line(f"note: {change}; the run goes on, but not bit for bit as without the interruption")

    def say_finished(self) -> None:
        """Tell that there is nothing left to do."""
        self.console.line("this run is finished already; choose another run_dir for a new one")

    def say_stopped(self, where: str) -> None:
        """Tell that the run stopped after a checkpoint, and how it goes on."""
        self.console.line(
            f"stopped by {self.stop.signal_name} at {where}; "
            f"the same command with run_dir={self.directory.path} continues"
        )


def prepare_device(config: Config) -> tuple[torch.device, str]:
    """Set the threads; returns the device and why it was taken."""
    if config.run.threads is not None:
        torch.set_num_threads(config.run.threads)
    return choose_device(config.run.device)


@contextmanager
def opened(
    config: Config, run_dir: Path, console: Console, on: tuple[torch.device, str], unit: Literal["agent step", "update"]
) -> Iterator[Opened]:
    """Lock the directory, listen to requests to stop, find the checkpoint to go on from.

    Args:
        config: of the run.
        run_dir: made when absent.
        console: where the user is told.
        on: what ``prepare_device`` gave.
        unit: what the run's checkpoints count.

    Raises:
        UserError: the directory cannot be used (``RunDirectory``), or the checkpoint that ``resume`` asks for.
    """
    device, reason = on
    with RunDirectory(run_dir, config) as directory, StopRequest() as stop:
        checkpoints = CheckpointStore(directory.state, unit)
        saved = _saved(config, checkpoints, directory)
        console.line(f"run directory: {run_dir}")
        console.line(f"device: {device} ({reason})")
        yield Opened(config, directory, checkpoints, saved, stop, console, device)


def _saved(config: Config, checkpoints: CheckpointStore, directory: RunDirectory) -> dict[str, Any] | None:
    """The checkpoint to continue from, as the key ``resume`` says; None where nothing was begun."""
    if checkpoints.latest() is None:
        return None
    if config.run.resume == "never":
        raise UserError(
            f"{directory.path} holds a run and resume=never: use resume=auto to continue it, or another run_dir"
        )
    return checkpoints.load("previous" if config.run.resume == "previous" else "latest")
