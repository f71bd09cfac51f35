"""Checkpoints that a crash cannot spoil: the two newest of a run, whole or absent; a digest tells a damaged one.

Each is written beside its place, synced and renamed; it loads with ``weights_only=True``, so it holds no code.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import platform
import shutil
from pathlib import Path
from typing import Any, Literal

import torch

from visrep.errors import UserError
from visrep.files import TEMPORARY, remove_leftovers, sync_folder, write_synced, writing
from visrep.network_files import FORMAT, check_format


class CheckpointStore:
    """The two newest checkpoints of a run, ``<count>/state.pt`` beside ``manifest.json`` with its sha256.

    Args:
        folder: made when absent; leftovers of an interrupted write are removed.
        unit: what the count counts, for messages.

    Raises:
        UserError: the folder cannot be written.
    """

    def __init__(self, folder: Path | str, unit: Literal["agent step", "update"] = "agent step") -> None:
        self.folder, self.unit = Path(folder), unit
        self._base: Path | None = None  # what the run continues from: stays until two newer ones exist
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.folder)

    def latest(self) -> Path | None:
        """The newest checkpoint's folder, whole or damaged; None before the first."""
        found = self._found()
        return found[-1] if found else None

    def previous(self) -> Path | None:
        """The one before the newest; None where there is none."""
        found = self._found()
        return found[-2] if len(found) > 1 else None

    def save(self, count: int, state: dict[str, Any]) -> Path:
        """Write a checkpoint, then drop all but it and the one before it.

        Args:
            count: where the run stands; a second checkpoint at the same count is taken for the newer.
            state: tensors and plain values (see ``torch.load(weights_only=True)``).

        Raises:
            UserError: disk full or not writable; the older checkpoints are as they were.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        payload = buffer.getbuffer()
        target = self._free_name(count)
        temporary = self.folder / f"{TEMPORARY}{target.name}"
        kept = self._base if self._base is not None else self.latest()
        with writing(self.folder, len(payload), self._intact_note(kept)):
            try:
                temporary.mkdir()
                write_synced(temporary / "state.pt", payload)
                write_synced(temporary / "manifest.json", _manifest(self.unit, count, payload))
                sync_folder(temporary)
                temporary.rename(target)
                sync_folder(self.folder)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            for old in self._found():
                if old not in (target, kept):
                    # Renamed first, so that a kill in between leaves a leftover and no half checkpoint.
                    doomed = self.folder / f"{TEMPORARY}old-{old.name}"
                    old.rename(doomed)
                    shutil.rmtree(doomed)
        self._base = target
        return target

    def load(self, which: Literal["latest", "previous"] = "latest") -> dict[str, Any]:
        """Read a checkpoint after checking size and sha256; tensors come on the CPU.

        Raises:
            UserError: there is none, or it is damaged; says which file and how to continue.
        """
        path = self.latest() if which == "latest" else self.previous()
        if path is None and which == "latest":
            raise UserError(f"{self.folder} holds no checkpoint to resume from")
        if path is None:
            raise UserError(
                f"{self.folder} holds no checkpoint before the newest: use resume=auto, or start in another run_dir"
            )
        try:
            state = _read_checkpoint(path)
        except _DamageError as damage:
            raise UserError(f"{damage}. {self._way_out(path)}") from damage
        self._base = path
        return state

    def digest(self, which: Literal["latest", "previous"] = "latest") -> str:
        """The sha256 of the state in a checkpoint that ``load`` has read."""
        path = self.latest() if which == "latest" else self.previous()
        assert path is not None, "load says so"
        return str(json.loads((path / "manifest.json").read_bytes())["files"]["state.pt"]["sha256"])

    def _way_out(self, damaged: Path) -> str:
        for older in reversed([path for path in self._found() if path < damaged]):
            try:
                _read_checkpoint(older)
            except _DamageError as damage:
                return f"The one before is no better: {damage}. Start again in another run_dir"
            return (
                f"The checkpoint before it ({self._where(older)}) is intact: add resume=previous to the run's command "
                "to continue from there"
            )
        return "There is no earlier checkpoint: start again in another run_dir"

    def _found(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.name[:12].isdigit() and path.is_dir())

    def _free_name(self, count: int) -> Path:
        name, copies = f"{count:012d}", 0
        while (self.folder / (name if not copies else f"{name}-{copies:02d}")).exists():
            copies += 1
        return self.folder / (name if not copies else f"{name}-{copies:02d}")

    def _where(self, path: Path) -> str:
        return f"{self.unit} {int(path.name[:12]):,}"

    def _intact_note(self, kept: Path | None) -> str:
        if kept is None:
            return "there was no earlier checkpoint"
        return f"the earlier checkpoint ({self._where(kept)}) is untouched; the same command continues from it"


class _DamageError(Exception):
    """A checkpoint's file is not what was written."""


def _manifest(unit: str, count: int, payload: memoryview) -> bytes:
    body = {
        "format": FORMAT,
        "unit": unit,
        "count": count,
        "files": {"state.pt": {"bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}},
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }
    text = json.dumps(body, sort_keys=True)
    return json.dumps({**body, "manifest_sha256": hashlib.sha256(text.encode()).hexdigest()}, indent=1).encode()


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in a checkpoint's folder; _DamageError names the file that is not as it was written."""
    manifest_file, state_file = path / "manifest.json", path / "state.pt"
    try:
        manifest = json.loads(manifest_file.read_bytes())
        stated = manifest.pop("manifest_sha256")
        text = json.dumps(manifest, sort_keys=True)
        if stated != hashlib.sha256(text.encode()).hexdigest():
            raise ValueError("sha256 differs")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise _DamageError(f"checkpoint file {manifest_file} is damaged or missing") from error
    check_format(manifest_file, manifest)
    expected = manifest["files"]["state.pt"]
    try:
        payload = state_file.read_bytes()
    except OSError as error:
        raise _DamageError(f"checkpoint file {state_file} cannot be read ({error.strerror})") from error
    if len(payload) != expected["bytes"]:
        raise _DamageError(f"checkpoint file {state_file} is cut off: {len(payload)} of {expected['bytes']} bytes")
    if hashlib.sha256(payload).hexdigest() != expected["sha256"]:
        raise _DamageError(f"checkpoint file {state_file} is damaged: its sha256 is not the one in manifest.json")
    try:
        state = torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise UserError(f"{state_file} holds more than plain data and was not loaded: do not trust it") from error
    if not isinstance(state, dict):
        raise UserError(f"{state_file} holds a {type(state).__name__}, not a run's state")
    return state
