"""Colours: grey, brightness, contrast, saturation and hue (RAD).

Shapes: N samples, S frames of a stack, three channels per frame, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from visrep.augment.contract import (
    Draws,
    Operator,
    as_before,
    draw_selection,
    register_operator,
    select,
    uniform,
)
from visrep.precision import at_least_float32

LUMA = (0.2989, 0.587, 0.114)  # weights of red, green and blue in RAD's source (ITU-R BT.601)


@register_operator("grayscale")
@dataclass(frozen=True)
class Grayscale(Operator):
    """Take the colours out of a share ``p`` of the samples: 0.2989 R + 0.587 G + 0.114 B in all three channels."""

    p: float = 0.3

    needs_rgb: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.check_probability(self.p)

    def draw(self, count: int, size: tuple[int, int], generator: Generator | None, device: torch.device) -> Draws:
        """``selection`` [N] where p < 1."""
        return draw_selection(self.p, count, generator, device)

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """[N, S*3, H, W] to the same."""
        red, green, blue = at_least_float32(_float(images)).unflatten(1, (-1, 3)).unbind(2)  # [N, S, H, W]
        grey = as_before(LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue, images)
        return select(grey[:, :, None].expand(-1, -1, 3, -1, -1).flatten(1, 2), images, draws, self.p)


@register_operator("color_jitter")
@dataclass(frozen=True)
class ColorJitter(Operator):
    """Change contrast, then brightness, saturation and hue of a share ``p`` of the samples.

    Contrast c multiplies the distance of every channel from its mean over the frame by 1-c..1+c; brightness and
    saturation multiply V and S of the HSV colour by 1-b..1+b and 1-s..1+s; hue turns H by up to ``hue`` of the circle.
    Each is drawn on its own for every sample and all its frames; values are clipped after every step.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.5
    p: float = 1.0

    needs_rgb: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.check_probability(self.p)
        ranges = (self.brightness, self.contrast, self.saturation, self.hue)
        if min(ranges) < 0 or not any(ranges):
            raise self.refuse("brightness, contrast, saturation and hue are ranges: none below 0, one above")
        if self.hue > 0.5:
            raise self.refuse("hue is a share of the colour circle: at most 0.5, which reaches every hue")

    def draw(self, count: int, size: tuple[int, int], generator: Generator | None, device: torch.device) -> Draws:
        """Factors ``contrast``, ``brightness``, ``saturation`` [N], ``hue`` [N] in turns; ``selection`` where p < 1."""
        draws = {
            name: uniform(count, max(0.0, 1.0 - extent), 1.0 + extent, generator, device)
            for name, extent in (
                ("contrast", self.contrast),
                ("brightness", self.brightness),
                ("saturation", self.saturation),
            )
        }
        draws["hue"] = uniform(count, -self.hue, self.hue, generator, device)
        return draws | draw_selection(self.p, count, generator, device)

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """[N, S*3, H, W] to the same."""
        rgb = (at_least_float32(_float(images)) / 255.0).unflatten(1, (-1, 3))  # [N, S, 3, H, W]
        if self.contrast:
            mean = rgb.mean((-2, -1), keepdim=True)
            rgb = (mean + (rgb - mean) * _per_sample(draws["contrast"], rgb)).clamp(0.0, 1.0)
        if self.brightness or self.saturation or self.hue:
            rgb = jitter_hsv(rgb, draws["brightness"], draws["saturation"], draws["hue"])
        return select(as_before(rgb.flatten(1, 2) * 255.0, images), images, draws, self.p)


def jitter_hsv(rgb: Tensor, brightness: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """Scale V and S and turn H of colours in 0..1.

    Args:
        rgb: [N, S, 3, H, W].
        brightness: factors of V, [N].
        saturation: factors of S, [N].
        hue: what is added to H, in turns of the colour circle, [N].

    Returns:
        [N, S, 3, H, W]; V and S are clipped to 0..1.
    """
    red, green, blue = rgb.unbind(2)  # [N, S, H, W]
    value, darkest = rgb.amax(2), rgb.amin(2)
    chroma = value - darkest
    divisor = torch.where(chroma == 0, torch.ones_like(chroma), chroma)
    sixths = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2.0 + (blue - red) / divisor, 4.0 + (red - green) / divisor),
    )  # hue in sixths of the circle; grey has hue 0
    sixths = sixths + 6.0 * _per_sample(hue, sixths)
    scale = _per_sample(saturation, chroma)
    strength = (scale * chroma / torch.where(value == 0, torch.ones_like(value), value)).clamp(0.0, 1.0)
    value = (_per_sample(brightness, value) * value).clamp(0.0, 1.0)
    channels = []
    for place in (5.0, 3.0, 1.0):  # red, green, blue
        k = (place + sixths) % 6.0
        channels.append(value - value * strength * torch.minimum(k, 4.0 - k).clamp(0.0, 1.0))
    return torch.stack(channels, 2)


def _float(images: Tensor) -> Tensor:
    return images if images.is_floating_point() else images.float()


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    """[N] to [N, 1, ...] in the dtype and with as many dimensions as ``like``."""
    return values.to(like.dtype).view(-1, *(1,) * (like.ndim - 1))
