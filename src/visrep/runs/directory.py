"""The run directory: made once, locked while a run uses it, refused when it belongs to another configuration."""

from __future__ import annotations

import contextlib
import json
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from visrep.config import Config, differing_keys
from visrep.config_overrides import read_yaml
from visrep.data.dataset import MANIFEST
from visrep.errors import UserError
from visrep.files import remove_leftovers, take_lock, write_atomic, write_json_atomic

RECORDS = ("train.csv", "eval.csv", "metrics.jsonl")
PACKAGES = ("visrep", "torch", "numpy", "gymnasium", "mujoco", "dm_control", "mujoco-warp")


class RunDirectory:
    """Paths of one run. Use as a context manager: the directory stays locked inside.

    Args:
        path: the folder; made when absent.
        config: the run's configuration; compared with the ``config.yaml`` that may already lie there.

    Raises:
        UserError: the folder belongs to another configuration, is in use, holds other things, or cannot be written.
    """

    def __init__(self, path: Path, config: Config) -> None:
        self.path = path
        self._config = config
        self._lock: IO[str] | None = None
        self._made = False  # whether config.yaml was written by this process

    def __enter__(self) -> RunDirectory:
        if (self.path / MANIFEST).exists():
            raise UserError(f"{self.path} is a dataset, a run's files do not belong in it: choose another run_dir")
        try:
            for folder in (self.path, self.model, self.video, self.state):
                folder.mkdir(parents=True, exist_ok=True)
            self._lock = take_lock(self.path, "wait for it or choose another run_dir")
            for folder in (self.path, self.model, self.video):
                remove_leftovers(folder)
            self._settle_config()
        except OSError as error:
            self._release()
            where = error.filename or self.path
            if isinstance(error, PermissionError):
                raise UserError(f"cannot write to {where}: choose another run_dir or change its permissions") from error
            raise UserError(
                f"cannot use {self.path} as a run directory ({where}: {error.strerror or error}): "
                "choose another run_dir"
            ) from error
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is not None and self._made and not any((self.path / name).exists() for name in RECORDS):
            # It failed before anything was recorded: the mended command may use the same directory.
            self.config_file.unlink(missing_ok=True)
            for folder in (self.model, self.video, self.state):
                with contextlib.suppress(OSError):  # not empty: something was worth keeping
                    folder.rmdir()
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def model(self) -> Path:
        """Encoder file and agents."""
        return self.path / "model"

    @property
    def video(self) -> Path:
        """One mp4 per evaluation."""
        return self.path / "video"

    @property
    def state(self) -> Path:
        """Checkpoints and the stores' mirrors."""
        return self.path / "state"

    @property
    def config_file(self) -> Path:
        """Flat keys of the run."""
        return self.path / "config.yaml"

    def write_provenance(self, provenance: dict[str, Any]) -> list[str]:
        """Record what the run runs on: versions, device, environment fingerprint, command.

        Returns:
            What differs from the process before this one and may change the numbers, one text per difference.
        """
        path = self.path / "provenance.json"
        before = json.loads(path.read_bytes()) if path.exists() else provenance
        changed = [
            f"{key} was {before[key]}, now it is {provenance[key]}"
            for key in ("device", "environment", "versions")
            if key in before and before[key] != provenance[key]
        ]
        write_json_atomic(path, provenance)
        return changed

    def _settle_config(self) -> None:
        if not self.config_file.exists():
            strange = [name for name in RECORDS if (self.path / name).exists()]
            if strange:
                raise UserError(
                    f"{self.path} holds {', '.join(strange)} but no config.yaml, so it is not a run of visrep and its "
                    "files would be overwritten: choose another run_dir"
                )
            header = "# written by visrep; the same keys resume this run\n"
            write_atomic(self.config_file, (header + self._config.to_yaml()).encode())
            self._made = True
            return
        different = differing_keys(read_yaml(self.config_file), self._config.to_dict())
        if different:
            lines = "\n".join(f"  {key}: {old!r} there, {new!r} asked for" for key, old, new in different)
            raise UserError(
                f"{self.path} belongs to another configuration:\n{lines}\n"
                "use the same values to resume it, or another run_dir for a new run"
            )


def mirror_folder(state: Path, phase: str) -> Path:
    """Where the rows of a phase's store are saved, in the folder of the run's checkpoints."""
    return state / f"store-{phase}"


def live_folder(state: Path, phase: str) -> Path:
    """Where they live, and are saved, with storage=disk."""
    return state / f"store-{phase}-live"


def versions() -> dict[str, str]:
    """Versions of what decides a run's numbers, for its provenance."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def command_line() -> str:
    """The command as typed, for provenance and reports; ``python -m visrep.cli`` is ``visrep``."""
    name = Path(sys.argv[0]).name
    return " ".join(["visrep" if name == "cli.py" else name, *sys.argv[1:]])
