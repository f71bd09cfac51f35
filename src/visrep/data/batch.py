"""What a method needs from experience (BatchSpec) and what it gets (Batch).

Shapes: B batch, T offsets, S frame stack, C colour channels, H W pixels, A action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from visrep.errors import UserError


@dataclass(frozen=True)
class BatchSpec:
    """The window of experience that a method needs around each anchor row.

    Attributes:
        offsets: agent steps relative to the anchor, ascending; ``(0, 1)`` is a transition, ``range(50)`` a sequence.
        fields: names of the store's fields ("image", "action", "reward", "terminal", "state", "camera:2", ...).
            "action" and "reward" at offset t are those that *led to* row t.
        views: independently augmented copies of every image. The augmentation makes them; a sampler cuts every image
            once.
        n_step: 0 for none; n >= 1 adds the n-step return and discount from the anchor, and offset n to the window.
        image_offsets: the offsets at which images are cut; None for all of them. Cutting and augmenting an image costs
            far more than the rest of a row.
        crossing: "forbid" draws only anchors whose whole window lies inside one episode; "mask" draws any anchor,
            repeats the nearest row of the episode and marks it in ``Batch.valid``.
    """

    offsets: tuple[int, ...] = (0,)
    fields: frozenset[str] = frozenset({"image"})
    views: int = 1
    n_step: int = 0
    image_offsets: tuple[int, ...] | None = None
    crossing: Literal["forbid", "mask"] = "forbid"

    def __post_init__(self) -> None:
        window = set(self.offsets) | ({0, self.n_step} if self.n_step else set())
        object.__setattr__(self, "offsets", tuple(sorted(window)))
        if self.image_offsets is None:
            object.__setattr__(self, "image_offsets", self.offsets)
        elif not set(self.image_offsets) <= window:
            raise ValueError(f"image_offsets {self.image_offsets} are not all among the offsets {self.offsets}")
        else:
            object.__setattr__(self, "image_offsets", tuple(sorted(set(self.image_offsets))))
        if not self.offsets:
            raise ValueError("BatchSpec.offsets is empty: name at least offset 0")
        if self.n_step < 0 or self.views < 1:
            raise ValueError(f"BatchSpec needs n_step >= 0 and views >= 1, got {self.n_step} and {self.views}")

    @property
    def images_at(self) -> tuple[int, ...]:
        """The offsets at which images are cut, ascending."""
        assert self.image_offsets is not None, "settled in __post_init__"
        return self.image_offsets

    def union(self, other: BatchSpec) -> BatchSpec:
        """The smallest spec that serves both; masks win over forbidding, because a mask can be read as either."""
        if self.n_step and other.n_step and self.n_step != other.n_step:
            raise ValueError(f"two methods ask for different n-step returns: {self.n_step} and {other.n_step}")
        return BatchSpec(
            offsets=self.offsets + other.offsets,
            fields=self.fields | other.fields,
            views=max(self.views, other.views),
            n_step=self.n_step or other.n_step,
            image_offsets=self.images_at + other.images_at,
            crossing="mask" if "mask" in (self.crossing, other.crossing) else "forbid",
        )

    @property
    def needed(self) -> frozenset[str]:
        """Fields that the source must provide: ``fields``, and what n-step returns are made of."""
        return self.fields | ({"reward", "terminal"} if self.n_step else set())

    def check(self, provides: frozenset[str], source: str, who: str, fitting: Sequence[str] = ()) -> None:
        """Raise UserError, saying what is missing and what to do, unless ``source`` provides every field.

        Args:
            provides: field names that the store or source offers.
            source: its name, for the message.
            who: the method that asks, for the message.
            fitting: names of the objectives that need no more than ``provides``, for the message.
        """
        missing = sorted(self.needed - provides)
        if not missing:
            return
        advice = "choose an objective that needs only " + ", ".join(sorted(provides))
        if set(missing) <= {"action", "reward"}:
            advice = f"record the data with its {' and '.join(f'{name}s' for name in missing)}, or use an objective "
            advice += f"that fits: {', '.join(fitting)}" if fitting else "that does without"
        raise UserError(
            f"{who} needs {', '.join(repr(m) for m in missing)}, but {source} provides only "
            f"{', '.join(sorted(provides))}: {advice}"
        )


@dataclass
class Batch:
    """One batch cut from a store.

    Attributes:
        images: one tensor per view, each uint8 or float in 0..255, [B, I, S*C, H, W]: images at I of the T offsets.
        offsets: the T offsets, ascending.
        valid: bool [B, T]; False where the offset left the anchor's episode (only with crossing="mask").
        fields: further fields by name, each [B, T, ...].
        n_step_return: float32 [B, 1] sum of discounted rewards over n steps from the anchor, or None.
        n_step_discount: float32 [B, 1] discount that multiplies the value of the row at offset n, or None.
        image_offsets: the I offsets of the images, ascending; None where they are all of ``offsets``.
    """

    images: list[Tensor]
    offsets: tuple[int, ...]
    valid: Tensor
    fields: dict[str, Tensor] = field(default_factory=dict)
    n_step_return: Tensor | None = None
    n_step_discount: Tensor | None = None
    image_offsets: tuple[int, ...] | None = None

    def image(self, offset: int = 0, view: int = 0) -> Tensor:
        """Stacked frames at one offset, [B, S*C, H, W]."""
        return self.images[view][:, _column(self.image_offsets or self.offsets, offset)]

    def at(self, name: str, offset: int = 0) -> Tensor:
        """Field ``name`` at one offset, [B, ...]."""
        if name not in self.fields:
            raise KeyError(f"this batch has no field {name!r}; it has {', '.join(sorted(self.fields)) or 'none'}")
        return self.fields[name][:, _column(self.offsets, offset)]

    def with_images(self, images: list[Tensor]) -> Batch:
        """The same batch with other (augmented) images, one tensor per view."""
        return replace(self, images=images)

    def to(self, device: torch.device) -> Batch:
        """Move every tensor; uint8 images stay uint8 so that little crosses the bus."""

        def move(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.to(device, non_blocking=True)

        return replace(
            self,
            images=[image.to(device, non_blocking=True) for image in self.images],
            valid=self.valid.to(device, non_blocking=True),
            fields={name: value.to(device, non_blocking=True) for name, value in self.fields.items()},
            n_step_return=move(self.n_step_return),
            n_step_discount=move(self.n_step_discount),
        )


def _column(offsets: tuple[int, ...], offset: int) -> int:
    if offset not in offsets:
        raise KeyError(f"offset {offset} is not in this batch; it has {offsets}")
    return offsets.index(offset)
