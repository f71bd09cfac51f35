"""What every export shares: the encoder, what to say when an extra is missing, proof of equal features."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from visrep.encoders.contract import Encoder, InputContract
from visrep.errors import UserError
from visrep.network_files import encoder_file, load_encoder


class MissingExtraError(UserError, ImportError):
    """A library that an export is made for is not installed; the message names the extra that installs it."""


def missing_extra(extra: str, error: ImportError) -> MissingExtraError:
    """The error to raise where importing a library failed with ``error``."""
    return MissingExtraError(
        f"visrep.export.{extra} needs a library that cannot be imported here ({error}): pip install 'visrep[{extra}]'"
    )


def the_encoder(source: Encoder | Path | str) -> Encoder:
    """The encoder of a file or run directory, or the given one.

    Raises:
        UserError: no encoder file, see ``load_encoder``.
    """
    return source if isinstance(source, Encoder) else load_encoder(source)


def refuse_source(source: Path | str, written: Path, out: Path | str) -> None:
    """Raise UserError where ``written``, a file that an export to ``out`` writes, is the encoder file exported."""
    file = encoder_file(source)
    if written.exists() and written.samefile(file):
        raise UserError(f"out={out} would overwrite {file}, which is to be exported: name another place")


def takes_images(contract: InputContract) -> bool:
    """Whether the input is bytes in 0..255, not numbers of any size (vectors, latent images)."""
    return contract.low is not None and contract.high is not None


def accepted_shapes(contract: InputContract) -> list[tuple[int, ...]]:
    """Shapes of one observation that other libraries may hand over: a vector need not be a 1x1 image."""
    vector = (contract.height, contract.width) == (1, 1)
    return [contract.shape, *([contract.shape[:1]] if vector else [])]


def describe(contract: InputContract) -> str:
    """The input in words, for documents and messages."""
    size = ", ".join(map(str, contract.shape))
    frames = f"{contract.stack} frames of {contract.channels} channels, oldest frame first"
    if not takes_images(contract):
        return f"float numbers [{size}]: {frames}, {contract.height}x{contract.width}, of any size"
    return f"images [{size}]: {frames}, {contract.height}x{contract.width} pixels, values 0..255"


def probe_images(contract: InputContract, count: int = 3) -> Tensor:
    """The same random uint8 images (or floats) [count, S*C, H, W] every time, to compare forms of an encoder on."""
    generator = torch.Generator().manual_seed(0)
    if not takes_images(contract):
        return torch.randn(count, *contract.shape, generator=generator)
    return torch.randint(0, 256, (count, *contract.shape), dtype=torch.uint8, generator=generator)


def scaled_difference(features: Tensor, expected: Tensor) -> float:
    """Largest |difference| over the largest |expected value|, or over one where that is smaller."""
    scale = max(1.0, float(expected.abs().max()))
    return float((features - expected).abs().max()) / scale
