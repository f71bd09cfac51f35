"""What is probed: encoders, and beside them what puts their scores into proportion.

Shapes: N samples, D features, S frame stack, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from visrep.augment import Augmentation
from visrep.data.columns import Index
from visrep.encoders.contract import Encoder, build_encoder
from visrep.errors import UserError
from visrep.probes.data import ProbeData
from visrep.probes.view import AS_THEY_ARE

Role = Literal["encoder", "random", "pixels", "state", "constant"]
Seen = Callable[[int], None]  # told how many images were encoded
PCA_IMAGES = 2_048  # train images that the components are fitted on
PCA_WIDEST = 256


class Code:
    """A way to describe row t, or the row before it, by features.

    Attributes:
        name: for tables.
        role: what it is.
        stack: frames it looks at; 0 where it does not look at images.
        width: D.
        view: what images go through before anything else, in its evaluation form.
        encoder: the network behind it, if there is one.
    """

    name: str
    role: Role
    stack: int = 0
    width: int
    view: Augmentation = AS_THEY_ARE
    encoder: Encoder | None = None

    def features(self, data: ProbeData, offset: int, seen: Seen) -> Tensor:
        """Features of all rows (offset 0) or of the rows before them (-1), [N, D] on the CPU."""
        raise NotImplementedError


class ImageCode(Code):
    """A code of images. Subclasses implement ``encode``."""

    def encode(self, images: Tensor) -> Tensor:
        """[n, S*C, H, W] in 0..255 to [n, D] on the CPU."""
        raise NotImplementedError

    def images(self, data: ProbeData, offset: int = 0, rows: Index | None = None) -> Iterator[Tensor]:
        """Images [n, S*C, H, W] as this code sees them; otherwise ``ProbeData.images``."""
        return map(self.view.evaluate, data.images(self.stack, offset, rows))

    def features(self, data: ProbeData, offset: int, seen: Seen) -> Tensor:
        """See ``Code``."""
        return self._encode_all(self.images(data, offset), data.split.total, seen)

    def single_frame_features(self, data: ProbeData, seen: Seen) -> Tensor:
        """Features of the newest frame alone, repeated to fill the stack: what is known without any motion."""

        def still() -> Iterator[Tensor]:
            channels = data.store.spec.frame_shape[0]
            for images in self.images(data):
                yield images[:, -channels:].repeat(1, self.stack, 1, 1)

        return self._encode_all(still(), data.split.total, seen)

    def _encode_all(self, images: Iterator[Tensor], total: int, seen: Seen) -> Tensor:
        out = torch.empty(total, self.width)
        done = 0
        for part in images:
            out[done : done + len(part)] = self.encode(part)
            done += len(part)
            seen(len(part))
        return out


class EncoderCode(ImageCode):
    """Features of an encoder, in eval mode, without gradient and without autocast."""

    def __init__(
        self, name: str, encoder: Encoder, role: Role, device: torch.device, view: Augmentation = AS_THEY_ARE
    ) -> None:
        self.name, self.role, self.view = name, role, view
        self.encoder = encoder.to(device).eval()
        self.device = device
        self.stack, self.width = encoder.contract.stack, encoder.feature_dim

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """See ``ImageCode``."""
        assert self.encoder is not None
        features: Tensor = self.encoder(images.to(self.device)).float().cpu()
        if not bool(features.isfinite().all()):
            raise UserError(
                f"encoder {self.name} gives features that are not finite: its training diverged; take an encoder of an "
                "earlier checkpoint, or train again with a lower learning rate"
            )
        return features


def random_twin(encoder: Encoder, seed: int, device: torch.device, view: Augmentation = AS_THEY_ARE) -> EncoderCode:
    """The same architecture with fresh weights, on the same view. The global random streams stay untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs too
        fresh = build_encoder(encoder.kind, encoder.contract, **encoder.config())
    return EncoderCode(f"random {encoder.kind}", fresh, "random", device, view)


class PixelCode(ImageCode):
    """The first principal components of stacked pixels, fitted on at most 2,048 train images."""

    role: Role = "pixels"

    def __init__(self, data: ProbeData, stack: int, width: int, seen: Seen, view: Augmentation = AS_THEY_ARE) -> None:
        """``width``: components, at most 256 and fewer where the images have fewer directions."""
        self.stack, self.view = stack, view
        rows: Index = np.arange(min(PCA_IMAGES, data.split.train))  # the train rows are in random order
        parts = []
        for images in self.images(data, rows=rows):
            parts.append(images.flatten(1).float())
            seen(len(images))
        pixels = torch.cat(parts)
        self.mean = pixels.mean(0)
        pixels -= self.mean
        gram = torch.zeros(len(pixels), len(pixels), dtype=torch.float64)
        for chunk in pixels.split(4096, dim=1):
            gram += chunk @ chunk.T
        values, vectors = torch.linalg.eigh(gram)
        # Eigenvalues below 1e-6 of the largest are rounding of the float32 products.
        solid = int((values > 1e-6 * values[-1]).sum())
        self.width = max(1, min(width, PCA_WIDEST, solid))
        top = vectors[:, -self.width :].flip(1) / values[-self.width :].flip(0).clamp_min(1e-12).sqrt()
        self.components = pixels.T @ top.float()  # [S*C*H*W, k], orthonormal
        height, width = images.shape[-2:]
        self.name = f"pixels PCA-{self.width}" + (f" of {height}x{width}" if view != AS_THEY_ARE else "")

    def encode(self, images: Tensor) -> Tensor:
        """See ``ImageCode``."""
        return (images.flatten(1).float() - self.mean) @ self.components


class StateCode(Code):
    """The true state itself: what a perfect code would score."""

    name, role = "true state", "state"

    def __init__(self, data: ProbeData) -> None:
        assert data.factors is not None
        self.width = data.factors.values.shape[1]

    def features(self, data: ProbeData, offset: int, seen: Seen) -> Tensor:
        """See ``Code``."""
        assert data.factors is not None and data.factors_before is not None
        return data.factors.values if offset == 0 else data.factors_before


class ConstantCode(Code):
    """Nothing: readouts predict the mean of the train rows (or the most frequent class)."""

    name, role, width = "constant", "constant", 1

    def features(self, data: ProbeData, offset: int, seen: Seen) -> Tensor:
        """See ``Code``."""
        return torch.zeros(data.split.total, 1)
