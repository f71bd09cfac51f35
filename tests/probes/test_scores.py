"""Scores and their intervals over episodes, against loops."""

from __future__ import annotations

import numpy as np
import pytest

from visrep.probes import scores
from visrep.results.statistics import percentile_ends

RNG = np.random.default_rng(0)
EPISODES = np.repeat(np.arange(6), [3, 9, 5, 7, 4, 12])
ROWS = len(EPISODES)


def slow_r2(predicted: np.ndarray, target: np.ndarray) -> float:
    mean = sum(target) / len(target)
    return 1.0 - sum((y - p) ** 2 for y, p in zip(target, predicted)) / sum((y - mean) ** 2 for y in target)


def test_r2_is_the_loop_also_in_every_resample() -> None:
    targets = RNG.normal(size=(ROWS, 3)) * [1, 1e-3, 10] + [0, 1e3, 5]
    predictions = targets + RNG.normal(size=(ROWS, 3)) * [0.3, 1e-4, 20]
    found = scores.r2(predictions, targets, EPISODES + 100, seed=3)
    expected = [slow_r2(predictions[:, t], targets[:, t]) for t in range(3)]
    np.testing.assert_allclose(found.point, [*expected, np.mean(expected)], rtol=1e-6)
    assert found.point[2] < 0  # not clipped
    draws = np.random.default_rng(3).integers(6, size=(scores.RESAMPLES, 6, 1))[..., 0]
    values = []
    for drawn in draws[:400]:
        rows = np.concatenate([np.flatnonzero(np.equal(EPISODES, episode)) for episode in drawn])
        values.append([slow_r2(predictions[rows, t], targets[rows, t]) for t in range(3)])
    low, high = np.percentile(values, [2.5, 97.5], axis=0)
    np.testing.assert_allclose(found.low[:3], low, atol=0.15 * (high - low).max(), rtol=0.05)
    np.testing.assert_allclose(found.high[:3], high, atol=0.15 * (high - low).max(), rtol=0.05)


def test_resamples_are_pooled_rows_of_whole_episodes() -> None:
    seen = []

    def score(counts: np.ndarray) -> np.ndarray:
        seen.append(counts)
        return counts @ np.arange(6.0)

    found = scores.over_episodes(score, 6, seed=1)
    assert float(found.point) == 15 and all((counts.sum(1) == 6).all() for counts in seen)
    assert found.low < 15 < found.high


def test_a_constant_target_has_no_r2() -> None:
    found = scores.r2(np.zeros((ROWS, 2)), np.stack([np.full(ROWS, 0.1), RNG.normal(size=ROWS)], axis=1), EPISODES)
    assert np.isnan(found.point[0]) and np.isnan(found.low[0]) and np.isfinite(found.point[1])


def test_f1_accuracy_and_auroc_are_the_loops() -> None:
    labels = RNG.random(ROWS) < 0.4
    values = np.round(RNG.normal(size=ROWS) + labels, 1)  # with ties
    predicted = values > 0.5
    true = sum(p and y for p, y in zip(predicted, labels))
    wrong = sum(p != y for p, y in zip(predicted, labels))
    assert scores.f1(predicted, labels, EPISODES).point == pytest.approx(2 * true / (2 * true + wrong))
    assert scores.accuracy(predicted.astype(int), labels.astype(int), EPISODES).point == pytest.approx(1 - wrong / ROWS)
    pairs = [(p > n) + 0.5 * (p == n) for p in values[labels] for n in values[~labels]]
    found = scores.auroc(values, labels, EPISODES)
    assert found.point == pytest.approx(np.mean(pairs)) and found.low < found.point < found.high
    nothing = np.zeros(ROWS, bool)
    assert np.isnan(scores.auroc(values, nothing, EPISODES).point) and np.isnan(
        scores.f1(predicted, nothing, EPISODES).point
    )


def test_the_best_threshold_is_that_of_the_loop() -> None:
    labels = RNG.random(ROWS) < 0.3
    values = np.round(RNG.normal(size=ROWS) + labels, 1)

    def f1(threshold: float) -> float:
        called = values >= threshold
        return 2 * (called & labels).sum() / (called.sum() + labels.sum())

    assert f1(scores.best_threshold(values, labels)) == pytest.approx(max(f1(value) for value in values))
    assert scores.best_threshold(values, np.zeros(ROWS, bool)) == np.inf


@pytest.mark.filterwarnings("error")
def test_resamples_without_a_value_are_left_out_of_the_interval() -> None:
    values = np.array([[1.0, np.nan], [2.0, np.nan], [np.nan, np.nan], [3.0, np.nan]])
    low, high = percentile_ends(values, 1.0)
    assert (low[0], high[0]) == (1.0, 3.0) and np.isnan(low[1]) and np.isnan(high[1])
