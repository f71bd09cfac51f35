"""Statistics against slow, loop-written references and on degenerate input."""

from __future__ import annotations

import numpy as np
import pytest

from visrep.results import statistics as st


def slow_iqm(scores: np.ndarray) -> float:
    flat = sorted(float(s) for s in scores.ravel())
    cut = int(0.25 * len(flat))
    middle = flat[cut : len(flat) - cut]
    return sum(middle) / len(middle)


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (5, 1), (7, 3), (10, 6)])
def test_iqm_equals_the_loop_for_every_size(shape: tuple[int, int]) -> None:
    scores = np.random.default_rng(0).normal(size=(4, *shape))
    np.testing.assert_allclose(st.iqm(scores), [slow_iqm(s) for s in scores], atol=1e-12)


def test_a_dead_seed_moves_the_mean_but_hardly_the_iqm() -> None:
    scores = np.array([900.0, 920.0, 910.0, 905.0, 915.0, 908.0, 912.0, 20.0])[:, None]
    assert abs(st.iqm(scores) - 910) < 5 and st.mean(scores) < 810


def test_bootstrap_equals_the_loop_with_the_same_draws() -> None:
    scores = np.random.default_rng(1).random((4, 3))
    got = st.bootstrap(st.iqm, scores, np.random.default_rng(2), resamples=200)
    draws = np.random.default_rng(2).integers(4, size=(200, 4, 3))
    values = [slow_iqm(np.array([[scores[d[r, m], m] for m in range(3)] for r in range(4)])) for d in draws]
    low, high = np.percentile(values, [2.5, 97.5])
    assert (got.low, got.high) == (pytest.approx(low), pytest.approx(high))
    assert got.point == pytest.approx(slow_iqm(scores))


def test_chunks_do_not_change_the_kind_of_result(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(1).random((6, 4))
    whole = st.bootstrap(st.iqm, scores, np.random.default_rng(0), resamples=4000)
    monkeypatch.setattr(st, "_CHUNK_NUMBERS", 24 * 300)
    parts = st.bootstrap(st.iqm, scores, np.random.default_rng(0), resamples=4000)
    assert parts.low == pytest.approx(whole.low, abs=0.02) and parts.high == pytest.approx(whole.high, abs=0.02)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(200):
        got = st.bootstrap(st.mean, rng.normal(size=(12, 4)), rng, resamples=400)
        hits += bool(got.low <= 0.0 <= got.high)
    assert 0.86 <= hits / 200 <= 0.99


def test_improvement_of_unequal_groups() -> None:
    assert st.probability_of_improvement([[2.0], [3.0]], [[1.0], [2.0], [9.0]]) == pytest.approx((1.5 + 2) / 6)
    got = st.improvement_estimate(np.ones((3, 1)), np.zeros((4, 1)), np.random.default_rng(0))
    assert tuple(map(float, got)) == (1.0, 1.0, 1.0)


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match="run 1 of task 0 is nan"):
        st.as_scores([[1.0], [np.nan]])
    with pytest.raises(ValueError, match=r"\[runs, tasks\]"):
        st.as_scores(np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match="same tasks"):
        st.probability_of_improvement(np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="at least one resample"):
        st.bootstrap(st.iqm, [1.0], np.random.default_rng(0), resamples=0)


def test_twenty_thousand_resamples_take_seconds() -> None:
    import time

    start = time.perf_counter()
    st.aggregates(np.random.default_rng(0).random((10, 12)), np.random.default_rng(0))
    assert time.perf_counter() - start < 10
