"""The tables of a sweep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sweep_tools import AXES, PRETRAIN, STAGES, read_csv, run

from visrep.results.statistics import bootstrap, iqm

TABLES = """tables:
  return: {stage: finetune, metric: eval.episode_reward, take: mean_last_3}
  wide: {stage: finetune, metric: eval.episode_reward, columns: objective}
  probe: {stage: pretrain, metric: 'numbers.json:r2.ridge[1]'}
  mean: {stage: pretrain, metric: 'numbers.json:r2.ridge'}
"""


def test_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    axes = AXES.replace("[1, 2]", "[1, 2, 3]")
    what = {
        "finetune/objective=rnd_seed=2": "fail",
        **{f"pretrain/objective=proto_seed={s}": "fail" for s in (1, 2, 3)},
    }
    assert run(tmp_path, axes + STAGES + TABLES + "retries: 0\n", what) == 1
    out = tmp_path / "out"
    # The stand-in's evaluations are 20 + seed + (0, 1, 2, 3).
    expected = bootstrap(iqm, [23.0, 25.0], np.random.default_rng(0))
    proto, rnd = read_csv(out / "table_return.csv")
    assert proto == {"objective": "proto", "value": "", "value_low": "", "value_high": "", "value_n": "0"}
    assert [float(rnd[f"value{end}"]) for end in ("", "_low", "_high", "_n")] == [*(float(x) for x in expected), 2.0]
    (wide,) = read_csv(out / "table_wide.csv")
    assert (float(wide["rnd"]), wide["proto_n"], wide["rnd_n"]) == (25.0, "0", "2")
    assert read_csv(out / "table_probe.csv")[1]["value"] == "0.5"
    assert read_csv(out / "table_mean.csv")[1]["value"] == "0.375", "the mean of a list"
    text = (out / "tables.md").read_text()
    assert "| proto | missing |" in text and "| rnd | 24 (23 to 25), n=2 of 3 |" in text
    said = capsys.readouterr().out
    assert "rnd        24 (23 to 25), n=2 of 3" in said
    runs = read_csv(out / "runs.csv")
    assert len(runs) == 12
    line = next(r for r in runs if (r["stage"], r["objective"], r["seed"]) == ("finetune", "rnd", "3"))
    assert line == {
        "stage": "finetune", "objective": "rnd", "seed": "3", "state": "done", "return": "25.0", "wide": "26.0",
        "probe": "", "mean": "", "run_dir": str(out / "finetune/objective=rnd_seed=3"),
    }  # fmt: skip
    assert next(r for r in runs if r["state"] == "failed")["return"] == ""


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        ("eval.episode_rewards", "recorded no 'episode_rewards' of kind 'eval': there is episode_reward"),
        ("numbers.json:r2.mlp", "has nothing at 'r2.mlp': at 'mlp' there is ridge"),
        ("numbers.json:r2.ridge[2]", "at '2' there is 0, 1"),
        ("numbers.json:name", "holds no finite number at 'name'"),
        ("numbers.json:bad", "holds no finite number at 'bad'"),
        ("numbers.json:r2", "holds no finite number at 'r2'"),
        ("other.json:name", "other.json cannot be read"),
    ],
)
def test_a_number_that_was_not_recorded_is_missing_and_said(
    metric: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    axes = "axes:\n  objective: [proto]\n  seed: [1]\n"
    assert run(tmp_path, f"{axes}stages:\n{PRETRAIN}tables: {{t: {{stage: pretrain, metric: '{metric}'}}}}\n") == 0
    said = capsys.readouterr().out
    assert "table t lacks pretrain/objective=proto_seed=1" in said and says in said
    assert "| proto | missing |" in (tmp_path / "out/tables.md").read_text()
