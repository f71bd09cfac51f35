"""Which runs a comparison takes from folders and patterns, and which it calls seeds of one group."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from visrep.cli import main
from visrep.errors import UserError
from visrep.results.grouping import find_runs, group_labels


def make_run(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"env": "toy/maze", "run_dir": str(folder), **config}))
    rows = [
        {"kind": "eval", "agent_step": step, "env_frames": step, "seconds": 1.0, "episode_reward": float(step)}
        for step in (0, 10, 20)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_folders_stand_for_the_runs_below_them(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name) for name in ("a/s1", "a/s2", "b_1", "b_2", "c")]
    assert find_runs(f"{tmp_path}/a") == runs[:2]
    assert find_runs(f"{tmp_path}/b_?, {tmp_path}/a/s1") == [runs[2], runs[3], runs[0]]
    assert find_runs(f"{tmp_path}/c,{tmp_path}") == [runs[4], *runs[:4]], "each once"
    (tmp_path / "empty").mkdir()
    for text, says in (("empty", "no run lies in"), ("a,nothing_*", "there is no"), ("a,", "there is no ''")):
        with pytest.raises(UserError, match=says):
            find_runs(",".join(f"{tmp_path}/{part}" if part else "" for part in text.split(",")))


def test_runs_that_differ_in_their_seed_alone_are_one_group(tmp_path: Path) -> None:
    def labels(*configs: dict[str, Any], by: tuple[str, ...] = ()) -> list[str]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return group_labels([make_run(folder / str(i), **config) for i, config in enumerate(configs)], by)

    assert labels({"seed": 1, "lr": 0.1}, {"seed": 2, "lr": 0.1}) == ["all runs"] * 2
    assert labels({"seed": 1, "lr": 0.1}, {"seed": 2, "lr": 0.2}) == ["lr=0.1", "lr=0.2"]
    methods = {"method": "atc", "atc_shift": 1}, {"method": "atc", "atc_shift": 3}, {"method": "proto", "topk": 3}
    assert labels(*methods) == ["method=atc, atc_shift=1", "method=atc, atc_shift=3", "method=proto"]
    assert labels(*methods, by=("method",)) == ["method=atc", "method=atc", "method=proto"]
    assert labels({"seed": 1, "encoder": "atc_seed=1"}, {"seed": 12, "encoder": "atc_seed=12"}) == ["all runs"] * 2
    tasks = {"env": "a", "repeat": 8, "encoder": "x/atc"}, {"env": "b", "repeat": 4, "encoder": "x/atc"}
    assert labels(*tasks) == ["all runs"] * 2, "environments are compared apart"
    assert labels(*tasks, {"env": "a", "repeat": 8, "lr": 1, "encoder": None})[::2] == ["encoder=atc", "encoder=none"]
    with pytest.raises(UserError, match="no run has the key 'metod'; did you mean method"):
        labels(*methods, by=("metod",))


def test_the_command_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for method, seed in (("atc", 1), ("atc", 2), ("proto", 1)):
        make_run(tmp_path / f"{method}_{seed}", method=method, seed=seed)
    assert main(["compare", f"runs={tmp_path}/*_?", f"out={tmp_path}/out/page.html"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/out/page.html\n"
    text = (tmp_path / "out" / "page.html").read_text()
    assert "3 runs in 2 groups" in text and "method=atc (n = 2)" in text and "evaluation return" in text
    assert main(["compare", f"runs={tmp_path}/nothing"]) == 2
