"""How an encoder looks at a dataset: frames as they are, or through the crop or paste that it was trained with.

Acting and the live probes look through the same form of the augmentation: nothing random, crops and pastes centred.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from visrep.augment import Augmentation, parse_augmentation
from visrep.data.store import StoreSpec
from visrep.encoders.contract import Encoder
from visrep.errors import UserError

AS_THEY_ARE = Augmentation()


def view_of(encoder: Encoder, about: Mapping[str, Any], spec: StoreSpec, name: str, source: str) -> Augmentation:
    """What brings frames [C, H, W] of a dataset to the encoder's size when it is evaluated.

    Args:
        encoder: that is to look at them.
        about: its file's metadata; the run's key ``augment`` is in the provenance.
        spec: of the dataset's rows.
        name: of the encoder, for the message.
        source: name of the dataset, for the message.

    Returns:
        ``AS_THEY_ARE`` for frames of the encoder's own size; otherwise the augmentation of its run, if that ends at
        exactly this size.

    Raises:
        UserError: the encoder cannot take these frames.
    """
    contract = encoder.contract
    wanted, here = (contract.channels, contract.height, contract.width), tuple(spec.frame_shape)
    unbounded = contract.low is None or contract.high is None
    if here == wanted and not (unbounded and spec.frame_dtype == "uint8"):
        return AS_THEY_ARE
    if here[0] == wanted[0] and spec.frame_dtype == "uint8" and not unbounded:
        own = _augmentation(about, contract.channels)
        if own is not None and _size(own, here[1:]) == wanted[1:]:
            return own
    takes, holds = ("x".join(map(str, shape)) for shape in (wanted, here))
    kind = "floats of any size" if unbounded else "0..255"
    raise UserError(
        f"encoder {name} takes frames of {takes} (channels x height x width, {kind}), the dataset {source} holds "
        f"{holds} of {spec.frame_dtype}: probe it on data of its own image size and channels, or collect such data"
    )


def view_note(encoder: Encoder, view: Augmentation, spec: StoreSpec, name: str) -> str:
    """Tells that the encoder ``name`` does not see frames as they are stored, and what its controls see."""
    contract = encoder.contract
    sizes = (spec.frame_shape[1:], (contract.height, contract.width))
    there, here = ("x".join(map(str, size)) for size in sizes)
    return (
        f"{name} sees frames of {there} pixels as {here}, through {view} without its randomness, as when it acts; its "
        "random encoder and its pixels PCA see the same"
    )


def _augmentation(about: Mapping[str, Any], channels: int) -> Augmentation | None:
    """The key ``augment`` of the run that made an encoder file; None where the file names none that can be read."""
    value: Any = about
    for key in ("provenance", "config", "augment"):
        value = value.get(key) if isinstance(value, Mapping) else None
    try:
        return parse_augmentation(value, channels) if isinstance(value, str) else None
    except UserError:  # the file is of another installation, which has other operators
        return None


def _size(augmentation: Augmentation, size: tuple[int, ...]) -> tuple[int, int] | None:
    """(height, width) that comes out of frames of this size; None where they cannot be augmented."""
    height, width = size
    try:
        return augmentation.output_size(height, width)
    except UserError:
        return None
