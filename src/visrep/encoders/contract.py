"""Images in, features out: the contract that every encoder keeps, and the registry that finds it by kind.

Shapes: B batch, S frame stack, C channels per frame, H W pixels, F H' W' latent image, D = F·H'·W' features.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from visrep.registry import Registry


@dataclass(frozen=True)
class InputContract:
    """What an encoder accepts, channel-first, frames stacked oldest first.

    Images are uint8 or float in ``low``..``high``. Without bounds the values are floats of any size: observations that
    are vectors (1x1 pixels, as many channels as numbers) or latent images that another encoder made.

    Attributes:
        height: pixels.
        width: pixels.
        channels: channels per frame; 3 for colour.
        stack: frames per observation.
        low: smallest value, or None.
        high: largest value, or None.
    """

    height: int
    width: int
    channels: int = 3
    stack: int = 3
    layout: str = "CHW"
    low: float | None = 0.0
    high: float | None = 255.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(S*C, H, W) of one observation."""
        return (self.stack * self.channels, self.height, self.width)

    def check(self, images: Tensor) -> None:
        """Raise ValueError naming the contract unless ``images`` is [B, S*C, H, W] of a type that fits."""
        fits = images.ndim == 4 and tuple(images.shape[1:]) == self.shape
        unbounded = self.low is None or self.high is None
        if fits and (images.is_floating_point() or not unbounded):
            return
        values = "floats of any size" if unbounded else f"uint8 or float in {self.low:g}..{self.high:g}"
        raise ValueError(
            f"this encoder takes images [batch, {', '.join(map(str, self.shape))}] ({self.stack} frames of "
            f"{self.channels} channels, {self.height}x{self.width}, {values}, oldest frame first); "
            f"got {list(images.shape)} of {str(images.dtype).removeprefix('torch.')}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, as the encoder file's metadata holds them."""
        return asdict(self)


class Encoder(nn.Module):
    """Base of every encoder. A subclass sets ``latent_shape`` and ``feature_dim`` and implements ``latents``.

    The encoder scales its own input, so callers always hand over 0..255 (uint8 or float).

    Attributes:
        settings: the names of the constructor arguments besides the input contract that a run may set.
        takes_images: False where it takes features that somebody else made, so that no run may choose it for images.
        latent_shape: (F, H', W') of the latent image; (D, 1, 1) where there is no map.
        feature_dim: D = F·H'·W'.
    """

    kind: ClassVar[str]
    settings: ClassVar[tuple[str, ...]] = ()
    takes_images: ClassVar[bool] = True
    contract: InputContract
    latent_shape: tuple[int, int, int]
    feature_dim: int

    def config(self) -> dict[str, Any]:
        """Constructor arguments besides the input contract, as JSON values."""
        return {name: getattr(self, name) for name in self.settings}

    def latents(self, images: Tensor) -> Tensor:
        """[B, S*C, H, W] in 0..255 (uint8 or float) to [B, F, H', W'], in any memory format; shape already checked."""
        raise NotImplementedError

    def features(self, images: Tensor) -> Tensor:
        """The latents, flattened in (F, H', W') order: [B, S*C, H, W] to [B, D]; shape already checked."""
        return self.latents(images).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        """Check the shape against the contract, then encode: [B, S*C, H, W] to [B, D]."""
        self.contract.check(images)
        return self.features(images)


ENCODERS: Registry[Encoder] = Registry("encoder kind", "kind")  # by the value of the key ``encoder_kind``
register_encoder = ENCODERS.register


def encoder_config(kind: str, **offered: Any) -> dict[str, Any]:
    """Of what a run offers (``channels``, ``offset``, ``init``), those that ``kind`` takes; None is left out."""
    takes = ENCODERS.find(kind).settings
    return {name: value for name, value in offered.items() if name in takes and value is not None}


def build_encoder(kind: str, contract: InputContract, **config: Any) -> Encoder:
    """Make an encoder by its registered kind.

    Raises:
        UserError: no encoder has that kind, or it cannot take images of that size.
    """
    return ENCODERS.find(kind)(contract, **config)
