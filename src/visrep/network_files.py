"""Network files: portable encoders and the modules of agents, as safetensors with JSON metadata and a digest.

Nothing here is pickled code, a file is either whole or absent, and the digest tells a damaged one. This module needs
torch and safetensors only.
"""

from __future__ import annotations

import hashlib
import json
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
from visrep.files import write_atomic, writing

FORMAT = 1
ENCODER_FILE = Path("model") / "encoder.safetensors"  # inside a run directory


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
    check_format(path, about)
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


def check_format(path: Path, about: Mapping[str, Any]) -> None:
    """Raise UserError where a file's metadata is of a newer format than this version reads."""
    if about["format"] > FORMAT:
        raise UserError(
            f"{path} has format {about['format']}, newer than the {FORMAT} that this visrep reads: update visrep"
        )
