"""What is wrong with a sweep file is said before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from sweep_tools import AXES, CHAIN, STAGES, run, sweep_file

from visrep.cli import main
from visrep.errors import UserError
from visrep.sweeps.command import sweep


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (AXES + STAGES + "retrys: 2\n", ["sweep.yaml: retrys: unknown key 'retrys'; did you mean retries?"]),
        (AXES + STAGES.replace("command: finetune", "command: finetune\n    resorces: {threads: 2}"),
         ["sweep.yaml: stages[1].resorces: unknown key 'resorces'; did you mean resources?"]),
        (AXES + STAGES.replace("command: finetune", "command: finetune\n    resources: {thread: 2}"),
         ["stages[1].resources.thread: unknown key 'thread'; did you mean threads?"]),
        ("axes:\n  objective: [{name: proto, sett: {}}]\n" + STAGES,
         ["axes.objective[0].sett: unknown key 'sett'; did you mean set?"]),
        (AXES + STAGES + "tables: {t: {stage: finetune, metric: eval.x, colums: seed}}\n",
         ["tables.t.colums: unknown key 'colums'; did you mean columns?"]),
        (AXES, ["stages: this key is missing"]),
        (AXES + STAGES.replace("command: finetune", "command: fintune"), ["stages[1].command", "'finetune'"]),
        (AXES + STAGES.replace("${objective}", "${objectiv}"),
         ["stages[0].set.method: there is no axis 'objectiv'; did you mean objective?"]),
        (AXES + STAGES.replace("run:pretrain", "run:pretrian"),
         ["stages[1].set.encoder: there is no earlier stage 'pretrian'; did you mean pretrain?"]),
        (AXES + STAGES.replace("run:pretrain", "run:pretrain,seed=3"), ["there is no value of axis seed '3'"]),
        (AXES + STAGES.replace("run:pretrain", "run:pretrain,3"), ["is not of the form ${run:stage}"]),
        (AXES + "  k: [1, 3]\n" + STAGES, ["axes.k: no stage depends on it"]),
        (AXES + STAGES + "exclude: [{objective: prot}]\n",
         ["exclude[0].objective: there is no value of axis objective 'prot'; did you mean proto?"]),
        (AXES + STAGES + "exclude: [{objectiv: proto}]\n", ["exclude[0]: there is no axis 'objectiv'"]),
        ("axes:\n  objective: [proto, {name: e2e, skip: [pretrain]}]\n  seed: [1]\n" + STAGES,
         ["finetune/objective=e2e_seed=1 starts from pretrain/objective=e2e_seed=1, which is skipped or excluded",
          "setting it to null"]),
        ("axes:\n  objective: ['m:a/b', 'm:a-b']\n  seed: [1]\n" + STAGES.replace("method:", "env:"),
         ["two jobs would be named pretrain/objective=m-a-b_seed=1"]),
        ("axes:\n  objective: [proto, proto]\n  seed: [1]\n" + STAGES, ["axes.objective: proto is given twice"]),
        (AXES + STAGES.replace("seed: '${seed}'}", "seed: '${seed}', num_expl_step: 5}", 1),
         ["stages[0].set, job pretrain/objective=proto_seed=1: unknown key 'num_expl_step'", "num_expl_steps"]),
        (AXES + STAGES.replace("encoder:", "num_train_step: 5, encoder:"),
         ["stages[1].set, job finetune/objective=proto_seed=1: unknown key 'num_train_step'", "num_train_steps"]),
        (AXES + STAGES.replace("encoder:", "env: toy/mazes, encoder:"),
         ["job finetune/objective=proto_seed=1: unknown environment env=toy/mazes; near: toy/maze"]),
        (AXES + STAGES.replace("encoder:", "num_protos: 256, encoder:"),
         ["job finetune/objective=rnd_seed=1: key 'num_protos' belongs to method=proto"]),
        (AXES + STAGES.replace("encoder:", "run_dir: /tmp/x, encoder:"),
         ["stages[1].set.run_dir: a sweep says itself where finetune writes", "leave this key out"]),
        (AXES + STAGES + "  - {name: again, command: evaluate, set: {run: somewhere}}\n",
         ["stages[2].set.run: evaluate takes the run of an earlier stage: write run: ${run:<stage>}"]),
        (AXES + STAGES + "  - {name: again, command: evaluate, set: {run: '${run:finetune}'}}\n"
         "  - {name: more, command: evaluate, set: {run: '${run:finetune}'}}\n",
         ["more/objective=proto_seed=1 would overwrite evaluation.json of again/objective=proto_seed=1"]),
        (AXES + STAGES + "tables: {t: {stage: finetun, metric: eval.x}}\n",
         ["tables.t.stage: there is no stage 'finetun'; did you mean finetune?"]),
        (AXES + STAGES + "tables: {t: {stage: finetune, metric: reward}}\n",
         ["tables.t.metric: 'reward' is neither eval.<quantity>"]),
        (AXES + STAGES + "tables: {t: {stage: finetune, metric: eval.x, take: best}}\n",
         ["'best' is neither last nor mean_last_<n>"]),
        (AXES + STAGES + "tables: {t: {stage: finetune, metric: eval.x, columns: task}}\n",
         ["tables.t.columns: there is no axis of stage finetune 'task'"]),
        (AXES + STAGES.replace("command: finetune", "command: finetune\n    resources: {threads: 3}"),
         ["stage finetune: it takes 3 threads and the sweep has 2 cores", "raise the limits"]),
        (AXES + STAGES.replace("command: finetune", "command: finetune\n    resources: {memory_gb: 9e9}"),
         ["stage finetune: it takes 9000000000.0 GB of memory"]),
        ("axes: [1]\n" + STAGES, ["sweep.yaml: axes: "]),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_before_anything_starts(text: str, says: Sequence[str], tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        run(tmp_path, text)
    assert all(part in str(caught.value) for part in says), str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_command_line_refuses_in_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = sweep_file(tmp_path, AXES + STAGES + "retrys: 2\n")
    for words, part in (
        ([f"file={file}"], "unknown key 'retrys'"),
        ([], "missing file="),
        (["file=nowhere.yaml"], "cannot read nowhere.yaml"),
        ([f"file={file}", "status=maybe"], "status=maybe: expected true or false"),
        ([f"file={file}", "rerun=all"], "only rerun=changed"),
    ):
        assert main(["sweep", *words]) == 2
        said = capsys.readouterr().err
        assert said.startswith("visrep sweep: ") and part in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("episodes: 5", "episodes: -12", "stages[0].set, job collect/all: episodes=-12: at least one is recorded"),
        ("episodes: 5", "episodes: 5, agent_steps: 5", "either episodes=<n> or agent_steps=<n>"),
        ("episodes: 5", "episodes: 2.5", "job collect/all: episodes=2.5: expected a whole number"),
        ("episodes: 5", "episodes: 5, image_size: 0", "job collect/all: image_size=0: at least 1"),
        ("episodes: 5", "episodes: 5, render: foo", "render=foo is unknown"),
        ("episodes: 5", "episodes: 5, policy: randm", "unknown policy=randm: did you mean random?"),
        ("env: toy/maze_center, ", "", "missing env=<environment>"),
        ("env: toy/maze_center, ", "env: toy/maze_centre, ", "unknown environment env=toy/maze_centre; near: toy/maze"),
        ("seed: 7", "seed: -7", "job collect/all: seed=-7 must be at least 0"),
        ("data: '${run:collect}'}", "data: '${run:collect}', samples: -3}", "samples=-3: the probes are fitted on"),
        ("data: '${run:collect}'}", "data: '${run:collect}', samples: some}", "samples=some: expected a whole number"),
        ("data: '${run:collect}'}", "data: '${run:collect}', seed: -1}", "seed=-1: a whole number from 0 to"),
        (", data: '${run:collect}'}}\n", "}}\n", "missing data="),
        ("episodes: 20", "episodes: 0", "job test/objective=proto_seed=1: episodes=0 must be at least 1"),
    ],
)
def test_values_of_commands_that_are_no_runs_are_checked(right: str, wrong: str, says: str, tmp_path: Path) -> None:
    assert CHAIN.count(right) == 1
    file = sweep_file(tmp_path, CHAIN.replace(right, wrong))
    for keys in ({"dry_run": True}, {"status": True}, {}):
        with pytest.raises(UserError) as caught:
            sweep(file, **keys)
        assert says in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_policy_that_is_trained_later_need_not_be_there(tmp_path: Path) -> None:
    record = "  - {name: expert, command: collect, set: {policy: '${run:finetune}', episodes: 5}}\n"
    assert sweep(sweep_file(tmp_path, AXES + STAGES + record), dry_run=True) == 0


def test_a_replay_that_is_made_later_need_not_be_there(tmp_path: Path) -> None:
    record = "  - {name: seen, command: collect, set: {replay: '${run:pretrain}'%s}}\n"
    assert sweep(sweep_file(tmp_path, AXES + STAGES + record % ", phase: pretrain"), dry_run=True) == 0
    for more, says in ((", episodes: 5", "leave out episodes"), (", phase: train", "phase=train")):
        with pytest.raises(UserError, match=rf"job seen/objective=proto_seed=1: .*{says}"):
            sweep(sweep_file(tmp_path, AXES + STAGES + record % more), dry_run=True)
    elsewhere = record.replace("${run:pretrain}", f"{tmp_path}/none") % ""
    with pytest.raises(UserError, match=r"job seen/all: replay=.*/none is not a run directory: it is not there"):
        sweep(sweep_file(tmp_path, AXES + STAGES + elsewhere), dry_run=True)


def test_a_place_that_data_cannot_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(f"name: x\nout: '{tmp_path}/sw,p'\n{AXES}{STAGES}")
    for keys in ({"dry_run": True}, {}):
        with pytest.raises(UserError, match=r"sweep\.yaml: out=.*/sw,p: no comma in it, data=<folder>,<folder>"):
            sweep(str(tmp_path / "sweep.yaml"), **keys)


def test_keys_of_commands_that_are_no_runs_are_checked_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong, says in (
        (
            "episodes: 20",
            "stages[4].set, job test/objective=proto_seed=1: unknown key 'episode' of evaluate: did you mean",
        ),
        ("seed: 7", "stages[0].set, job collect/all: unknown key 'see' of collect: did you mean seed?"),
    ):
        file = sweep_file(tmp_path, CHAIN.replace(wrong, wrong.replace("s: 2", ": 2").replace("seed:", "see:")))
        assert main(["sweep", f"file={file}"]) == 2
        assert says in capsys.readouterr().err and not (tmp_path / "out").exists()
