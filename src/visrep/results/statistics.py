"""Statistics of scores over runs and tasks (Agarwal et al. 2021, Deep RL at the edge of the statistical precipice).

Shapes: R runs, M tasks, K thresholds, N resamples. Every statistic works on the last two axes [..., R, M], so that one
call serves all resamples of a bootstrap. Randomness comes from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]

RESAMPLES = 20_000
_CHUNK_NUMBERS = 4_000_000  # scores held at a time while resampling (32 MB)


class Estimate(NamedTuple):
    """A point value and the ends of its confidence interval (arrays where the statistic is a curve)."""

    point: Array
    low: Array
    high: Array


def as_scores(scores: ArrayLike) -> Array:
    """Check and convert to float64 [R, M]; a vector of R runs counts as one task."""
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"scores must be [runs, tasks] with at least one of each; got shape {list(array.shape)}")
    if not np.isfinite(array).all():
        run, task = np.argwhere(~np.isfinite(array))[0]
        raise ValueError(f"scores must be finite; run {run} of task {task} is {array[run, task]}")
    return array


def iqm(scores: Array) -> Array:
    """Interquartile mean over all R*M scores, [..., R, M] to [...]: ``int(0.25 R M)`` values are cut on each side."""
    flat = scores.reshape(*scores.shape[:-2], -1)  # [..., R*M]
    count = flat.shape[-1]
    cut = int(0.25 * count)
    if cut == 0:
        return flat.mean(-1)
    return np.partition(flat, (cut, count - cut - 1), axis=-1)[..., cut : count - cut].mean(-1)


def mean(scores: Array) -> Array:
    """Mean over tasks of the mean over runs, [..., R, M] to [...]."""
    return scores.mean(-2).mean(-1)


def median(scores: Array) -> Array:
    """Median over tasks of the mean over runs, [..., R, M] to [...]."""
    return np.asarray(np.median(scores.mean(-2), axis=-1))


def optimality_gap(scores: Array, gamma: float = 1.0) -> Array:
    """How far scores stay below ``gamma`` on average, [..., R, M] to [...]: gamma - mean(min(score, gamma))."""
    return gamma - np.minimum(scores, gamma).mean((-2, -1))


def performance_profile(scores: Array, thresholds: ArrayLike) -> Array:
    """Share of all scores strictly above each threshold, [..., R, M] and [K] to [..., K]."""
    flat = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    return _share_above(flat, np.asarray(thresholds, dtype=np.float64))


def average_profile(scores: Array, thresholds: ArrayLike) -> Array:
    """Share of tasks whose mean score is strictly above each threshold, [..., R, M] and [K] to [..., K]."""
    return _share_above(np.sort(scores.mean(-2), axis=-1), np.asarray(thresholds, dtype=np.float64))


def _share_above(ordered: Array, thresholds: Array) -> Array:
    """[..., n] sorted along the last axis and [K] to [..., K]."""
    rows = ordered.reshape(-1, ordered.shape[-1])
    below = np.stack([np.searchsorted(row, thresholds, side="right") for row in rows])  # [rows, K]
    return (1.0 - below / ordered.shape[-1]).reshape(*ordered.shape[:-1], thresholds.size)


def bootstrap(
    statistic: Statistic,
    scores: ArrayLike,
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    resample_tasks: bool = False,
) -> Estimate:
    """Percentile interval of a statistic over stratified resamples: runs are redrawn separately for every task.

    Args:
        statistic: takes [N, R, M], returns [N] or [N, K]; for example ``iqm``.
        scores: [R, M], or [R] for one task.
        generator: source of the resamples.
        resamples: how many.
        confidence: mass between the two ends.
        resample_tasks: redraw the tasks as well, for statements about tasks that were not run.
    """
    scores = as_scores(scores)
    runs, tasks = scores.shape
    values = []
    for count in _chunks(resamples, scores.size):
        row = generator.integers(runs, size=(count, runs, tasks))
        column = generator.integers(tasks, size=(count, 1, tasks)) if resample_tasks else np.arange(tasks)
        values.append(statistic(scores[row, column]))
    low, high = percentile_ends(np.concatenate(values), confidence)
    return Estimate(statistic(scores), low, high)


def aggregates(
    scores: ArrayLike, generator: np.random.Generator, gamma: float = 1.0, resamples: int = RESAMPLES
) -> dict[str, Estimate]:
    """IQM, mean, median and optimality gap with 95 % intervals, all from the same resamples. Scores [R, M]."""

    def all_four(sample: Array) -> Array:
        return np.stack([iqm(sample), mean(sample), median(sample), optimality_gap(sample, gamma)], axis=-1)

    result = bootstrap(all_four, scores, generator, resamples)
    names = ("iqm", "mean", "median", "optimality_gap")
    return {name: Estimate(result.point[i], result.low[i], result.high[i]) for i, name in enumerate(names)}


def profile_estimate(
    scores: ArrayLike, thresholds: ArrayLike, generator: np.random.Generator, resamples: int = 2_000
) -> Estimate:
    """Performance profile [K] with a 95 % interval at each threshold."""
    return bootstrap(lambda sample: performance_profile(sample, thresholds), scores, generator, resamples)


def improvement_per_task(x: ArrayLike, y: ArrayLike) -> Array:
    """P(x > y) + 0.5 P(x = y) over all pairs of runs, [Rx, M] and [Ry, M] to [M] (Mann-Whitney U / (Rx Ry))."""
    return _pair_wins(as_scores(x), as_scores(y)).mean((0, 1))


def probability_of_improvement(x: ArrayLike, y: ArrayLike) -> float:
    """Mean over tasks of the probability that a run of ``x`` beats a run of ``y``; ties count one half."""
    return float(improvement_per_task(x, y).mean())


def improvement_estimate(
    x: ArrayLike,
    y: ArrayLike,
    generator: np.random.Generator,
    resamples: int = 2_000,
    confidence: float = 0.95,
) -> Estimate:
    """Probability of improvement with an interval: the runs of ``x`` and ``y`` are redrawn independently per task."""
    wins = _pair_wins(as_scores(x), as_scores(y))
    runs_x, runs_y, tasks = wins.shape
    values = []
    for count in _chunks(resamples, wins.size):
        row_x = generator.integers(runs_x, size=(count, runs_x, 1, tasks))
        row_y = generator.integers(runs_y, size=(count, 1, runs_y, tasks))
        values.append(wins[row_x, row_y, np.arange(tasks)].mean((1, 2, 3)))
    low, high = percentile_ends(np.concatenate(values), confidence)
    return Estimate(wins.mean((0, 1)).mean(), low, high)


def _pair_wins(x: Array, y: Array) -> Array:
    """[Rx, M] and [Ry, M] to [Rx, Ry, M]: 1 where x is larger, 0.5 for a tie."""
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"both sides need the same tasks; got {x.shape[1]} and {y.shape[1]}")
    difference = x[:, None] - y[None]
    return (difference > 0) + 0.5 * (difference == 0)


def _chunks(resamples: int, numbers_each: int) -> list[int]:
    """Split ``resamples`` into counts whose arrays stay small."""
    if resamples < 1:
        raise ValueError(f"a bootstrap needs at least one resample; got {resamples}")
    size = max(1, _CHUNK_NUMBERS // numbers_each)
    return [min(size, resamples - start) for start in range(0, resamples, size)]


def percentile_ends(values: Array, confidence: float = 0.95) -> tuple[Array, Array]:
    """Lower and upper end of the middle ``confidence`` mass along the first axis, [N, ...] to two [...].

    Resamples in which a statistic is not defined (NaN: an R² of a constant) are left out; NaN where none is left.
    """
    tail = 50.0 * (1.0 - confidence)
    undefined = np.isnan(values)
    if not undefined.any():
        low, high = np.percentile(values, [tail, 100.0 - tail], axis=0)
        return low, high
    # nanpercentile warns about columns without a number: give them one, then take it back.
    empty = undefined.all(axis=0)
    low, high = np.nanpercentile(np.where(empty, 0.0, values), [tail, 100.0 - tail], axis=0)
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)
