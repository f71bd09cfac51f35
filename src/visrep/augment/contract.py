"""What every augmentation keeps: draws apart from their use, one draw per sample, values in and out alike.

Shapes: N samples, S frames of a stack, C channels per frame, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor

from visrep.errors import UserError
from visrep.registry import Registry

Domain = Literal["images", "latents"]
Draws = dict[str, Tensor]  # random parameters by name, each [N, ...]


@dataclass(frozen=True)
class Operator:
    """One augmentation with its settings. A subclass is a frozen dataclass whose fields are the settings.

    Images are uint8, or float in 0..255, and come back in the dtype in which they came. All frames of a sample get the
    same draw: a different one for each frame would destroy what a stack is for, velocities.

    Attributes:
        frame_channels: C, how many channels make one frame.
        domain: what it may be used on.
        needs_rgb: it mixes red, green and blue, so C must be 3.
        action_meaning: what it does to the meaning of an action, or None where it leaves that alone.
    """

    frame_channels: int = field(default=3, kw_only=True)

    name: ClassVar[str]
    domain: ClassVar[tuple[Domain, ...]] = ("images",)
    needs_rgb: ClassVar[bool] = False
    action_meaning: ClassVar[str | None] = None

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Pixels that come out of images of this size.

        Raises:
            UserError: images of this size cannot be augmented so.
        """
        return height, width

    def draw(self, count: int, size: tuple[int, int], generator: Generator | None, device: torch.device) -> Draws:
        """Random parameters of ``count`` samples of ``size`` = (H, W) pixels, on ``device``."""
        raise NotImplementedError

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """[N, S*C, H, W] with given parameters to [N, S*C, H', W'], same dtype; nothing random."""
        raise NotImplementedError

    def evaluate(self, images: Tensor) -> Tensor:
        """What acting and evaluation see instead: no randomness, the same output size."""
        return images

    def __call__(self, images: Tensor, generator: Generator | None = None) -> Tensor:
        """[N, S*C, H, W] to [N, S*C, H', W'], with a fresh draw for every sample from a generator on their device."""
        height, width = images.shape[-2:]
        self.output_size(height, width)
        return self.apply(images, self.draw(len(images), (height, width), generator, images.device))

    def __str__(self) -> str:
        arguments = ", ".join(f"{f.name}={getattr(self, f.name)}" for f in settings(type(self)))
        return f"{self.name}({arguments})" if arguments else self.name

    def refuse(self, why: str) -> UserError:
        """The error that names this operator as it was written."""
        return UserError(f"augmentation {self}: {why}")

    def check_probability(self, p: float) -> None:
        """Refuse a probability that is none, and 0, which would switch the operator off."""
        if not 0.0 < p <= 1.0:
            raise self.refuse("p is the share of samples that it changes: give a number above 0 and up to 1")


def settings(operator: type[Operator]) -> list[Any]:
    """The dataclass fields that the text form sets, in order."""
    return [f for f in fields(operator) if not f.kw_only]


@dataclass(frozen=True)
class Augmentation:
    """Operators, applied first to last; none of them leaves images as they are. Made by ``parse_augmentation``."""

    operators: tuple[Operator, ...] = ()

    def __call__(self, images: Tensor, generator: Generator | None = None) -> Tensor:
        """[N, S*C, H, W] to [N, S*C, H', W'], a fresh draw for every sample from ``generator`` on their device.

        Raises:
            UserError: images of this size cannot be augmented so.
        """
        for operator in self.operators:
            images = operator(images, generator)
        return images

    def evaluate(self, images: Tensor) -> Tensor:
        """The same without randomness (crops and pastes are centred, the rest does nothing), for acting."""
        for operator in self.operators:
            images = operator.evaluate(images)
        return images

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Pixels that come out of images of this size.

        Raises:
            UserError: an operator cannot take images of this size.
        """
        for operator in self.operators:
            height, width = operator.output_size(height, width)
        return height, width

    @property
    def action_meaning(self) -> str | None:
        """What it does to the meaning of actions, or None."""
        meanings = [f"{operator.name}: {operator.action_meaning}" for operator in self.operators]
        return "; ".join(m for m, o in zip(meanings, self.operators, strict=True) if o.action_meaning) or None

    def __str__(self) -> str:
        return "+".join(map(str, self.operators)) or "none"


OPERATORS: Registry[Operator] = Registry("augmentation")
register_operator = OPERATORS.register


# -- what several operators draw and write -----------------------------------------------------------------------------


def draw_selection(p: float, count: int, generator: Generator | None, device: torch.device) -> Draws:
    """Uniforms [N] that decide which samples are changed; nothing is drawn where all are."""
    return {} if p >= 1.0 else {"selection": torch.rand(count, generator=generator, device=device)}


def select(changed: Tensor, images: Tensor, draws: Draws, p: float) -> Tensor:
    """``changed`` for the samples whose uniform is at most ``p``, ``images`` for the others."""
    if "selection" not in draws:
        return changed
    return torch.where((draws["selection"] <= p).view(-1, 1, 1, 1), changed, images)


def uniform(count: int, low: float, high: float, generator: Generator | None, device: torch.device) -> Tensor:
    """Numbers [N] in low..high."""
    return torch.rand(count, generator=generator, device=device) * (high - low) + low


def as_before(values: Tensor, images: Tensor) -> Tensor:
    """Float ``values`` kept in 0..255, in the dtype of ``images``; whole-number dtypes are rounded to nearest."""
    values = values.clamp(0.0, 255.0)
    return values.to(images.dtype) if images.is_floating_point() else values.round().to(images.dtype)
