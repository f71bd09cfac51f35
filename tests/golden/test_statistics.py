"""Statistics against the numbers of rliable."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from visrep.results import statistics as st

GOLDEN = Path(os.environ.get("VISREP_GOLDEN_DIR", Path(__file__).parents[3] / "shared" / "golden"))


def load(name: str) -> dict[str, dict[str, Any]]:
    """All cases of one file: {case: {"in/score": array, ...}}; none where the golden arrays are absent."""
    path = GOLDEN / f"{name}.npz"
    cases: dict[str, dict[str, Any]] = {}
    if path.exists():
        data = np.load(path)
        for key in data.files:
            case, rest = key.split("/", 1)
            cases.setdefault(case, {})[rest] = data[key]
    return cases


def cases_of(cases: dict[str, dict[str, Any]], prefix: str = "") -> list[Any]:
    reason = f"no golden arrays in {GOLDEN} (set VISREP_GOLDEN_DIR)"
    found = [pytest.param(c, id=name) for name, c in cases.items() if name.startswith(prefix)]
    return found or [pytest.param({}, id="absent", marks=pytest.mark.skip(reason=reason))]


AGGREGATE, PROFILES, PUBLISHED = load("aggregate_metrics"), load("performance_profiles"), load("published_scores")
NAMES = ("iqm", "mean", "median", "optimality_gap")


def assert_ends_agree(got: st.Estimate, lows: np.ndarray, highs: np.ndarray, scores: np.ndarray) -> None:
    """The ends lie among the golden repetitions, give or take 5 % of the width (more where few values are possible)."""
    width = highs.max() - lows.min()
    slack = max(0.05 * width, 1e-9)
    runs_tasks = scores.size
    if len(np.unique(scores)) < runs_tasks or runs_tasks < 24:  # resampled statistics take few values: ends jump
        slack = max(slack, 0.15 * width)
    assert lows.min() - slack <= got.low <= lows.max() + slack
    assert highs.min() - slack <= got.high <= highs.max() + slack


@pytest.mark.parametrize("case", cases_of(AGGREGATE))
def test_aggregates(case: dict[str, Any]) -> None:
    scores, gamma = case["in/score"], float(case["meta/gamma"])
    got = st.aggregates(scores, np.random.default_rng(0), gamma, int(case["meta/reps"]))
    for i, name in enumerate(NAMES):
        assert got[name].point == pytest.approx(float(case[f"out/{name}"]), abs=1e-9)
        assert_ends_agree(got[name], case["out/ci_low"][:, i], case["out/ci_high"][:, i], scores)


WITH_TASKS = {name: case for name, case in AGGREGATE.items() if "out/task_ci_low" in case}


@pytest.mark.parametrize("case", cases_of(WITH_TASKS))
@pytest.mark.parametrize("index", [0, 1], ids=NAMES[:2])
def test_intervals_with_resampled_tasks(case: dict[str, Any], index: int) -> None:
    scores, statistic = case["in/score"], (st.iqm, st.mean)[index]
    got = st.bootstrap(statistic, scores, np.random.default_rng(1), int(case["meta/reps"]), resample_tasks=True)
    assert_ends_agree(got, case["out/task_ci_low"][:, index], case["out/task_ci_high"][:, index], scores)


@pytest.mark.parametrize("case", cases_of(PROFILES, "profile"))
def test_profiles(case: dict[str, Any]) -> None:
    scores, tau = case["in/score"], case["in/tau"]
    got = st.profile_estimate(scores, tau, np.random.default_rng(0))
    np.testing.assert_allclose(got.point, case["out/profile"], atol=1e-9)
    np.testing.assert_allclose(st.average_profile(scores, tau), case["out/average_profile"], atol=1e-9)
    np.testing.assert_allclose(got.low, case["out/profile_ci_low"], atol=0.05)
    np.testing.assert_allclose(got.high, case["out/profile_ci_high"], atol=0.05)


@pytest.mark.parametrize("case", cases_of(PROFILES, "improvement"))
def test_probability_of_improvement(case: dict[str, Any]) -> None:
    x, y = case["in/score_x"], case["in/score_y"]
    got = st.improvement_estimate(x, y, np.random.default_rng(0))
    np.testing.assert_allclose(st.improvement_per_task(x, y), case["out/per_task"], atol=1e-9)
    assert st.probability_of_improvement(x, y) == pytest.approx(float(case["out/probability"]), abs=1e-9)
    assert got.point == pytest.approx(float(case["out/probability"]), abs=1e-9)
    assert got.low == pytest.approx(case["out/ci_low"].mean(), abs=0.03)
    assert got.high == pytest.approx(case["out/ci_high"].mean(), abs=0.03)


@pytest.mark.parametrize("case", cases_of(PUBLISHED))
def test_published_headline_numbers(case: dict[str, Any]) -> None:
    scores = np.moveaxis(case["in/score"], -1, 1)  # [methods, checkpoints, R, M]
    np.testing.assert_allclose(st.iqm(scores), case["out/iqm"], rtol=1e-9)
    np.testing.assert_allclose(st.mean(scores), case["out/mean"], rtol=1e-9)
    final = scores[:, -1]
    for i in range(2):
        got = st.bootstrap(st.iqm, final[i], np.random.default_rng(0))
        assert_ends_agree(got, case["out/final_iqm_ci_low"][i], case["out/final_iqm_ci_high"][i], final[i])
        for j in range(2):
            expected = case["out/probability_of_improvement"][i, j]
            assert st.probability_of_improvement(final[i], final[j]) == pytest.approx(expected, rel=1e-9)
    assert sorted(np.round(st.iqm(final), 3)) == [0.679, 0.954]
