"""A cheap look at the representation while it is being learned, and a warning when it collapses.

Shapes: N images, S frame stack, C channels, H W pixels, K state values, D features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visrep.encoders.contract import Encoder
from visrep.probes.activity import UnitActivity, dormant_fraction
from visrep.probes.data import NEAR_CONSTANT, Split, split_episodes
from visrep.probes.ranks import effective_rank
from visrep.probes.readout import Standardised, ridge
from visrep.probes.sphere import uniformity

CHUNK = 64  # images per pass: keeps a convolution's maps in cache
WIDE = 8_192  # features beyond which half of the images must do
FALLEN = 0.1  # of its start
COLLAPSED = {"RankMe": 1.0, "uniformity": 0.0}  # of features that are all alike
# How far from that are features which differ by rounding alone: RankMe's own epsilon adds up to 1e-3 with 512 images.
FLAT = {"RankMe": 1e-3, "uniformity": 1e-6}
MOST_DORMANT = 0.9
DORMANT = 0.025


class LiveProbe:
    """Measures an encoder on the images that it was made with. Deterministic; draws no random number when called."""

    def __init__(
        self,
        images: Tensor,
        state: Tensor | None = None,
        episodes: NDArray[np.int64] | None = None,
        seed: int = 0,
    ) -> None:
        """Keep the batch and split it.

        Args:
            images: [N, S*C, H, W] in 0..255, on the device of the encoder; 512 are plenty.
            state: privileged state of the images, [N, K]; None leaves the readout out.
            episodes: id of each image's episode, [N]; the readout is tested on other episodes than it is fitted on. At
                least 5 different ones; with fewer, or None, the readout is left out.
            seed: of the split.
        """
        generator = np.random.default_rng(seed)
        order = generator.permutation(len(images))
        self.images = images[torch.from_numpy(order).to(images.device)]
        self.state: Tensor | None = None
        self.episodes: NDArray[np.int64] | None = None
        if state is not None and episodes is not None and len(np.unique(episodes)) >= 5:
            self.state = state.cpu().double().flatten(1)[order]
            self.episodes = np.asarray(episodes)[order]
            self._parts = split_episodes(self.episodes, generator)

    @torch.no_grad()
    def __call__(self, encoder: Encoder) -> dict[str, float]:
        """Measure; the encoder's mode is as it was afterwards.

        Returns:
            ``probe_rankme``; ``probe_dormant``, share of units below 2.5 % of their layer's average activity (where
            there are hidden units); ``probe_uniformity``; ``probe_state_r2``, mean R² over the state's values (where
            there is a state). NaN where features are not finite.
        """
        training = encoder.training
        encoder.eval()
        activity = UnitActivity(encoder)
        count = len(self.images) // (2 if encoder.feature_dim > WIDE else 1)
        with activity:
            features = torch.cat([encoder(part) for part in self.images[:count].split(CHUNK)]).float()
        encoder.train(training)
        values = {"probe_rankme": float(effective_rank(features)), "probe_uniformity": float(uniformity(features))}
        scores = activity.scores()
        if scores is not None:
            values["probe_dormant"] = float(dormant_fraction(scores, DORMANT))
        readout = self._state_r2(features.cpu())
        if readout is not None:
            values["probe_state_r2"] = readout
        return values

    def _state_r2(self, features: Tensor) -> float | None:
        if self.state is None or self.episodes is None:
            return None
        if not bool(features.isfinite().all()):
            return math.nan
        seen = self.episodes[: len(features)]
        parts = [np.flatnonzero(np.isin(seen, part)) for part in self._parts]
        split = Split(*(len(part) for part in parts))
        rows = torch.from_numpy(np.concatenate(parts))
        targets = self.state[rows]
        varies = (targets[: split.train].var(0) > NEAR_CONSTANT) & (targets[split.tests].var(0) > NEAR_CONSTANT)
        if min(split.train, split.val, split.test) < 2 or not bool(varies.any()):
            return None
        targets = targets[:, varies]
        predicted = ridge([Standardised(features[rows], split.train)], targets, split).predictions
        error = (predicted - targets)[split.tests].square().sum(0)
        spread = (targets[split.tests] - targets[split.tests].mean(0)).square().sum(0)
        return float((1.0 - error / spread).mean())


def collapse_warning(history: Sequence[Mapping[str, float]]) -> str | None:
    """What is wrong with the newest of several measurements, oldest first; None where nothing is.

    Compared with the first measurement, because a fresh encoder's rank and uniformity depend on the images: how far
    RankMe lies above 1 and how far uniformity lies below 0 must stay above a tenth of what they were.
    Features that were alike from the first measurement on are told as such.
    """
    if not history:
        return None
    first, now = history[0], history[-1]
    broken = [name for name in ("probe_rankme", "probe_uniformity") if not math.isfinite(now[name])]
    if broken:
        return "the encoder's features are not finite: lower the learning rate"
    reasons, from_start = [], False
    for name, key, moved in (("RankMe", "probe_rankme", "fell"), ("uniformity", "probe_uniformity", "rose")):
        before, after = (abs(values[key] - COLLAPSED[name]) for values in (first, now))
        if before <= FLAT[name] and after <= FLAT[name]:
            reasons.append(f"{name} {now[key] + 0.0:.3g}")  # -0 becomes 0
            from_start = True
        elif after <= FALLEN * before:
            reasons.append(f"{name} {moved} from {' to '.join(_told_apart(first[key], now[key]))}")
    if now.get("probe_dormant", 0.0) > MOST_DORMANT:
        reasons.append(f"{100 * now['probe_dormant']:.0f} % of the units are dormant")
    if not reasons:
        return None
    what = "was collapsed at its first measurement already, and still is" if from_start else "may be collapsing"
    return f"the representation {what}: {', '.join(reasons)}"


def _told_apart(first: float, now: float) -> tuple[str, str]:
    """Two different numbers with as many digits, three at least, as it takes to see that they differ."""
    texts = ((f"{first + 0.0:.{digits}g}", f"{now + 0.0:.{digits}g}") for digits in range(3, 18))
    return next(pair for pair in texts if pair[0] != pair[1])
