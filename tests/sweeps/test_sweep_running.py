"""Order, skipping, failures, changed settings and interruption, with stand-ins for runs."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from sweep_tools import AXES, CHAIN, STAGES, jobs_of, notes, run, sweep_file

from visrep.errors import UserError
from visrep.sweeps.command import sweep
from visrep.sweeps.jobs import Job, Records


def test_order_skipping_and_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = sweep_file(tmp_path)
    assert sweep(file, status=True) == 0
    said = capsys.readouterr().out
    assert "finetune/objective=rnd_seed=2: not started, waits for pretrain/objective=rnd_seed=2" in said
    assert sweep(file, dry_run=True) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    assert lines[0] == f"visrep pretrain method=proto seed=1 run_dir={tmp_path}/out/pretrain/objective=proto_seed=1"
    assert not (tmp_path / "out").exists(), "neither of the two writes anything"

    assert run(tmp_path) == 0
    begun, ended = notes(tmp_path), notes(tmp_path, "end")
    assert len(begun) == 8
    for objective in ("proto", "rnd"):
        for seed in (1, 2):
            lines = (tmp_path / "notes.txt").read_text().splitlines()
            rest = f"objective={objective}_seed={seed} 1"
            assert lines.index(f"end pretrain/{rest}") < lines.index(f"begin finetune/{rest}")
    assert "[8/8] done" in capsys.readouterr().out
    assert run(tmp_path) == 0 and notes(tmp_path) == begun and notes(tmp_path, "end") == ended
    assert sweep(file, status=True) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-4:] != [] and "missing" not in said

    # One more seed runs alone; what somebody deleted runs again.
    (tmp_path / "out/finetune/objective=proto_seed=1").rename(tmp_path / "gone")
    assert run(tmp_path, AXES.replace("[1, 2]", "[1, 2, 3]") + STAGES) == 0
    assert sorted(notes(tmp_path)[8:]) == sorted([
        "finetune/objective=proto_seed=1", "pretrain/objective=proto_seed=3", "pretrain/objective=rnd_seed=3",
        "finetune/objective=proto_seed=3", "finetune/objective=rnd_seed=3",
    ])  # fmt: skip


def test_failures_are_tried_again_and_reported_and_continued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    what = {
        "pretrain/objective=proto_seed=1": "fail_once",
        "pretrain/objective=proto_seed=2": "fail",
        "finetune/objective=rnd_seed=1": "die",
    }
    assert run(tmp_path, what=what) == 1
    begun = notes(tmp_path)
    assert {name: begun.count(name) for name in what} == dict.fromkeys(what, 2)
    assert "finetune/objective=proto_seed=2" not in begun
    said = capsys.readouterr().out
    assert "pretrain/objective=proto_seed=2: it ended with status 3" in said and "    it broke here" in said
    assert "finetune/objective=proto_seed=2: it starts from pretrain/objective=proto_seed=2" in said
    assert "finetune/objective=rnd_seed=1: killed by SIGKILL" in said and "raise memory_gb" in said
    assert "5 of 8 jobs are done" in said
    sweep(sweep_file(tmp_path), status=True)
    said = capsys.readouterr().out
    assert "pretrain/objective=proto_seed=2: failed, it ended with status 3; see " in said
    assert "finetune/objective=proto_seed=2: not started, waits for pretrain/objective=proto_seed=2" in said

    assert run(tmp_path) == 0
    assert sorted(notes(tmp_path)[len(begun):]) == [
        "finetune/objective=proto_seed=2", "finetune/objective=rnd_seed=1", "pretrain/objective=proto_seed=2"
    ]  # fmt: skip


def test_no_retry_where_none_is_wanted(tmp_path: Path) -> None:
    assert run(tmp_path, AXES + STAGES + "retries: 0\n", {"pretrain/objective=proto_seed=1": "fail"}) == 1
    assert notes(tmp_path).count("pretrain/objective=proto_seed=1") == 1


def test_a_refusal_is_not_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, what={"pretrain/objective=proto_seed=1": "refuse"}) == 1
    assert notes(tmp_path).count("pretrain/objective=proto_seed=1") == 1
    said = capsys.readouterr().out
    assert "pretrain/objective=proto_seed=1: it was refused" in said and "    key seed: not a number" in said


def test_changed_settings_are_refused_or_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path) == 0
    changed = AXES + STAGES.replace("seed: '${seed}'}", "seed: '${seed}', lr: 0.5, device: cpu}", 1)
    with pytest.raises(UserError) as caught:
        run(tmp_path, changed)
    said = str(caught.value)
    assert "8 jobs were started with other settings" in said and "lr: '<absent>' then, 0.5 now" in said
    assert "device" not in said and "rerun=changed" in said and len(notes(tmp_path)) == 8
    first = "objective=proto_seed=1"
    assert f"finetune/{first} follows from pretrain/{first}, which changed" in said and "after " not in said
    assert run(tmp_path, changed, rerun="changed") == 0
    assert len(notes(tmp_path)) == 16
    assert len(list((tmp_path / "out/replaced").glob("*/pretrain/*/run/metrics.jsonl"))) == 4
    assert len(list((tmp_path / "out/replaced").glob("*/finetune/*/log.txt"))) == 4


def test_status_and_dry_run_say_that_the_file_no_longer_matches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = "tables: {t: {stage: finetune, metric: eval.episode_reward}}\n"
    assert run(tmp_path, AXES + STAGES + table) == 0
    changed = AXES + STAGES.replace("encoder:", "discount: 0.5, encoder:") + table
    file = sweep_file(tmp_path, changed)
    capsys.readouterr()
    says = ("4 jobs were started with other settings, the sweep file no longer matches them", "rerun=changed",
            "discount: '<absent>' then, 0.5 now", "runs them afresh")  # fmt: skip
    assert sweep(file, status=True) == 0
    said = capsys.readouterr().out
    assert all(part in said for part in says)
    assert "finetune/objective=rnd_seed=2: changed" in said and "missing" in said.partition("t: eval")[2]
    counts = next(line.split() for line in said.splitlines() if line.startswith("finetune"))
    assert counts == ["finetune", "4", "0", "4", "0", "0", "0", "0"]
    assert sweep(file, dry_run=True) == 0
    said = capsys.readouterr().out
    assert all(part in said for part in says) and all(line.startswith("# ") for line in said.splitlines())
    assert sweep(file, dry_run=True, rerun="changed") == 0
    commands = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("# ")]
    assert len(commands) == 4 and all(line.startswith("visrep finetune discount=0.5 ") for line in commands)


def test_what_every_command_leaves_proves_that_it_is_done(tmp_path: Path) -> None:
    """Each stage finds its proof, what is deleted runs again, and an evaluation leaves the run that it judged alone."""
    assert run(tmp_path, CHAIN) == 0
    names, out = notes(tmp_path), tmp_path / "out"
    assert len(names) == 9 and run(tmp_path, CHAIN) == 0 and notes(tmp_path) == names
    ours = "objective=rnd_seed=1"
    proofs = {
        "collect/all": out / "collect/all/dataset.json",
        f"pretrain/{ours}": out / f"pretrain/{ours}/model/a.safetensors",
        f"probe/{ours}": out / f"probe/{ours}/probe.json",
        f"test/{ours}": out / f"finetune/{ours}/evaluation.json",
    }
    for name, proof in proofs.items():
        proof.unlink()
        assert run(tmp_path, CHAIN) == 0
        assert proof.exists() and notes(tmp_path)[len(names) :] == [name]
        names = notes(tmp_path)
    assert run(tmp_path, CHAIN.replace("episodes: 20", "episodes: 10"), rerun="changed") == 0
    assert sorted(notes(tmp_path)[len(names) :]) == ["test/objective=proto_seed=1", f"test/{ours}"]
    (moved,) = (out / "replaced").glob(f"*/test/{ours}")
    assert sorted(file.name for file in moved.iterdir()) == ["evaluation.json", "log.txt", "record.json"]


def test_a_job_that_ended_after_its_sweep_was_killed_is_done_where_its_proof_comes_last(tmp_path: Path) -> None:
    assert run(tmp_path, CHAIN) == 0
    records, jobs = Records(tmp_path / "out"), jobs_of(tmp_path, CHAIN)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = {"collect/all": "done"}
    names |= {f"{stage}/objective=rnd_seed=1": "interrupted" for stage in ("pretrain", "probe", "test")}
    for name, state in names.items():
        records.write(jobs[name], "running", pid=ended.pid, created=time.time(), seconds=0.0)
        assert records.state(jobs[name]) == state


def test_a_folder_belongs_to_one_sweep_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with processes_lock(tmp_path / "out"), pytest.raises(UserError, match="a sweep is at work there"):
        run(tmp_path)
    assert run(tmp_path) == 0


def processes_lock(folder: Path) -> Any:
    """Hold the folder's lock in another process, as another sweep would."""
    code = "import sys; from visrep.files import take_lock; from pathlib import Path\n"
    code += "lock = take_lock(Path(sys.argv[1]), ''); print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == b"held\n"
    return process  # leaving it as a context closes its input, and it ends


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_sweep_lets_its_jobs_checkpoint_and_continues(
    number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "pretrain/objective=proto_seed=1"
    threading.Thread(target=_signal_when, args=(tmp_path / "out" / name / "ready", number), daemon=True).start()
    assert run(tmp_path, what={name: "wait"}) == 130
    said = capsys.readouterr().out
    assert "running jobs write a checkpoint first" in said and (tmp_path / "out" / name / "checkpoint").exists()
    sweep(sweep_file(tmp_path), status=True)
    assert f"{name}: interrupted" in capsys.readouterr().out
    assert run(tmp_path, what={name: "wait"}) == 0
    assert notes(tmp_path).count(name) == 2
    assert len(notes(tmp_path, "end")) == len(set(notes(tmp_path, "end"))) == 8, "nothing that was done ran again"


def test_a_second_interrupt_ends_stubborn_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "pretrain/objective=proto_seed=1"

    def interrupt_twice() -> None:
        _signal_when(tmp_path / "notes.txt", signal.SIGINT)
        time.sleep(1.0)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=interrupt_twice, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, what={name: "stubborn"})
    records = Records(tmp_path / "out")
    assert records.process(jobs_of(tmp_path)[name]) is None


def _signal_when(path: Path, number: int) -> None:
    while not path.exists():
        time.sleep(0.02)
    time.sleep(0.2)
    signal.raise_signal(number)


def test_a_reused_process_number_is_not_taken_for_the_job(tmp_path: Path) -> None:
    records, it = Records(tmp_path), Job("x/a", "x", ("train",), tmp_path / "x/a", {})
    me = psutil.Process()
    records.write(it, "running", pid=me.pid, created=me.create_time(), seconds=0.0)
    assert records.state(it) == "running" and records.process(it) == me
    records.write(it, "running", pid=me.pid, created=me.create_time() - 100, seconds=0.0)
    assert records.state(it) == "interrupted" and records.process(it) is None
    records.path(it).write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        records.read(it)
