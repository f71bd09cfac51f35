"""What goes wrong outside of the code ends in one message, and what was saved before stays good."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from run_tools import assert_same_run, events, final_state, records, words

import visrep.data.files
import visrep.files
import visrep.runs.checkpoints
import visrep.runs.session as session
from visrep.cli import main
from visrep.envs import rendering
from visrep.envs.vector import VectorEnv
from visrep.objectives.contract import Loss
from visrep.objectives.proto import ProtoObjective
from visrep.runs.monitor import Monitor

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Any:
    """Run ``visrep``, demand exit status 2 without a traceback, and return what it said on standard error."""

    def run(*command: str) -> str:
        capfd.readouterr()
        assert main(command) == 2
        said = capfd.readouterr()
        assert "Traceback" not in said.out + said.err
        assert said.err.startswith(f"visrep {command[0]}: ")
        return said.err

    return run


def _at_step(monkeypatch: pytest.MonkeyPatch, agent_step: int, action: Any) -> None:
    """Call ``action`` right after an agent step."""
    original = Monitor.stepped

    def stepped(self: Monitor, step: Any) -> None:
        original(self, step)
        if self.counters.agent_step == agent_step:
            action()

    monkeypatch.setattr(Monitor, "stepped", stepped)


def _interrupted(run_dir: Path, monkeypatch: pytest.MonkeyPatch, agent_step: int = 50, *more: str) -> list[str]:
    """A run that Ctrl-C stopped; returns its command."""
    command = ["train", *words(run_dir, *more)]
    with monkeypatch.context() as patch:
        _at_step(patch, agent_step, lambda: os.kill(os.getpid(), signal.SIGINT))
        assert main(command) == 130
    return command


# -- what is asked for ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (["env=toy/maze_centre"], ["unknown environment env=toy/maze_centre", "near: ", "toy/maze_center"]),
        (["env=toys/maze"], ["unknown environment suite 'toys'", "known: toy", "toy/maze"]),
        (["env=no_such_module:make"], ["no module 'no_such_module'"]),
        (["camera=3", "env=toy/maze"], ["one camera", "camera=3"]),
        (["image_size=12"], ["image_size >= 16", "12"]),
        (["repr_augment=translate(40)"], ["repr_augment=translate(40)", "40x40", "augment=shift", "16x16"]),
        (["device=cuda:77"], ["device=cuda:77", "device=cpu"]),
        (["device=toaster"], ["device=toaster", "auto, cpu, cuda"]),
        (["encoder=no/such/place"], ["encoder=no/such/place", "no such file or run directory"]),
        (["num_seed_steps=1000", "replay_buffer_capacity=1000"], ["num_seed_steps=1000", "would not learn"]),
        (["method=random", "transfer=finetune"], ["encoder_gradient=objective", "method=random", "critic"]),
    ],
)
def test_what_cannot_be_run(more: list[str], parts: list[str], tmp_path: Path, refused: Any) -> None:
    said = refused("train", *words(tmp_path / "run", *more))
    assert all(part in said for part in parts), said


def test_unknown_task_of_the_control_suite(tmp_path: Path, refused: Any) -> None:
    pytest.importorskip("dm_control")
    said = refused("train", *words(tmp_path / "run", "env=cheetah_rum"))
    assert "unknown environment env=cheetah_rum" in said and "dmc/cheetah_run" in said


def test_renderer_that_is_not_there(tmp_path: Path, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dm_control")
    monkeypatch.setattr(rendering, "warp_problem", lambda: ("mujoco-warp not installed", rendering.FIXES["warp"]))
    said = refused("train", *words(tmp_path / "run", "env=cheetah_run", "render=warp"))
    assert "render=warp does not work here: mujoco-warp not installed" in said and "pip install 'mujoco-warp" in said


def test_no_renderer_at_all(tmp_path: Path, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dm_control")
    missing = rendering.Probe("egl", ok=False, error="no libEGL", fix=rendering.FIXES["egl"])
    monkeypatch.setattr(rendering, "probe", lambda name: missing)
    monkeypatch.setattr(rendering, "warp_problem", lambda: ("mujoco-warp not installed", rendering.FIXES["warp"]))
    rendering._automatic.cache_clear()
    said = refused("train", *words(tmp_path / "run", "env=cheetah_run"))
    rendering._automatic.cache_clear()
    assert "no renderer works here" in said and "apt-get install" in said


def test_batch_larger_than_data(tmp_path: Path, refused: Any) -> None:
    # Transitions suffice by the count of the configuration, but three-step returns leave fewer anchors.
    more = ("n_step=3", "batch_size=24", "num_seed_steps=24", "method=apt")
    said = refused("train", *words(tmp_path / "run", *more))
    assert "batch larger than data: 24 samples" in said and "num_seed_steps" in said


# -- the run directory ------------------------------------------------------------------------------------------------


def test_directory_of_another_configuration(tmp_path: Path, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _interrupted(tmp_path, monkeypatch)
    said = refused("train", *words(tmp_path, "lr=1e-3", "num_protos=8"))
    assert f"{tmp_path} belongs to another configuration" in said
    assert "lr: 0.0003 there, 0.001 asked for" in said and "num_protos: 16 there, 8 asked for" in said
    assert "batch_size" not in said and "another run_dir" in said


def test_directory_in_use(tmp_path: Path, refused: Any) -> None:
    tmp_path.mkdir(exist_ok=True)
    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = refused("train", *words(tmp_path))
    assert f"{tmp_path} is in use by another running process" in said
    assert not (tmp_path / "config.yaml").exists()


def test_a_refused_directory_is_not_left_locked(tmp_path: Path, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    command = _interrupted(tmp_path, monkeypatch)
    refused("train", *words(tmp_path, "lr=1e-3"))
    assert main(command) == 0


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_read_only_place(number: int, tmp_path: Path, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # The superuser may write anywhere, so the system's refusal is played.
    original = Path.mkdir

    def mkdir(self: Path, *arguments: Any, **options: Any) -> None:
        if self.is_relative_to(tmp_path / "read_only"):
            raise OSError(number, os.strerror(number), str(self))
        original(self, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    said = refused("train", *words(tmp_path / "read_only" / "run"))
    assert str(tmp_path / "read_only" / "run") in said and "choose another run_dir" in said


def test_a_file_is_in_the_way(tmp_path: Path, refused: Any) -> None:
    (tmp_path / "run").write_text("a file")
    assert "choose another run_dir" in refused("train", *words(tmp_path / "run"))
    assert (tmp_path / "run").read_text() == "a file"


def test_records_of_something_else_are_not_overwritten(tmp_path: Path, refused: Any) -> None:
    (tmp_path / "train.csv").write_text("step,return\n")
    said = refused("train", *words(tmp_path))
    assert "train.csv but no config.yaml" in said and "another run_dir" in said
    assert (tmp_path / "train.csv").read_text() == "step,return\n"


def test_leftovers_of_a_killed_write_are_removed(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "model", tmp_path / "video"):
        folder.mkdir(exist_ok=True)
        (folder / ".tmp-config.yaml-12345").write_text("half")
    assert main(["train", *words(tmp_path)]) == 0
    assert not list(tmp_path.rglob(".tmp-*"))


# -- while it runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", ["checkpoint", "rows", "model", "log"])
def test_disk_full(full: str, tmp_path: Path, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full from agent step 90 on: the checkpoint of step 80 stays good, and with room the run goes on."""
    run_dir = tmp_path / "run"
    command = ["train", *words(run_dir)]
    module: Any = {
        "checkpoint": visrep.runs.checkpoints,
        "model": visrep.files,
        "rows": visrep.data.files.os,
        "log": session.RunLog,
    }[full]
    name = {"rows": "pwrite", "log": "_append"}.get(full, "write_synced")
    original, is_full = getattr(module, name), False

    def write(*arguments: Any) -> Any:
        if is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments)

    def fill() -> None:
        nonlocal is_full
        is_full = True

    with monkeypatch.context() as patch:
        patch.setattr(module, name, write)
        _at_step(patch, 90, fill)
        said = refused(*command)
    assert "space" in said.lower() or "disk full" in said.lower()
    if full in ("checkpoint", "rows"):
        assert str(run_dir / "state") in said and "bytes are needed" in said
    assert final_state(run_dir)["parts"]["counters"]["agent_step"] == 80
    assert main(command) == 0
    assert main(["train", *words(tmp_path / "undisturbed")]) == 0
    assert_same_run(tmp_path / "undisturbed", run_dir)


def test_checkpoint_of_another_architecture(tmp_path: Path, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that does not belong to its config.yaml, as after copying folders about."""
    _interrupted(tmp_path / "wide", monkeypatch, 50, "hidden_dim=24")
    _interrupted(tmp_path / "run", monkeypatch)
    state = tmp_path / "run" / "state"
    state.rename(tmp_path / "away")
    (tmp_path / "wide" / "state").rename(state)
    said = refused("train", *words(tmp_path / "run"))
    assert "'policy' does not fit this run" in said and "another architecture" in said
    assert "size mismatch" in said


def test_a_killed_worker_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[VectorEnv] = []

    class Kept(VectorEnv):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            built.append(self)

    monkeypatch.setattr(session, "VectorEnv", Kept)
    _at_step(monkeypatch, 64, lambda: os.kill(built[0].pids[1], signal.SIGKILL))
    more = ("num_envs=2", "env=run_tools:make_short", "num_expl_steps=100", "num_train_steps=180")
    assert main(["train", *words(tmp_path, *more)]) == 0
    told = [message for message in events(tmp_path) if "crashed" in message]
    assert len(told) == 1 and "lane 1 crashed and was restarted with episode" in told[0] and "SIGKILL" in told[0]
    assert final_state(tmp_path)["phase"] == 2
    lengths = [record["length"] for record in records(tmp_path) if record["kind"] == "train"]
    assert set(lengths) == {30}, "the broken episode is not among the finished ones"


def _broken(self: ProtoObjective, batch: Any) -> Loss:
    loss = torch.stack([p.sum() for p in self.parameters() if p.requires_grad]).sum() * torch.nan
    return Loss(loss, {"repr_loss": loss.detach()})


def test_a_loss_that_is_not_a_number(tmp_path: Path, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["train", *words(tmp_path)]
    with monkeypatch.context() as patch:
        _at_step(patch, 90, lambda: patch.setattr(ProtoObjective, "forward", _broken))
        said = refused(*command)
    assert "repr_loss became NaN or infinite at agent step" in said and "last good state" in said
    _assert_good_at(tmp_path, 80)
    assert main(command) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_never_reach_a_file(
    value: float, tmp_path: Path, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights can break while every loss still looks fine: here after the last update before a checkpoint."""
    original = session._checkpoint

    def checkpoint(run: Any, state: Any, index: int, rig: Any) -> None:
        if run.counters.agent_step == 160:
            with torch.no_grad():
                next(rig.learner.encoder.parameters()).view(-1)[3] = value
        original(run, state, index, rig)

    monkeypatch.setattr(session, "_checkpoint", checkpoint)
    said = refused("train", *words(tmp_path))
    assert "encoder.convs.0.weight became NaN or infinite at agent step 160" in said
    _assert_good_at(tmp_path, 120)


def test_a_learning_rate_that_blows_up(tmp_path: Path, refused: Any) -> None:
    said = refused("train", *words(tmp_path, "lr=1e30"))
    assert "became NaN or infinite" in said and "lr" in said


def _assert_good_at(run_dir: Path, agent_step: int) -> None:
    """The newest checkpoint is of that step, loads, and every weight in it is finite."""
    state = final_state(run_dir)
    assert state["parts"]["counters"]["agent_step"] == agent_step
    for part in ("encoder", "objective", "policy"):
        for name, value in state["parts"][part].items():
            assert torch.isfinite(value).all(), f"{part}.{name}"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("atc_shift=400",), ["its offset 400 is longer than an episode of env=toy/maze_center", "200 agent steps"]),
        (("observation=state", "augment=none"), ["encoder_gradient=objective: the 'vector' encoder", "no weights"]),
        (("observation=state", "augment=none", "encoder_gradient=critic"), ["no weights to train", "preset=sac_state"]),
    ],
)
def test_what_cannot_learn_is_refused_before_it_acts(
    more: tuple[str, ...], says: list[str], tmp_path: Path, refused: Any
) -> None:
    words = ("preset=atc_dmc+atc_tiny", "env=toy/maze_center", "threads=1", f"run_dir={tmp_path / 'run'}")
    said = refused("train", *words, *more)
    assert all(part in said for part in says), said
    assert [file.name for file in (tmp_path / "run").iterdir()] == [".lock"]
