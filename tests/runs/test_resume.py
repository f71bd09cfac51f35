"""A run that was killed, stopped or started twice ends like one that was not: bit for bit, but for times."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_tools import (
    assert_same,
    assert_same_run,
    events,
    final_state,
    finish,
    records,
    rows,
    start,
    tensors,
    words,
)

from visrep.cli import main
from visrep.runs.monitor import Monitor
from visrep.runs.representation import Representation

CASES: dict[str, tuple[str, ...]] = {
    "proto": ("save_video=true",),
    "four_lanes_on_disk": ("num_envs=4", "storage=disk", "replay_buffer_capacity=80"),  # the rings wrap
    "workers": ("num_envs=2", "env=run_tools:make_short", "replay_buffer_capacity=70", "save_model=true"),
    "rnd": ("method=rnd", "intr_reward_norm=mean", "precision=bf16"),
    "apt": ("method=apt", "num_envs=4", "updates_per_agent_step=0.5", "transfer=finetune"),
    "atc": (
        "method=atc", "num_expl_steps=0", "encoder_gradient=both", "repr_updates=constant_2", "repr_priority_alpha=1",
        "repr_priority_steps=5", "repr_anneal=cosine", "conv_target_tau=0.05", "time_limits=mask", "probe_frequency=7",
        "seed_actions=policy", "atc_code_dim=8", "atc_hidden_dim=8",
    ),
    "drqv2": ("method=none", "policy=drqv2", "encoder_gradient=critic", "num_expl_steps=0", "n_step=3"),
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run directory of an uninterrupted run of a case, made once, and how many calls its saves took."""
    made: dict[str, tuple[Path, int]] = {}

    def run(case: str) -> tuple[Path, int]:
        if case not in made:
            folder = tmp_path_factory.mktemp(case)
            command = ["train", *words(folder / "run", *CASES[case])]
            assert finish(start(command, count_file=folder / "calls")) == 0
            made[case] = folder / "run", int((folder / "calls").read_text())
        return made[case]

    return run


def test_the_same_seed_twice(uninterrupted: Any, tmp_path: Path) -> None:
    one = uninterrupted("proto")[0]
    assert finish(start(["train", *words(tmp_path, *CASES["proto"])])) == 0
    assert_same_run(one, tmp_path)
    assert len(rows(one / "train.csv")) == 8 and len(rows(one / "eval.csv")) == 4
    told = ("pretrain begins", "pretrain ends", "finetune begins", "finetune ends")
    assert events(one) == [f"phase {name}" for name in told]
    assert final_state(one)["phase"] == 2, "the newest checkpoint is that of a finished run"


def test_another_seed_is_another_run(uninterrupted: Any, tmp_path: Path) -> None:
    assert finish(start(["train", *words(tmp_path, *CASES["proto"], "seed=2")])) == 0
    with pytest.raises(AssertionError, match="differs"):
        assert_same_run(uninterrupted("proto")[0], tmp_path)


@pytest.mark.parametrize("case", list(CASES))
def test_killed_at_random_moments(case: str, uninterrupted: Any, tmp_path: Path) -> None:
    whole, _ = uninterrupted(case)
    draw = random.Random(case)  # fixed by the case's name
    run_dir = tmp_path / "run"
    command = ["train", *words(run_dir, *CASES[case])]
    # Once in each phase; any call or return of a function may be the last thing that happens.
    for low, high in ((45, 95), (165, 215)) if case != "workers" else ((85, 215),):
        region, die_at = f"step {draw.randrange(low, high)}", draw.randrange(1, 30_000)
        assert finish(start(command, die_at, region)) == -signal.SIGKILL, (region, die_at)
    assert finish(start(command)) == 0
    assert_same_run(whole, run_dir)


@pytest.mark.parametrize("case", ["proto", "four_lanes_on_disk"])
def test_killed_while_saving(case: str, uninterrupted: Any, tmp_path: Path) -> None:
    whole, calls = uninterrupted(case)
    draw = random.Random(case)
    run_dir = tmp_path / "run"
    command = ["train", *words(run_dir, *CASES[case])]
    # A run of this length saves six times; each kill falls into one of the next two saves of what is left.
    statuses = [finish(start(command, draw.randrange(1, calls // 3), "save")) for _ in range(4)]
    assert statuses[:2] == [-signal.SIGKILL] * 2
    assert finish(start(command)) == 0
    assert_same_run(whole, run_dir)


@pytest.mark.parametrize("torn", ["checkpoint", "rows", "model", "video"])
def test_killed_with_half_a_file_written(torn: str, uninterrupted: Any, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    command = ["train", *words(run_dir, *CASES["proto"])]
    for nth in (2, 3):
        assert finish(start(command, die_at=nth, region=f"torn {torn}")) == -signal.SIGKILL
    assert finish(start(command)) == 0
    assert_same_run(uninterrupted("proto")[0], run_dir)
    leftovers = [str(path) for path in run_dir.rglob("*") if ".tmp-" in path.name or path.suffix == ".new"]
    assert not leftovers


def test_killed_from_outside_at_any_time(uninterrupted: Any, tmp_path: Path) -> None:
    run_dir, draw = tmp_path / "run", random.Random()  # moments that no seed fixes
    command, killed = ["train", *words(run_dir, *CASES["proto"])], 0
    for _ in range(4):
        process = start(command)
        lines = run_dir / "metrics.jsonl"
        before = lines.stat().st_size if lines.exists() else 0
        while process.exitcode is None and not (lines.exists() and lines.stat().st_size not in (0, before)):
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.3))
        process.kill()
        if finish(process) == 0:
            shutil.rmtree(run_dir)  # it was faster than its kill: begin again
        else:
            killed += 1
    assert killed, "every run ended before its kill: the test says nothing"
    assert finish(start(command)) == 0
    assert_same_run(uninterrupted("proto")[0], run_dir)


def _signal_at(monkeypatch: pytest.MonkeyPatch, agent_step: int, number: int = signal.SIGINT) -> None:
    """Send this process a signal right after the given agent step, as Ctrl-C would."""
    original = Monitor.stepped

    def stepped(self: Monitor, step: Any) -> None:
        original(self, step)
        if self.counters.agent_step == agent_step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Monitor, "stepped", stepped)


@pytest.mark.usefixtures("in_process")
def test_ctrl_c_saves_and_says_how_to_continue(
    uninterrupted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["train", *words(tmp_path, *CASES["proto"])]
    for agent_step, number, name in ((53, signal.SIGINT, "SIGINT"), (171, signal.SIGTERM, "SIGTERM")):
        with monkeypatch.context() as patch:
            _signal_at(patch, agent_step, number)
            assert main(command) == 130
        said = capfd.readouterr()
        assert f"stopped by {name} at agent step {agent_step}; " in said.out
        assert f"the same command with run_dir={tmp_path} continues" in said.out
        assert "Traceback" not in said.out + said.err
        assert final_state(tmp_path)["parts"]["counters"]["agent_step"] == agent_step, "nothing is lost"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert main(command) == 0
    assert "resumed finetune at agent step 171" in capfd.readouterr().out
    assert_same_run(uninterrupted("proto")[0], tmp_path, saves_differ=True)


@pytest.mark.usefixtures("in_process")
def test_a_burst_of_first_updates_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """encoder_gradient=init makes thousands of updates when learning begins: Ctrl-C need not wait for the last."""
    burst = ("method=atc", "num_expl_steps=0", "encoder_gradient=init", "atc_code_dim=8", "atc_hidden_dim=8")
    command, step, made = ["train", *words(None, *burst, "repr_init_updates=250")], Representation.step, 0

    def counted(self: Representation, batch: Any) -> Any:
        nonlocal made
        made += 1
        if made == 120:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch)

    assert main([*command, f"run_dir={tmp_path / 'whole'}"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Representation, "step", counted)
        assert main([*command, f"run_dir={tmp_path / 'stopped'}"]) == 130
    assert made == 201, "the first with the policy's batch, then two turns of the loop"
    assert final_state(tmp_path / "stopped")["parts"]["counters"]["owed"] == 49
    assert main([*command, f"run_dir={tmp_path / 'stopped'}"]) == 0
    assert_same_run(tmp_path / "whole", tmp_path / "stopped", saves_differ=True)


@pytest.mark.usefixtures("in_process")
def test_ctrl_c_between_the_phases(uninterrupted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["train", *words(tmp_path, *CASES["proto"])]
    with monkeypatch.context() as patch:
        _signal_at(patch, 120)  # the last agent step of the first phase
        assert main(command) == 130
    assert main(command) == 0
    assert_same_run(uninterrupted("proto")[0], tmp_path, saves_differ=True)


def _files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.usefixtures("in_process")
def test_a_finished_run_is_left_alone(uninterrupted: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(uninterrupted("proto")[0], run_dir)
    before = _files(run_dir)
    assert main(["train", *words(run_dir, *CASES["proto"])]) == 0
    assert "this run is finished already" in capfd.readouterr().out
    assert _files(run_dir) == before


@pytest.mark.usefixtures("in_process")
def test_continuing_from_the_previous_checkpoint(
    uninterrupted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["train", *words(tmp_path, *CASES["proto"])]
    with monkeypatch.context() as patch:
        _signal_at(patch, 171)
        assert main(command) == 130
    newest = tmp_path / "state" / f"{171:012d}" / "state.pt"
    blob = bytearray(newest.read_bytes())
    blob[len(blob) // 2] ^= 1
    newest.write_bytes(blob)
    capfd.readouterr()
    assert main(command) == 2
    said = capfd.readouterr().err
    assert str(newest) in said and "add resume=previous" in said and "agent step 160" in said
    assert main([*command, "resume=previous"]) == 0
    assert "resumed finetune at agent step 160" in capfd.readouterr().out
    assert_same_run(uninterrupted("proto")[0], tmp_path)


@pytest.mark.usefixtures("in_process")
def test_resume_never_refuses_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        _signal_at(patch, 30)
        assert main(["train", *words(tmp_path)]) == 130
    before = _files(tmp_path)
    assert main(["train", *words(tmp_path, "resume=never")]) == 2
    said = capfd.readouterr().err
    assert "resume=never" in said and "resume=auto" in said
    assert _files(tmp_path) == before


@pytest.mark.usefixtures("in_process")
def test_a_phase_that_overruns_the_next_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Sixteen environments step past both phases' ends at once: the run still ends, once."""
    more = ("num_envs=16", "num_expl_steps=60", "num_train_steps=62", "eval_frequency=1000")
    command = ["train", *words(tmp_path, *more)]
    assert main(command) == 0
    assert final_state(tmp_path)["phase"] == 2
    assert [record["agent_step"] for record in records(tmp_path) if record["kind"] == "eval"] == [0, 64]
    before = _files(tmp_path)
    assert main(command) == 0
    assert "finished already" in capfd.readouterr().out and _files(tmp_path) == before


@pytest.mark.usefixtures("in_process")
def test_what_changed_since_the_interruption_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["train", *words(tmp_path)]
    with monkeypatch.context() as patch:
        _signal_at(patch, 30)
        assert main(command) == 130
    monkeypatch.setattr("visrep.runs.opening.versions", lambda: {"torch": "0.1"})
    assert main(command) == 0
    assert "note: versions was" in capfd.readouterr().out


def test_the_comparison_can_fail(uninterrupted: Any, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(uninterrupted("proto")[0], run_dir)
    rows_file = run_dir / "state" / "store-finetune" / "reward.npy"
    values = np.load(rows_file)
    values[0, 30] += 1
    np.save(rows_file, values)
    with pytest.raises(AssertionError, match=r"rows\.reward differs"):
        assert_same_run(uninterrupted("proto")[0], run_dir)
    with pytest.raises(AssertionError, match=r"a\.x\[1\] differs"):
        assert_same({"x": [1, torch.tensor(0.0)]}, {"x": [1, torch.tensor(-0.0)]}, "a")
    assert tensors(run_dir / "model" / "encoder.safetensors")
