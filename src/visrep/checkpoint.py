"""Files that outlive a run: portable encoders, networks for reuse, and checkpoints that a crash cannot spoil.

Nothing here is pickled code: networks are safetensors with JSON metadata, checkpoints load with ``weights_only=True``.
Everything is written beside its place, synced and renamed, so a file is either whole or absent; a digest tells a
damaged one. This module needs torch and safetensors only.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

import visrep.encoders  # noqa: F401  (fills the registry of kinds)
from visrep.encoders.contract import ENCODERS, Encoder, InputContract, build_encoder
from visrep.errors import UserError
from visrep.files import remove_leftovers, sync_folder, write_atomic, write_json_atomic, write_synced, writing

__all__ = [
    "CheckpointStore",
    "encoder_file",
    "encoder_metadata",
    "load_encoder",
    "load_module_states",
    "network_file_content",
    "save_encoder",
    "save_module_states",
    "write_atomic",
    "write_json_atomic",
]

FORMAT = 1
ENCODER_FILE = Path("model") / "encoder.safetensors"  # inside a run directory


# -- networks as safetensors ------------------------------------------------------------------------------------------


def save_encoder(encoder: Encoder, path: Path | str, provenance: Mapping[str, Any]) -> None:
    """Write one portable encoder file.

    Args:
        encoder: on any device.
        path: the file, by habit ``encoder.safetensors``.
        provenance: JSON values about where the weights come from (objective, data, versions, renderer, ...).
    """
    about = {
        "content": "encoder",
        "kind": encoder.kind,
        "config": encoder.config(),
        "input": encoder.contract.to_dict(),
        "output": {"shape": [encoder.feature_dim]},
        "provenance": dict(provenance),
    }
    _write_network_file(Path(path), encoder.state_dict(), about)


def load_encoder(path: Path | str) -> Encoder:
    """Build the encoder of a file, or of a run directory, with its weights, on the CPU, in eval mode.

    Raises:
        UserError: absent, damaged, no visrep encoder, written by a newer format, or its weights do not fit its kind.
    """
    file = encoder_file(path)
    about, tensors = _read_network_file(file, "encoder")
    kind = about["kind"]
    if kind not in ENCODERS:
        raise UserError(
            f"{file} holds an encoder of kind {kind!r}, which this installation does not have; "
            f"it knows {', '.join(sorted(ENCODERS))}"
        )
    try:
        encoder = build_encoder(kind, InputContract(**about["input"]), **about["config"])
        encoder.load_state_dict(tensors)
    except (RuntimeError, TypeError, ValueError) as error:
        reasons = "; ".join(line.strip() for line in str(error).splitlines()[-3:])
        raise UserError(
            f"{file}: its weights come from another architecture than the encoder kind {kind!r} with "
            f"{about['config']} that it claims: {reasons}"
        ) from error
    return encoder.eval()


def encoder_metadata(path: Path | str) -> dict[str, Any]:
    """Kind, config, input contract, output shape and provenance of an encoder file or run directory."""
    return _read_network_file(encoder_file(path), "encoder")[0]


def save_module_states(
    path: Path | str, states: Mapping[str, Mapping[str, Tensor]], metadata: Mapping[str, Any]
) -> None:
    """Write the state dicts of several modules to one file, as tensors ``<module>/<name>``.

    Args:
        path: the file.
        states: state dict by module; module names hold no slash.
        metadata: JSON values to keep beside them.
    """
    flat = {f"{module}/{name}": value for module, state in states.items() for name, value in state.items()}
    about = {"content": "modules", "modules": list(states), "metadata": dict(metadata)}
    _write_network_file(Path(path), flat, about)


def load_module_states(path: Path | str) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """State dicts by module (CPU tensors) and the metadata, as ``save_module_states`` wrote them."""
    about, tensors = _read_network_file(Path(path), "modules")
    states: dict[str, dict[str, Tensor]] = {module: {} for module in about["modules"]}
    for name, value in tensors.items():
        module, _, inner = name.partition("/")
        states[module][inner] = value
    return states, about["metadata"]


def network_file_content(path: Path | str) -> str:
    """What a network file holds, "encoder" or "modules", after checking its digest."""
    return str(_read_network_file(Path(path), None)[0]["content"])


def encoder_file(path: Path | str) -> Path:
    """The encoder file of a run directory, or the file itself."""
    path = Path(path).expanduser()
    return path / ENCODER_FILE if path.is_dir() else path


def _write_network_file(path: Path, state: Mapping[str, Tensor], about: dict[str, Any]) -> None:
    # A copy each: safetensors refuses tensors that share memory, and channels_last ones are not contiguous.
    tensors = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in state.items()}
    text = json.dumps({"format": FORMAT, **about}, sort_keys=True)
    header, data = _split(save_tensors(tensors))
    blob = save_tensors(tensors, {"visrep": text, "sha256": _digest(header, text, data)})
    with writing(path, len(blob)):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, blob)


def _read_network_file(
    path: Path, content: Literal["encoder", "modules"] | None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What the file says about itself and its tensors, after checking its digest; ``content`` None takes either."""
    try:
        blob = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    foreign = f"{path} is not a visrep file of this kind, or it is cut off or damaged: "
    try:
        header, data = _split(blob)
        metadata = header.pop("__metadata__", {})
        text, digest = metadata["visrep"], metadata["sha256"]
        about: dict[str, Any] = json.loads(text)
    except KeyError as error:
        raise UserError(f"{foreign}its safetensors metadata has no entry {error}") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{foreign}no safetensors header with visrep's metadata can be read") from error
    if digest != _digest(header, text, data):
        raise UserError(f"{path} is damaged or cut off: its content does not match its sha256; use another copy")
    _check_format(path, about)
    if content is not None and about["content"] != content:
        held = ", ".join(about.get("modules", ["an encoder"]))
        raise UserError(f"{path} holds {held}; what is wanted here is a file of kind {content!r}")
    try:
        return about, load_tensors(blob)
    except SafetensorError as error:
        raise UserError(f"{foreign}{error}") from error


def _split(blob: bytes) -> tuple[dict[str, Any], memoryview]:
    """Header and data of a safetensors file: 8 bytes of header length, the JSON header, the data."""
    end = 8 + int.from_bytes(blob[:8], "little")
    if len(blob) < 8 or end > len(blob):
        raise ValueError("shorter than its header")
    header = json.loads(blob[8:end])
    return header, memoryview(blob)[end:]


def _digest(header: dict[str, Any], text: str, data: memoryview) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    digest.update(text.encode())
    digest.update(data)
    return digest.hexdigest()


def _check_format(path: Path, about: Mapping[str, Any]) -> None:
    if about["format"] > FORMAT:
        raise UserError(
            f"{path} has format {about['format']}, newer than the {FORMAT} that this visrep reads: update visrep"
        )


# -- checkpoints ------------------------------------------------------------------------------------------------------


class CheckpointStore:
    """The two newest checkpoints of a run, ``<agent_step>/state.pt`` beside ``manifest.json`` with its sha256.

    Args:
        folder: made when absent; leftovers of an interrupted write are removed.

    Raises:
        UserError: the folder cannot be written.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
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

    def save(self, agent_step: int, state: dict[str, Any]) -> Path:
        """Write a checkpoint, then drop all but it and the one before it.

        Args:
            agent_step: where the run stands; a second checkpoint at the same step counts as newer.
            state: tensors and plain values (see ``torch.load(weights_only=True)``).

        Raises:
            UserError: disk full or not writable; the older checkpoints are as they were.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        payload = buffer.getbuffer()
        target = self._free_name(agent_step)
        temporary = self.folder / f".tmp-{target.name}"
        kept = self._base if self._base is not None else self.latest()
        with writing(self.folder, len(payload), _intact_note(kept)):
            try:
                temporary.mkdir()
                write_synced(temporary / "state.pt", payload)
                write_synced(temporary / "manifest.json", _manifest(agent_step, payload))
                sync_folder(temporary)
                temporary.rename(target)
                sync_folder(self.folder)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            for old in self._found():
                if old not in (target, kept):
                    # Renamed first, so that a kill in between leaves a leftover and no half checkpoint.
                    doomed = self.folder / f".tmp-old-{old.name}"
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

    def _way_out(self, damaged: Path) -> str:
        for older in reversed([path for path in self._found() if path < damaged]):
            try:
                _read_checkpoint(older)
            except _DamageError as damage:
                return f"The one before is no better: {damage}. Start again in another run_dir"
            return f"The checkpoint before it ({_step(older)}) is intact: add resume=previous to continue from there"
        return "There is no earlier checkpoint: start again in another run_dir"

    def _found(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.name[:12].isdigit() and path.is_dir())

    def _free_name(self, agent_step: int) -> Path:
        name, count = f"{agent_step:012d}", 0
        while (self.folder / (name if not count else f"{name}-{count:02d}")).exists():
            count += 1
        return self.folder / (name if not count else f"{name}-{count:02d}")


class _DamageError(Exception):
    """A checkpoint's file is not what was written."""


def _step(path: Path) -> str:
    return f"agent step {int(path.name[:12]):,}"


def _intact_note(kept: Path | None) -> str:
    if kept is None:
        return "there was no earlier checkpoint"
    return f"the earlier checkpoint ({_step(kept)}) is untouched; the same command continues from it"


def _manifest(agent_step: int, payload: memoryview) -> bytes:
    body = {
        "format": FORMAT,
        "agent_step": agent_step,
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
    _check_format(manifest_file, manifest)
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
