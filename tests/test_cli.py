"""The command line: exit status, one message on standard error, help."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import visrep.cli
from visrep.cli import main
from visrep.command_keys import OWN_KEYS, read_keys
from visrep.errors import UserError


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        (["trian"], ["unknown command 'trian'", "Did you mean train", "Known: train, pretrain"]),
        (["train", "num_train_step=3"], ["visrep train: unknown key 'num_train_step'", "did you mean num_train_steps"]),
        (["train", "batch_size=many"], ["batch_size=many: expected a whole number"]),
        (["train", "num_train_steps=100"], ["num_train_steps=100", "num_expl_steps=250000", "no agent step is left"]),
        (["train", "queue_size=1000"], ["queue_size=1000 is not a multiple of num_protos=512", "512 or 1024"]),
        (["train", "agent.params.lr=1e-3"], ["use lr=0.001"]),
        (["train", "lr"], ["'lr' is not of the form key=value"]),
        (["pretrain", "num_train_steps=5"], ["visrep pretrain: ", "set num_expl_steps"]),
        (["finetune"], ["visrep finetune: ", "encoder=<run directory"]),
        (["finetune", "encoder=/no/such/run", "num_train_steps=5", "preset=toy_maze+tiny"], ["no such file"]),
        (["evaluate"], ["visrep evaluate: missing run="]),
        (["evaluate", "run=nowhere"], ["run=nowhere is not a run directory"]),
        (["evaluate", "run=x", "episodes=two"], ["episodes=two: expected a whole number"]),
        (["evaluate", "episode=2"], ["known keys are run, episodes", "did you mean episodes"]),
        (["report", "run=nowhere"], ["nowhere"]),
        (["report", "run=."], ["is not a run directory", "metrics.jsonl"]),
        (["evaluate", "run=x", "run=y"], ["run is given twice", "'x'", "'y'"]),
        (["export", "to=onnx"], ["missing encoder=", "run directory or encoder file"]),
    ],
)
def test_bad_input_is_one_message_and_status_1(
    command: list[str],
    parts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    said = capsys.readouterr()
    assert all(part in said.err for part in parts), said.err
    assert "Traceback" not in said.err
    assert not list(tmp_path.glob("**/*.safetensors"))


@pytest.mark.parametrize("command", [[], ["--help"], ["help"], ["-h"]])
def test_usage_names_every_command(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in visrep.cli._commands())


@pytest.mark.parametrize("name", list(visrep.cli._commands()))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    said = capsys.readouterr()
    assert f"visrep {name}" in said.out and not said.err


def _fails(error: BaseException) -> Any:
    def command(words: list[str]) -> int:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (UserError("mend this"), 2, "visrep report: mend this"),
        (KeyboardInterrupt(), 130, "visrep report: interrupted"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "train.csv"), 2, "No space left on device: 'train.csv'"),
    ],
)
def test_how_failures_end(
    error: BaseException, status: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(visrep.cli, "_report", _fails(error))
    assert main(["report"]) == status
    assert says in capsys.readouterr().err


def test_our_own_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (ValueError("a bug"), FileNotFoundError(errno.ENOENT, "a bug")):
        monkeypatch.setattr(visrep.cli, "_report", _fails(error))
        with pytest.raises(type(error)):
            main(["report"])


def test_the_installed_module_passes_the_status_on(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "visrep.cli", "trian"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "Did you mean train" in done.stderr
    assert subprocess.run([sys.executable, "-m", "visrep.cli"], capture_output=True, cwd=tmp_path).returncode == 0


def test_run_dir_may_start_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: list[Path] = []

    def run(config: Any, command: str, run_dir: Path, console: Any) -> Any:
        given.append(run_dir)
        raise UserError("far enough")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("visrep.runs.session.run", run)
    assert main(["train", "run_dir=~/runs/one"]) == 2
    assert given == [tmp_path / "runs" / "one"]


@pytest.mark.parametrize("command", sorted(OWN_KEYS))
def test_help_says_what_every_key_means(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    usage, *lines = capsys.readouterr().out.strip().splitlines()
    keys = OWN_KEYS[command]
    assert {line.split()[0] for line in lines if line} == set(keys)
    assert all(f"{name}=..." in usage for name, key in keys.items() if key.required)


def test_none_leaves_a_key_at_its_default() -> None:
    assert read_keys("collect", ["out=x", "camera=none", "episodes=3"]) == {"out": "x", "episodes": 3}
