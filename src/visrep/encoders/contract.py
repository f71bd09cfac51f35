"""Images in, features out: the contract that every encoder keeps, and the registry that finds it by kind.

Shapes: B batch, S frame stack, C colour channels, H W pixels, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn


@dataclass(frozen=True)
class InputContract:
    """What an encoder accepts: uint8 or float images in 0..255, channel-first, frames stacked oldest first.

    Attributes:
        height: pixels.
        width: pixels.
        channels: colour channels per frame.
        stack: frames per observation.
    """

    height: int
    width: int
    channels: int = 3
    stack: int = 3
    layout: str = "CHW"
    low: float = 0.0
    high: float = 255.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(S*C, H, W) of one observation."""
        return (self.stack * self.channels, self.height, self.width)

    def check(self, images: Tensor) -> None:
        """Raise ValueError naming the contract unless ``images`` is [B, S*C, H, W]."""
        if images.ndim != 4 or tuple(images.shape[1:]) != self.shape:
            raise ValueError(
                f"this encoder takes images [batch, {', '.join(map(str, self.shape))}] ({self.stack} frames of "
                f"{self.channels} channels, {self.height}x{self.width}, uint8 or float in "
                f"{self.low:g}..{self.high:g}, oldest frame first); got {list(images.shape)}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, as the encoder file's metadata holds them."""
        return asdict(self)


class Encoder(nn.Module):
    """Base of every encoder. A subclass sets ``feature_dim`` and implements ``features``.

    The encoder scales its own input, so callers always hand over 0..255 (uint8 or float).
    """

    kind: ClassVar[str]
    contract: InputContract
    feature_dim: int

    def config(self) -> dict[str, Any]:
        """Constructor arguments besides the input contract, as JSON values."""
        raise NotImplementedError

    def features(self, images: Tensor) -> Tensor:
        """[B, S*C, H, W] in 0..255 (uint8 or float) to [B, D]; shape already checked."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Check the shape against the contract, then encode: [B, S*C, H, W] to [B, D]."""
        self.contract.check(images)
        return self.features(images)


E_ = TypeVar("E_", bound=type[Encoder])
ENCODERS: dict[str, type[Encoder]] = {}


def register_encoder(kind: str) -> Callable[[E_], E_]:
    """Class decorator: make an encoder known under ``kind`` (the value of the key ``encoder_kind``)."""

    def add(cls: E_) -> E_:
        if kind in ENCODERS:
            raise ValueError(f"encoder kind {kind!r} is registered twice: {ENCODERS[kind]} and {cls}")
        cls.kind = kind
        ENCODERS[kind] = cls
        return cls

    return add


def build_encoder(kind: str, contract: InputContract, **config: Any) -> Encoder:
    """Make an encoder by its registered kind."""
    if kind not in ENCODERS:
        raise ValueError(f"unknown encoder kind {kind!r}; known: {', '.join(sorted(ENCODERS))}")
    return ENCODERS[kind](contract, **config)
