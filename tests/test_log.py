"""The run's records: formats of the reference, resumption to the byte, device-side means, console lines."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from visrep.console import Console, Progress, format_seconds
from visrep.errors import UserError
from visrep.log import MetricAccumulator, RunLog

FILES = ("metrics.jsonl", "train.csv", "eval.csv")


def make_log(folder: Path, **options: Any) -> RunLog:
    options = {"tensorboard": False, "console": None, "train_columns": ("success", "length"), **options}
    return RunLog(folder, action_repeat=2, eval_columns=("success",), **options)


def write_part(log: RunLog, start: int, stop: int) -> None:
    for i in range(start, stop):
        log.train(500 * (i + 1), episode=i + 1, episode_reward=i / 3, fps=55.0, success=bool(i % 2))
        log.metrics(500 * (i + 1), {"critic_loss": 1.0 / (i + 1), "alpha": 0.1})
        if i % 2 == 0:
            log.evaluation(500 * (i + 1), episode=i + 1, episode_reward=float(i), success=0.5)


def contents(folder: Path) -> dict[str, Any]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("seconds")
    return {"metrics": rows, **{name: (folder / name).read_bytes() for name in FILES[1:]}}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tb"), purge_orphaned_data=False)
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_csv_files_look_like_the_reference(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.train(500, episode=1, episode_reward=12.3, fps=55.0, success=True)
    log.evaluation(0, episode=0, episode_reward=1.5)
    log.close()
    assert (tmp_path / "train.csv").read_text().splitlines() == [
        "episode,episode_reward,fps,step,success,length",
        "1.0,12.3,55.0,1000,True,",
    ]
    assert (tmp_path / "eval.csv").read_text().splitlines() == ["episode,episode_reward,step,success", "0.0,1.5,0,"]


def test_without_declared_columns_the_files_have_exactly_the_columns_of_the_reference(tmp_path: Path) -> None:
    log = RunLog(tmp_path, action_repeat=1, tensorboard=False)
    log.metrics(0, {})
    with open(tmp_path / "train.csv") as train, open(tmp_path / "eval.csv") as evaluation:
        assert next(csv.reader(train)) == ["episode", "episode_reward", "fps", "step"]
        assert next(csv.reader(evaluation)) == ["episode", "episode_reward", "step"]


def test_every_record_is_readable_at_once_and_has_its_units(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    log.metrics(250, {"loss": torch.tensor(0.5)})  # type: ignore[dict-item]
    log.event(251, "phase changed", phase="finetune")
    first, second = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert (first["kind"], first["agent_step"], first["env_frames"], first["loss"]) == ("metrics", 250, 500, 0.5)
    assert second["message"] == "phase changed" and second["phase"] == "finetune" and second["seconds"] >= 0


def test_numbers_json_cannot_hold_are_null_and_named(tmp_path: Path) -> None:
    make_log(tmp_path).metrics(1, {"loss": math.nan, "q": math.inf, "ok": 1.0})
    row = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=lambda c: pytest.fail(c))
    assert row["loss"] is None and row["q"] is None and row["ok"] == 1.0
    assert row["nonfinite"] == ["loss", "q"]


def test_undeclared_columns_and_reserved_names_are_refused(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    with pytest.raises(ValueError, match=r"train.csv has no column colour.*train_columns"):
        log.train(1, 1, 0.0, 1.0, colour=3)
    with pytest.raises(ValueError, match="agent_step"):
        log.metrics(1, {"agent_step": 3.0})
    with pytest.raises(ValueError, match="named twice"):
        make_log(tmp_path, train_columns=("fps",))


def test_a_fresh_run_starts_empty_and_only_when_it_writes(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("old")
    log = make_log(tmp_path)
    assert (tmp_path / "train.csv").read_text() == "old"
    log.train(500, 1, 0.0, 1.0)
    assert "old" not in (tmp_path / "train.csv").read_text()


@pytest.mark.parametrize("checkpoint", [0, 1, 4])
@pytest.mark.parametrize("lost", [0, 3])
def test_a_resumed_run_leaves_the_files_of_an_uninterrupted_one(tmp_path: Path, checkpoint: int, lost: int) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir(), broken.mkdir()
    log = make_log(whole)
    write_part(log, 0, 8)

    log = make_log(broken)
    write_part(log, 0, checkpoint)
    state = json.loads(json.dumps(log.state_dict()))
    write_part(log, checkpoint, checkpoint + lost)  # written after the checkpoint, lost in the kill
    with open(broken / "metrics.jsonl", "a") as file:
        file.write('{"kind": "tra')  # the kill came in the middle of a line
    log = make_log(broken)
    log.load_state_dict(state)
    assert log.seconds >= state["seconds"]
    write_part(log, checkpoint, 8)
    assert contents(broken) == contents(whole)


def test_tensorboard_resumes_without_the_lost_points(tmp_path: Path) -> None:
    log = make_log(tmp_path, tensorboard=True)
    write_part(log, 0, 3)
    state = log.state_dict()
    write_part(log, 3, 6)
    log.close()
    log = make_log(tmp_path, tensorboard=True)
    log.load_state_dict(state)
    write_part(log, 3, 8)
    log.close()
    points = scalars(tmp_path)
    assert {"train/episode", "train/episode_reward", "train/fps", "eval/episode", "eval/episode_reward"} <= set(points)
    assert [step for step, _ in points["learner/critic_loss"]] == [1000 * (i + 1) for i in range(8)]
    assert [step for step, _ in points["eval/episode_reward"]] == [1000, 3000, 5000, 7000]
    assert points["train/episode_reward"][4][1] == pytest.approx(4 / 3)


def test_a_fresh_run_drops_old_tensorboard_files(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        log = make_log(tmp_path, tensorboard=True)
        log.metrics(1, {"loss": value})
        log.close()
    assert scalars(tmp_path) == {"learner/loss": [(2, 2.0)]}


def test_files_that_were_tampered_with_are_reported(tmp_path: Path) -> None:
    log = make_log(tmp_path)
    write_part(log, 0, 3)
    state = log.state_dict()
    (tmp_path / "train.csv").write_text("episode\n")
    with pytest.raises(UserError, match=r"train\.csv has 8 bytes but the checkpoint knows"):
        make_log(tmp_path).load_state_dict(state)
    with pytest.raises(UserError, match="new directory"):
        make_log(tmp_path, train_columns=("other",)).load_state_dict(state)


def test_console_lines_are_those_of_the_reference(tmp_path: Path) -> None:
    stream = io.StringIO()
    log = make_log(tmp_path, console=Console(stream=stream))
    log.train(500, episode=1, episode_reward=12.3456, fps=55.0)
    log.evaluation(500, episode=1, episode_reward=2.0)
    assert stream.getvalue().splitlines() == [
        "| train | E: 1 | S: 1000 | R: 12.3456 | FPS: 55.0000",
        "| eval  | E: 1 | S: 1000 | R: 2.0000",
    ]


def test_accumulated_means_survive_sparse_names_and_a_checkpoint() -> None:
    means = MetricAccumulator()
    assert means.means() == {}
    means.add({"critic": torch.tensor(1.0), "actor": torch.tensor(10.0), "count": 3})
    means.add({"critic": torch.tensor(2.0, dtype=torch.bfloat16)})  # the actor learns every second update only
    other = MetricAccumulator()
    other.load_state_dict(means.state_dict())
    for accumulator in (means, other):
        accumulator.add({"critic": torch.tensor(6.0, requires_grad=True), "count": 5})
    assert other.means() == means.means() == {"critic": 3.0, "actor": 10.0, "count": 4.0}
    means.reset()
    assert means.means() == {} and other.means()["critic"] == 3.0


def test_accumulator_copies_so_that_reused_output_buffers_do_no_harm() -> None:
    means, buffer = MetricAccumulator(), torch.tensor(1.0)
    means.add({"loss": buffer})
    buffer.fill_(100.0)
    assert means.means() == {"loss": 1.0}
    with pytest.raises(ValueError, match=r"'loss' has shape \[2\]"):
        means.add({"loss": torch.zeros(2)})


def test_plain_progress_is_rare_and_knows_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("visrep.console.time.monotonic", lambda: clock[0])
    stream = io.StringIO()
    with Progress(1000, "pretrain", done=100, console=Console(stream=stream)) as progress:
        assert progress.eta_seconds is None
        for i in range(60):
            clock[0] += 0.2
            progress.update(100 + 5 * (i + 1), coverage=0.25)
        assert progress.rate == pytest.approx(25.0, rel=0.05)
        assert progress.eta_seconds == pytest.approx(600 / 25.0, rel=0.05)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3  # two in twelve seconds, one at the end
    assert lines[-1].startswith("pretrain: 400/1,000 (40 %)")
    assert "coverage 0.25" in lines[-1] and "ETA 24s" in lines[-1]


def test_a_terminal_gets_a_bar_and_quiet_gets_nothing() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal, silent = Terminal(), Terminal()
    for stream, quiet in ((terminal, False), (silent, True)):
        console = Console(quiet=quiet, stream=stream)
        with console.progress(10, "collect") as progress:
            console.line("a [bracketed] line")
            progress.update(10)
    assert "collect" in terminal.getvalue() and "a [bracketed] line" in terminal.getvalue()
    assert silent.getvalue() == ""


def test_durations_are_readable() -> None:
    assert [format_seconds(s) for s in (None, 42.2, 185, 7620)] == ["?", "42s", "3m05s", "2h07m"]
