"""The reference's command and what a run leaves in its directory."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_tools import SMALL, add_suite, events, final_state, records, rows, stored_rows, tensors, words

import visrep
from visrep.cli import main
from visrep.config import load_config, parse
from visrep.data.actions import ActionSpec
from visrep.data.dataset import open_dataset
from visrep.data.store import StoreSpec

pytestmark = pytest.mark.usefixtures("in_process")

ROOT = Path(__file__).parents[2]


def test_the_references_command_leaves_the_promised_files(tmp_path: Path) -> None:
    """``python train.py env=... num_expl_steps=... num_train_steps=...``, from another folder than the repository's."""
    own = ("env=", "save_video=", "log_save_tb=", "num_expl_steps=", "num_train_steps=")
    small = [word for word in SMALL if not word.startswith(own)]
    typed = ["env=toy/maze_center", "num_expl_steps=40", "num_train_steps=80", *small]
    command, one_thread = [sys.executable, str(ROOT / "train.py"), *typed], {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=one_thread)
    assert done.returncode == 0, done.stderr
    (run_dir,) = (tmp_path / "exp_local").glob("*/*")
    assert re.fullmatch(r"\d{4}\.\d{2}\.\d{2}", run_dir.parent.name)
    assert re.match(r"\d{6}_batch_size=12,", run_dir.name) and ",env=toy-maze_center," in run_dir.name
    assert f"run directory: {run_dir.relative_to(tmp_path)}" in done.stdout and "device: " in done.stdout
    left = {str(path.relative_to(run_dir)) for path in run_dir.rglob("*") if path.is_file()}
    expected = {
        "train.csv", "eval.csv", "metrics.jsonl", "config.yaml", "provenance.json", ".lock",
        "video/0.mp4", "video/80.mp4",
        "model/encoder.safetensors", "model/expl_agent_40.safetensors", "model/task_agent_80.safetensors",
    }  # fmt: skip
    others = {name for name in left - expected if not name.startswith(("tb/events.out.tfevents", "state/", "figures/"))}
    assert not others and expected <= left and any(name.startswith("tb/") for name in left)
    assert (run_dir / "train.csv").read_text().startswith("episode,episode_reward,fps,step,")
    assert (run_dir / "eval.csv").read_text().startswith("episode,episode_reward,step,")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exp_local"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small run of both phases."""
    with pytest.MonkeyPatch.context() as patch:
        add_suite(patch)
        folder = tmp_path_factory.mktemp("session") / "run"
        threads = torch.get_num_threads()
        more = ("num_envs=2", "action_repeat=2", "save_model=true", "save_buffer=true", "log_save_tb=true")
        assert main(["train", *words(folder, *more, "replay_buffer_capacity=90")]) == 0
        torch.set_num_threads(threads)
        yield folder


def test_steps_in_csv_files_are_env_frames(run_dir: Path) -> None:
    train, evaluation = rows(run_dir / "train.csv"), rows(run_dir / "eval.csv")
    # Two lanes with episodes of 30 agent steps, two frames each: four finished pairs of episodes in 240 agent steps.
    assert [row["step"] for row in train] == [str(frames) for frames in (120, 120, 240, 240, 360, 360, 480, 480)]
    assert [float(row["episode"]) for row in train] == list(range(1, 9)) and {row["length"] for row in train} == {"30"}
    assert [row["step"] for row in evaluation] == ["0", "200", "400", "480"]
    with (run_dir / "train.csv").open(newline="") as file:
        assert all(float(row["fps"]) > 0 for row in csv.DictReader(file))


def test_metrics_tell_what_a_run_should_be_judged_by(run_dir: Path) -> None:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    metrics = [line for line in lines if line["kind"] == "metrics"]
    exploring = [line for line in metrics if line["updates"] and line["agent_step"] <= 120][-1]
    for name in (
        "repr_loss", "critic_loss", "actor_loss", "alpha", "entropy", "q1", "intr_reward_mean", "intr_reward_std",
        "intr_reward_zeros", "batch_reward", "state_coverage", "agent_steps_per_second", "updates_per_second",
        "ram_bytes",
    ):  # fmt: skip
        assert np.isfinite(exploring[name]), name
    assert metrics[-1]["agent_step"] == 240 and metrics[-1]["updates"] == pytest.approx(0.25 * (240 - 2 * 24), abs=8)
    coverage = [line["state_coverage"] for line in metrics]
    assert coverage == sorted(coverage) and coverage[-1] > coverage[0]
    assert events(run_dir)[0] == "phase pretrain begins" and events(run_dir)[-1] == "phase finetune ends"


def test_config_and_provenance_describe_the_run(run_dir: Path) -> None:
    config = load_config(run_dir / "config.yaml")
    assert config == parse([f"preset={run_dir / 'config.yaml'}"])
    about = json.loads((run_dir / "provenance.json").read_text())
    assert about["environment"]["renderer"] == "numpy" and about["versions"]["torch"] == torch.__version__
    assert about["device"] == "cpu" and about["config"] == config.to_dict()


def test_models_are_saved_on_the_way(run_dir: Path) -> None:
    names = {path.stem for path in (run_dir / "model").iterdir()}
    steps = {"expl_agent_80", "expl_agent_120", "task_agent_160", "task_agent_240"}
    assert names == {*steps, "encoder"}
    encoder = visrep.load_encoder(run_dir)
    last = tensors(run_dir / "model" / "task_agent_240.safetensors")
    assert all(torch.equal(value, last[f"encoder/{name}"]) for name, value in encoder.state_dict().items())


def test_the_replay_store_is_left_when_asked_for(run_dir: Path) -> None:
    folder = run_dir / "buffer" / "finetune"
    dataset = open_dataset(folder)
    store, manifest = dataset.store, dataset.manifest
    assert store.spec == StoreSpec((3, 16, 16), ActionSpec(2), {"state": (2,)})
    assert manifest["provenance"]["policy"] == {"kind": "replay", "phase": "finetune", "agent_step": 240}
    # Each lane's 45 newest rows begin in the middle of an episode; a first row ends no transition, nor does the oldest.
    assert store.rows == 90 and store.transitions == 90 - 2 - int((store.episode_steps == 0).sum())
    kept = stored_rows(run_dir, "finetune", final_state(run_dir)["parts"]["store"])
    lanes, positions = np.repeat([0, 1], 45), np.concatenate([np.arange(s, s + 45) for s in store.rings.starts])
    np.testing.assert_array_equal(store.read("image", lanes, positions), kept["image"])


def test_the_random_control_learns_only_the_task(tmp_path: Path) -> None:
    assert main(["train", *words(tmp_path, "method=random")]) == 0
    metrics = [record for record in records(tmp_path) if record["kind"] == "metrics"]
    assert all(record["updates"] == 0 for record in metrics if record["agent_step"] <= 120)
    assert metrics[-1]["updates"] > 0 and not any("intr_reward_mean" in record for record in metrics)
    before = tensors(tmp_path / "model" / "expl_agent_120.safetensors")
    after = tensors(tmp_path / "model" / "task_agent_240.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("encoder/"))
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("policy/"))


@pytest.mark.parametrize("episodes", [0, 3])
def test_number_of_evaluation_episodes(episodes: int, tmp_path: Path) -> None:
    more = (f"num_eval_episodes={episodes}", "num_envs=4", "num_train_steps=140", "eval_frequency=1000")
    assert main(["train", *words(tmp_path, *more)]) == 0
    assert [row["episodes"] for row in rows(tmp_path / "eval.csv")] == [str(episodes)] * (2 if episodes else 0)


def test_evaluation_leaves_the_run_as_it_would_be(tmp_path: Path) -> None:
    """Evaluations draw from streams of their own: with or without them the run learns the same weights."""
    for name, often in (("often", 30), ("never", 10_000)):
        assert main(["train", *words(tmp_path / name, f"eval_frequency={often}", "num_train_steps=180")]) == 0
    one, other = (tensors(tmp_path / name / "model" / "task_agent_180.safetensors") for name in ("often", "never"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_tensorboard_holds_the_same_numbers(run_dir: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events_of: Any = EventAccumulator(str(run_dir / "tb"))
    events_of.Reload()
    shown = [(scalar.step, scalar.value) for scalar in events_of.Scalars("eval/episode_reward")]
    written = [(int(row["step"]), float(row["episode_reward"])) for row in rows(run_dir / "eval.csv")]
    np.testing.assert_allclose(shown, written, rtol=1e-6)
