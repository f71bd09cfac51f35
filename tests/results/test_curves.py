"""Curves from run directories: reading, common times, aggregation over seeds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from visrep.errors import UserError
from visrep.log import RunLog
from visrep.results.curves import (
    Curve,
    aggregate,
    align,
    curve_from_rows,
    read_aggregates,
    read_curve,
    read_rows,
    thin,
    write_aggregates,
)


def run_dir(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    log = RunLog(folder, action_repeat=2, tensorboard=False)
    for step in (500, 1000, 1000):
        log.train(step, 1, step / 100, 50.0)
    log.evaluation(1000, 1, 7.0)
    log.metrics(1000, {"loss": float("nan"), "alpha": 0.1})
    log.close()
    return folder


def test_quantities_are_read_over_each_axis(tmp_path: Path) -> None:
    run = run_dir(tmp_path)
    curve = read_curve(run, "train", "episode_reward")
    assert curve.x.tolist() == [500, 1000] and curve.values.tolist() == [5.0, 10.0]
    assert read_curve(run, "eval", "episode_reward", "env_frames").x.tolist() == [2000]
    assert np.isnan(read_rows(run, "metrics")[0]["loss"])


def test_equal_times_become_their_mean_and_bad_values_are_left_out() -> None:
    rows = [{"agent_step": x, "r": y} for x, y in ((20, 4.0), (10, 1.0), (20, 2.0), (30, float("nan")), (40, None))]
    curve = curve_from_rows(rows, "r")
    assert curve.x.tolist() == [10, 20] and curve.values.tolist() == [1.0, 3.0]


def test_what_is_missing_is_named_with_the_nearest(tmp_path: Path) -> None:
    run = run_dir(tmp_path)
    with pytest.raises(UserError, match="episode_reward"):
        read_curve(run, "train", "episode_rewards")
    with pytest.raises(UserError, match="not a run directory"):
        read_rows(tmp_path / "nothing")
    with pytest.raises(UserError, match="unknown axis"):
        read_curve(run, "train", "episode_reward", "steps")  # type: ignore[arg-type]


def test_a_line_being_written_is_left_out_but_damage_is_reported(tmp_path: Path) -> None:
    run = run_dir(tmp_path)
    before = len(read_rows(run))
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"kind": "tr')
    assert len(read_rows(run)) == before
    with open(run / "metrics.jsonl", "a") as file:
        file.write("\n")
    with pytest.raises(UserError, match="line 6 is not JSON"):
        read_rows(run)


def test_runs_of_the_public_code_are_read_from_their_csv_files(tmp_path: Path) -> None:
    (tmp_path / "eval.csv").write_text("episode,episode_reward,step\r\n1.0,3.5,0\r\n2.0,9.5,100000\r\n")
    assert read_curve(tmp_path, "eval", "episode_reward", "env_frames").values.tolist() == [3.5, 9.5]
    with pytest.raises(UserError, match="axis=env_frames"):
        read_curve(tmp_path, "eval", "episode_reward")
    (tmp_path / "config.yaml").write_text("action_repeat: 2\n")
    assert read_curve(tmp_path, "eval", "episode_reward").x.tolist() == [0, 50_000]


def curve(x: list[float], y: list[float]) -> Curve:
    return Curve(np.array(x, float), np.array(y, float))


def test_same_times_are_kept_and_shorter_runs_cut_the_range() -> None:
    x, values = align([curve([0, 10, 30], [1, 2, 3]), curve([0, 10], [5, 6])])
    assert x.tolist() == [0, 10] and values.tolist() == [[1, 2], [5, 6]]


def test_different_times_are_interpolated_without_extrapolation() -> None:
    x, values = align([curve([0, 10, 20], [0, 10, 20]), curve([5, 25], [50, 250])], points=4)
    assert x.tolist() == [5, 10, 15, 20]
    np.testing.assert_allclose(values, [[5, 10, 15, 20], [50, 100, 150, 200]])
    with pytest.raises(UserError, match="after another ends"):
        align([curve([0, 1], [0, 1]), curve([2, 3], [0, 1])])
    with pytest.raises(UserError, match="no points"):
        align([curve([], [])])


def test_aggregate_is_the_iqm_with_an_interval_that_holds_it() -> None:
    rng = np.random.default_rng(0)
    curves = [curve(list(range(30)), list(np.arange(30) + rng.normal(size=30))) for _ in range(8)]
    got = aggregate(curves, "proto", np.random.default_rng(1), resamples=500)
    values = np.sort(np.stack([c.values for c in curves]), axis=0)
    np.testing.assert_allclose(got.iqm, values[2:6].mean(0))
    assert (got.low <= got.iqm).all() and (got.iqm <= got.high).all() and (got.high > got.low).all()
    assert got.runs == 8


def test_aggregates_are_saved_and_read_back(tmp_path: Path) -> None:
    curves = [aggregate([curve([0, 1], [i, 2.5])], f"group, {i}", np.random.default_rng(0)) for i in range(2)]
    for name in ("curves.csv", "sub/curves.jsonl"):
        back = read_aggregates(write_aggregates(tmp_path / name, curves))
        assert [c.label for c in back] == ["group, 0", "group, 1"] and back[1].runs == 1
        assert back[1].iqm.tolist() == [1.0, 2.5] and back[1].axis == "agent_step"
    assert json.loads((tmp_path / "sub/curves.jsonl").read_text().splitlines()[0])["runs"] == 1
    with pytest.raises(UserError, match=r"\.csv or \.jsonl"):
        write_aggregates(tmp_path / "curves.txt", curves)


def test_thinning_keeps_range_and_mean() -> None:
    noisy = curve(list(range(1000)), list(np.random.default_rng(0).normal(size=1000)))
    small = thin(noisy, 50)
    assert len(small.x) == 50 and small.values.mean() == pytest.approx(noisy.values.mean(), abs=1e-6)
    assert np.all(np.diff(small.x) > 0) and thin(small, 50) is small
