"""The shape of a code: its ranks, its silent units, how near two views of one image come and how far others stay.

Shapes: N samples, D features, S frame stack, C channels, H W pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from visrep.augment.shift import random_shift
from visrep.data.columns import Index
from visrep.probes.activity import UnitActivity
from visrep.probes.codes import Code, ImageCode, Seen
from visrep.probes.data import ProbeData
from visrep.probes.ranks import ranks
from visrep.probes.sphere import alignment, uniformity

WIDE = 4_096  # features beyond which the ranks are taken from fewer samples
WIDE_SAMPLES = 2_048
PAIRS = 2_048  # samples of alignment and uniformity, and images of the silent units
SHIFT = 4  # pixels, per axis
SAMPLES_PER_FEATURE = 10  # below this a rank is limited by the samples too


def geometry(code: Code, features: Tensor, data: ProbeData, seed: int, seen: Seen) -> dict[str, Any]:
    """Ranks, uniformity, and of codes of images alignment; of encoders the share of dormant units too.

    Args:
        code: where the features come from.
        features: of all rows, as the code gives them (not standardised), [N, D].
        data: the rows.
        seed: of the rows that are taken, and of the shifts.
        seen: told how many images were encoded.
    """
    order = np.random.default_rng(seed).permutation(len(features))
    some = features[order[:WIDE_SAMPLES]] if features.shape[1] > WIDE else features
    values: dict[str, Any] = dict(ranks(some))
    values["samples"], values["features"] = some.shape
    values["limited_by_samples"] = len(some) < SAMPLES_PER_FEATURE * some.shape[1]
    values["uniformity"] = float(uniformity(features[order[:PAIRS]]))
    values["alignment"], values["dormant"] = None, None
    if isinstance(code, ImageCode):
        values["alignment"], values["dormant"] = _two_views(code, data, order[:PAIRS], seed, seen)
    return values


def _two_views(
    code: ImageCode, data: ProbeData, rows: Index, seed: int, seen: Seen
) -> tuple[float | None, dict[str, float] | None]:
    """Alignment of two random shifts of the same stacks, and the units that stay silent on both.

    Vectors and latent images cannot be shifted: they have no alignment.
    """
    shiftable = data.store.spec.frame_dtype == "uint8"
    generator = torch.Generator().manual_seed(seed)
    activity = UnitActivity(code.encoder if code.encoder is not None else torch.nn.Identity())
    total = 0.0
    with activity:
        for images in code.images(data, rows=rows):
            views = [random_shift(images, SHIFT, generator) if shiftable else images for _ in range(2)]
            first, second = (code.encode(view) for view in views)
            total += float(alignment(first, second)) * len(images)
            seen(2 * len(images))
    return (total / len(rows) if shiftable else None), activity.dormant()
