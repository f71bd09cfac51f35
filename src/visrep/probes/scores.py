"""How good predictions are, with 95 % intervals over test episodes.

Rows of an episode are alike, so an interval over rows would be far too narrow: whole episodes are redrawn, and a score
is computed from the pooled rows of a redraw, not averaged over episodes.

Shapes: R rows, T targets, E episodes, B resamples.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from visrep.results.statistics import Array, Estimate, bootstrap

RESAMPLES = 2_000
Counts = Array  # [B, E]: how often each episode was drawn


def over_episodes(score: Callable[[Counts], Array], episodes: int, seed: int) -> Estimate:
    """Point and interval of a score that takes counts [B, E] and gives [B] or [B, K]."""

    def statistic(drawn: Array) -> Array:
        lead = drawn.shape[:-2]
        index = drawn.reshape(-1, episodes).astype(np.int64)
        flat = index + episodes * np.arange(len(index))[:, None]
        counts = np.bincount(flat.ravel(), minlength=len(index) * episodes).reshape(-1, episodes)
        values = score(counts.astype(np.float64))
        return values.reshape((*lead, *values.shape[1:]))

    return bootstrap(statistic, np.arange(episodes, dtype=np.float64), np.random.default_rng(seed), RESAMPLES)


def r2(predictions: Array, targets: Array, episodes: NDArray[np.int64], seed: int = 0) -> Estimate:
    """Coefficient of determination of each target, and their mean as the last entry: Estimate of [T + 1].

    1 - Σ(y - ŷ)² / Σ(y - ȳ)², ȳ the mean of the rows at hand; not clipped, so a bad predictor is negative. NaN where a
    target does not vary.

    Args:
        predictions: [R, T].
        targets: [R, T].
        episodes: id of each row's episode, [R].
        seed: of the resamples.
    """
    centred = targets - targets.mean(0)  # Σy² - (Σy)²/n would cancel for targets far from zero
    sums, count = _per_episode(
        np.stack([np.ones_like(targets), (targets - predictions) ** 2, centred, centred**2], axis=-1), episodes
    )
    # A constant that is not exactly representable leaves its rounding as "variance".
    noise = 1e-20 * np.maximum(1.0, (targets**2).mean(0))

    def score(counts: Counts) -> Array:
        n, errors, total, squares = np.moveaxis((counts @ sums).reshape(len(counts), -1, 4), -1, 0)
        spread = squares - total**2 / n
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.where(spread > noise * n, 1.0 - errors / spread, np.nan)
        return np.concatenate([value, value.mean(1, keepdims=True)], axis=1)

    return over_episodes(score, count, seed)


def accuracy(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], episodes: NDArray[np.int64], seed: int = 0
) -> Estimate:
    """Share of rows [R] whose class is right."""
    sums, count = _per_episode(np.stack([np.ones(len(labels)), predicted == labels], axis=-1), episodes)

    def score(counts: Counts) -> Array:
        total, right = (counts @ sums).T
        return np.asarray(right / total)

    return over_episodes(score, count, seed)


def f1(predicted: NDArray[np.bool_], labels: NDArray[np.bool_], episodes: NDArray[np.int64], seed: int = 0) -> Estimate:
    """2 TP / (2 TP + FP + FN) of rows [R]; NaN without a positive row."""
    hits = np.stack([predicted & labels, predicted & ~labels, ~predicted & labels], axis=-1).astype(np.float64)
    sums, count = _per_episode(hits, episodes)

    def score(counts: Counts) -> Array:
        true, false_alarms, missed = (counts @ sums).T
        with np.errstate(invalid="ignore"):
            return np.where(true + missed > 0, 2 * true / (2 * true + false_alarms + missed), np.nan)

    return over_episodes(score, count, seed)


def auroc(values: Array, labels: NDArray[np.bool_], episodes: NDArray[np.int64], seed: int = 0) -> Estimate:
    """Chance that a positive row [R] has the higher value than a negative one, ties one half; NaN without both."""
    _, index = np.unique(episodes, return_inverse=True)
    count = int(index.max()) + 1
    wins = np.zeros((count, count))  # [episode of the positive, episode of the negative]
    positive, negative = values[labels], values[~labels]
    for episode in range(count):
        below = np.sort(negative[index[~labels] == episode])
        won = 0.5 * (np.searchsorted(below, positive, "left") + np.searchsorted(below, positive, "right"))
        wins[:, episode] = np.bincount(index[labels], won, minlength=count)
    sums, _ = _per_episode(np.stack([labels, ~labels], axis=-1).astype(np.float64), episodes)

    def score(counts: Counts) -> Array:
        positives, negatives = (counts @ sums).T
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.einsum("be,ef,bf->b", counts, wins, counts, optimize=True) / (positives * negatives)
        return np.where(positives * negatives > 0, value, np.nan)

    return over_episodes(score, count, seed)


def best_threshold(values: Array, labels: NDArray[np.bool_]) -> float:
    """The value [R] at or above which calling rows positive gives the highest F1; +inf without a positive row."""
    if not labels.any():
        return float("inf")
    order = np.argsort(-values, kind="stable")
    true = np.cumsum(labels[order])
    score = 2 * true / (np.arange(1, len(labels) + 1) + labels.sum())
    # Equal values cannot be told apart: only the last of a group is a threshold.
    last = np.append(values[order][1:] != values[order][:-1], True)
    return float(values[order][np.argmax(np.where(last, score, -1.0))])


def _per_episode(values: Array, episodes: NDArray[np.int64]) -> tuple[Array, int]:
    """[R, ...] to sums over each episode's rows, [E, everything else flat], and E."""
    _, index = np.unique(episodes, return_inverse=True)
    count = int(index.max()) + 1
    flat = values.reshape(len(values), -1).astype(np.float64)
    sums = np.zeros((count, flat.shape[1]))
    np.add.at(sums, index, flat)
    return sums, count
