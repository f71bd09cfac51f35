"""From a sweep file to its jobs."""

from __future__ import annotations

from pathlib import Path

import pytest
from sweep_tools import AXES, CHAIN, STAGES, jobs_of

from visrep.errors import UserError
from visrep.sweeps.plan import plan
from visrep.sweeps.spec import read_sweep

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_stage_runs_once_for_what_it_depends_on(tmp_path: Path) -> None:
    text = """
axes:
  objective: [proto, rnd]
  task: [{name: maze, value: toy/maze_center}, toy/open_center]
  seed: [1, 2]
stages:
  - {name: collect, command: collect, set: {env: '${task}', episodes: 5}}
  - name: pretrain
    command: pretrain
    set: {method: '${objective}', seed: '${seed}', data: '${run:collect,task=maze}'}
  - {name: finetune, command: finetune, set: {encoder: '${run:pretrain}', env: '${task}', seed: '${seed}'}}
"""
    jobs = jobs_of(tmp_path, text)
    assert [name for name in jobs if name.startswith("collect")] == [
        "collect/task=maze",
        "collect/task=toy-open_center",
    ]
    out = tmp_path / "out"
    words = ("collect", "env=toy/maze_center", "episodes=5", f"out={out}/collect/task=maze")
    assert jobs["collect/task=maze"].words == words
    assert sum(name.startswith("pretrain") for name in jobs) == 4
    pretrain = jobs["pretrain/objective=rnd_seed=2"]
    assert f"data={out}/collect/task=maze" in pretrain.words and list(pretrain.after) == ["collect/task=maze"]
    assert sum(name.startswith("finetune") for name in jobs) == 8
    finetune = jobs["finetune/objective=rnd_task=maze_seed=2"]
    assert list(finetune.after) == [pretrain.name]
    assert finetune.words[0] == "finetune" and set(finetune.words[1:]) == {
        f"encoder={pretrain.run_dir}", "env=toy/maze_center", "seed=2", f"run_dir={finetune.run_dir}"
    }  # fmt: skip
    assert list(jobs).index(pretrain.name) < list(jobs).index(finetune.name)


def test_every_command_can_follow_another(tmp_path: Path) -> None:
    jobs, out = jobs_of(tmp_path, CHAIN), tmp_path / "out"
    ours = "objective=rnd_seed=1"
    words = ("env=toy/maze_center", "episodes=5", "seed=7")
    assert jobs["collect/all"].words == ("collect", *words, f"out={out}/collect/all")
    probe, test = jobs[f"probe/{ours}"], jobs[f"test/{ours}"]
    assert probe.words == (
        "probe", f"encoder={out}/pretrain/{ours}", f"data={out}/collect/all", f"out={out}/probe/{ours}"
    )  # fmt: skip
    assert set(probe.after) == {f"pretrain/{ours}", "collect/all"}
    finetune = out / "finetune" / ours
    assert test.words == ("evaluate", f"run={finetune}", "episodes=20", f"video={finetune}/best.mp4")
    assert test.run_dir == finetune and list(test.after) == [f"finetune/{ours}"]


REPLAY = """
axes:
  seed: [1, 2]
stages:
  - {name: expert, command: train, set: {preset: toy_maze, env: toy/maze_center, image_size: 32, seed: '${seed}'}}
  - {name: seen, command: collect, set: {replay: '${run:expert}'}}
  - {name: atc, command: pretrain, set: {data: '${run:seen}', method: atc}}
  - {name: task, command: finetune, set: {encoder: '${run:atc}', transfer: frozen, env: toy/maze_center}}
"""


def test_a_runs_replay_can_be_learned_from(tmp_path: Path) -> None:
    jobs, out = jobs_of(tmp_path, REPLAY), tmp_path / "out"
    seen, atc = jobs["seen/seed=2"], jobs["atc/seed=2"]
    assert seen.words == ("collect", f"replay={out}/expert/seed=2", f"out={out}/seen/seed=2")
    assert list(seen.after) == ["expert/seed=2"] and list(atc.after) == ["seen/seed=2"]
    assert f"data={out}/seen/seed=2" in atc.words and "task/seed=1" in jobs
    wrong = REPLAY.replace("method: atc}", "method: atc, image_size: 24}")
    with pytest.raises(UserError, match=r"image_size=24, but .*seen/seed=1 was recorded with image_size=32"):
        jobs_of(tmp_path, wrong)


def test_entries_override_and_skip_stages(tmp_path: Path) -> None:
    keys = "encoder: null, transfer: scratch, method: none, encoder_gradient: critic, seed: 7"
    entry = f"{{name: e2e, skip: [pretrain], set: {{finetune: {{{keys}}}}}}}"
    jobs = jobs_of(tmp_path, f"axes:\n  objective: [proto, {entry}]\n  seed: [1]\n" + STAGES)
    assert list(jobs) == [
        "pretrain/objective=proto_seed=1", "finetune/objective=proto_seed=1", "finetune/objective=e2e_seed=1"
    ]  # fmt: skip
    job = jobs["finetune/objective=e2e_seed=1"]
    assert (
        job.words[:-1] == ("finetune", "seed=7", "transfer=scratch", "method=none", "encoder_gradient=critic")
        and not job.after
    )


def test_include_and_exclude(tmp_path: Path) -> None:
    out = jobs_of(tmp_path, AXES + STAGES + "exclude: [{objective: rnd, seed: [2]}]\n")
    assert len(out) == 6 and "pretrain/objective=rnd_seed=2" not in out
    kept = jobs_of(tmp_path, AXES + STAGES + "include: [{objective: rnd, seed: 2}, {objective: proto}]\n")
    assert [name for name in kept if name.startswith("finetune")] == [
        "finetune/objective=proto_seed=1", "finetune/objective=proto_seed=2", "finetune/objective=rnd_seed=2"
    ]  # fmt: skip
    with pytest.raises(UserError, match="no combination is left for stage pretrain"):
        jobs_of(tmp_path, AXES + STAGES + "exclude: [{seed: [1, 2]}]\n")


def test_the_digest_is_of_what_decides_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "finetune/objective=proto_seed=1"
    before = jobs_of(tmp_path)[name].digest
    for old, new, same in (
        ("'${objective}'", "'${objective}', device: cpu", True),  # alters where it computes
        ("'${objective}'", "'${objective}', lr: 0.5", False),  # of the job that it starts from
        ("encoder:", "discount: 0.5, encoder:", False),
    ):
        assert (jobs_of(tmp_path, AXES + STAGES.replace(old, new))[name].digest == before) == same, new
    other = tmp_path / "elsewhere"
    other.mkdir()
    assert jobs_of(other)[name].digest == before
    # A preset's values count, not its name.
    (tmp_path / "own.yaml").write_text("lr: 0.5\n")
    texts = [
        AXES + STAGES.replace("method:", f"{keys}, method:") for keys in (f"preset: {tmp_path}/own.yaml", "lr: 0.5")
    ]
    assert jobs_of(tmp_path, texts[0])[name].digest == jobs_of(tmp_path, texts[1])[name].digest


def test_the_examples_are_valid_sweeps() -> None:
    toy = plan(read_sweep(EXAMPLES / "sweep_toy.yaml"))
    assert len(toy) == 20 and len([job for job in toy if not job.after]) == 12
    demonstrations = plan(read_sweep(EXAMPLES / "sweep_demonstrations.yaml"))
    assert [job.name for job in demonstrations if not job.after][:2] == ["demonstrations/all", "test-episodes/all"]
    assert len(demonstrations) == 2 + 4 + 4 + 8 + 8
