"""Pre-training on recorded experience: every objective, mixtures, resuming bit for bit, and what is refused."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_tools import SERVER, assert_same, events, records, tensors

import visrep
from visrep.cli import main
from visrep.config import load_config, parse
from visrep.console import Console
from visrep.data.actions import ActionSpec
from visrep.data.dataset import write_dataset
from visrep.data.priority import PriorityAnchors
from visrep.data.sampler import Sampler
from visrep.data.store import FrameStore, StoreSpec
from visrep.objectives.contract import OBJECTIVES, Paints
from visrep.results.report import report_run
from visrep.runs import offline
from visrep.runs.checkpoints import CheckpointStore
from visrep.runs.pretrained import dataset_settings
from visrep.runs.representation import Representation

pytestmark = pytest.mark.usefixtures("in_process")

SMALL = (
    "encoder_channels=4", "batch_size=6", "num_repr_updates=12", "threads=1", "log_frequency_step=3",
    "log_save_tb=false", "checkpoint_frequency=4", "probe_frequency=5", "frame_stack=2",
)  # fmt: skip
TWO = ActionSpec(2)
CPU = torch.device("cpu")
TRAINED = sorted(name for name, cls in OBJECTIVES.items() if cls.trains_encoder)


def dataset(
    folder: Path,
    seed: int = 0,
    size: int = 32,
    actions: ActionSpec | None = TWO,
    length: int = 12,
    rewards: bool = True,
    action_repeat: int = 1,
) -> Path:
    """Episodes of noise with a moving bright square whose place is the state; their last step pays 1."""
    rng = np.random.default_rng(seed)
    store = FrameStore(StoreSpec((3, size, size), actions, {"state": (2,)}, rewards=rewards), capacity=400, lanes=1)
    for _ in range(12):
        place = rng.integers(0, size - 8, 2)
        for step in range(length + 1):
            place = np.clip(place + rng.integers(-2, 3, 2), 0, size - 8)
            frame = rng.integers(0, 40, (1, 3, size, size), dtype=np.uint8)
            frame[0, :, place[1] : place[1] + 8, place[0] : place[0] + 8] = 250
            action = None
            if actions is not None:
                drawn = rng.integers(actions.classes) if actions.discrete else rng.uniform(-1, 1, actions.dim)
                action = np.asarray([drawn]) * (step > 0)
            first, last = np.array([step == 0]), np.array([step == length])
            side = {"state": place[None].astype(np.float32)}
            reward = last.astype(float) if rewards else None
            store.add([0], frame, action, reward, first, np.array([False]), last, side)
    environment = {"image_size": size, "action_repeat": action_repeat}
    write_dataset(store, folder, {"env": "short/toy", "frame_stack": 2, "environment": environment})
    return folder


def pretrain(run_dir: Path, data: Path | str, *more: str) -> int:
    keys = {word.partition("=")[0]: word for word in (*SMALL, *more)}
    return main(["pretrain", f"data={data}", *keys.values(), f"run_dir={run_dir}"])


@pytest.mark.parametrize("method", TRAINED)
def test_every_objective_pre_trains(method: str, tmp_path: Path) -> None:
    data = dataset(tmp_path / "data")
    assert pretrain(tmp_path / "run", data, f"objective={method}") == 0
    encoder = visrep.load_encoder(tmp_path / "run" / "model" / "encoder.safetensors")
    assert encoder.contract.shape == (6, 32, 32)
    fresh = visrep.load_encoder(start_of(tmp_path, data, method))
    moved = [not torch.equal(a, b) for a, b in zip(encoder.parameters(), fresh.parameters(), strict=True)]
    assert all(moved)
    rows = [row for row in records(tmp_path / "run") if row["kind"] == "metrics"]
    assert [row["update"] for row in rows if "repr_loss" in row] == [3, 6, 9, 12]
    assert [row["update"] for row in rows if "probe_rankme" in row] == [0, 5, 10]
    assert all("probe_state_r2" in row for row in rows if "probe_rankme" in row)
    assert not any("agent_step" in row for row in rows) and not (tmp_path / "run" / "train.csv").exists()


def start_of(tmp_path: Path, data: Path, method: str) -> Path:
    """The encoder as the run began with it: a rate of almost nothing leaves it."""
    run = tmp_path / "start"
    assert pretrain(run, data, f"method={method}", "num_repr_updates=1", "repr_warmup=100") == 0
    return run / "model" / "encoder.safetensors"


def test_the_first_update_of_a_warm_up_stands_still(tmp_path: Path) -> None:
    """Trap T33: off line the counter begins at 0."""
    data = dataset(tmp_path / "data")
    one, other = tmp_path / "one", tmp_path / "other"
    for run, lr in ((one, 1e-3), (other, 0.5)):
        assert pretrain(run, data, "method=atc", "num_repr_updates=1", "repr_warmup=100", f"repr_lr={lr}") == 0
    assert_same(*(tensors(run / "model" / "encoder.safetensors") for run in (one, other)), "encoder")


def test_what_the_data_decide_need_not_be_typed(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data")
    assert pretrain(tmp_path / "run", data, "method=ac") == 0
    run = load_config(tmp_path / "run" / "config.yaml").run
    assert (run.env, run.image_size, run.action_repeat, run.frame_stack) == ("short/toy", 32, 1, 2)


def test_what_the_data_were_recorded_with_wins_over_presets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, preset = dataset(tmp_path / "data"), tmp_path / "mine.yaml"
    preset.write_text("image_size: 64\naction_repeat: 4\nframe_stack: 2\n")
    assert pretrain(tmp_path / "run", data, "method=ac", f"preset={preset}") == 0
    run = load_config(tmp_path / "run" / "config.yaml").run
    assert (run.image_size, run.action_repeat) == (32, 1)
    assert pretrain(tmp_path / "other", data, "method=ac", "image_size=64") == 2
    said = capsys.readouterr().err
    assert "image_size=64" in said and "recorded with image_size=32" in said and not (tmp_path / "other").exists()


def test_datasets_of_unlike_pace_are_mixed_with_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [dataset(tmp_path / str(seed), seed, action_repeat=repeat) for seed, repeat in enumerate((2, 4, 2))]
    assert pretrain(tmp_path / "run", ",".join(map(str, folders[:2]))) == 0
    said = capsys.readouterr().out
    assert f"note: the datasets differ in action_repeat: 2 in {folders[0]}, 4 in {folders[1]}; they are mixed" in said
    assert said.count("note: ") == 1
    assert pretrain(tmp_path / "same", ",".join(map(str, folders[::2]))) == 0
    assert "note: " not in capsys.readouterr().out


def test_atc_is_what_recorded_data_are_for_by_default(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data")
    assert pretrain(tmp_path / "run", data, "data_weights=1") == 0
    run = load_config(tmp_path / "run" / "config.yaml").run
    assert (run.method, run.data_weights) == ("atc", (1.0,))


def built(run_dir: Path, *words: str) -> offline.Offline:
    """The parts of a pre-training that does not run."""
    config = parse([*SMALL, *words], "pretrain", dataset_settings([*words]))
    return offline._build(config, offline.open_datasets(config, CPU), CPU, run_dir, Console(quiet=True))


def test_shares_augmentation_and_bound_are_as_the_keys_say(tmp_path: Path) -> None:
    """By default every dataset has the same share, however many rows it has."""
    both = f"data={dataset(tmp_path / 'short', length=6)},{dataset(tmp_path / 'long')}"
    equal = built(tmp_path, both, "method=ac", "repr_augment=shift(2)", "repr_grad_clip=0.5")
    assert len({one.store.rows for one in equal.datasets}) == 2 and equal.sampler.weights.tolist() == [0.5, 0.5]
    assert (str(equal.augment), equal.representation.clip_norm) == ("shift(pad=2, p=1.0)", 0.5)
    assert built(tmp_path, both, "data_weights=3,1").sampler.weights.tolist() == [0.75, 0.25]


STILL = ("num_repr_updates=1", "repr_warmup=100")  # one update at a rate of nothing


def test_it_starts_from_another_encoder(tmp_path: Path) -> None:
    """From a run with all its networks; from a file, target copies are those of the encoder that was loaded."""
    data = dataset(tmp_path / "data")
    assert pretrain(tmp_path / "first", data, "method=atc") == 0
    file = tmp_path / "first" / "model" / "encoder.safetensors"
    for name, source in (("run", tmp_path / "first"), ("file", file)):
        assert pretrain(tmp_path / name, data, "method=atc", *STILL, f"encoder={source}", "atc_target_tau=0.0") == 0
        assert_same(tensors(tmp_path / name / "model" / "encoder.safetensors"), tensors(file), "encoder")
    kept, begun = (CheckpointStore(tmp_path / name / "state").load()["parts"]["objective"] for name in ("run", "file"))
    encoder = tensors(file)
    at_start = [key for key in begun if key.startswith("target_encoder.")]
    assert at_start
    for key in at_start:
        assert torch.equal(begun[key], encoder[key.removeprefix("target_encoder.")])
    assert any(not torch.equal(kept[key], begun[key]) for key in at_start)  # the run's own average lags behind


def test_a_dataset_is_no_run_and_no_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = dataset(tmp_path / "data")
    before = sorted(data.iterdir())
    assert pretrain(data, data, "method=atc") == 2
    assert "is a dataset" in capsys.readouterr().err
    assert sorted(data.iterdir()) == before
    assert main(["finetune", f"encoder={data}", "env=short/toy"]) == 2
    assert f"visrep pretrain data={data}" in capsys.readouterr().err


def test_frozen_downstream(tmp_path: Path) -> None:
    """``visrep finetune`` takes the run's encoder, its environment and its picture; other heads may follow."""
    data = dataset(tmp_path / "data")
    assert pretrain(tmp_path / "pre", data, "method=vae_t") == 0
    words = [
        "finetune", f"encoder={tmp_path / 'pre'}", "transfer=frozen", "num_train_steps=40", "num_seed_steps=20",
        "num_random_steps=20", "hidden_dim=16", "eval_frequency=40", "num_eval_episodes=1", "save_video=false",
        "log_save_tb=false", "batch_size=8", "threads=1", "replay_buffer_capacity=100",
    ]  # fmt: skip
    for name, more in (("same", []), ("other", ["method=atc"]), ("none", ["method=none"])):
        assert main([*words, *more, f"run_dir={tmp_path / name}"]) == 0
        before, after = (tensors(tmp_path / run / "model" / "encoder.safetensors") for run in ("pre", name))
        assert_same(before, after, "encoder")


@pytest.mark.parametrize("method", TRAINED)
def test_pictures_of_what_was_learned(method: str, tmp_path: Path) -> None:
    data = ",".join(str(dataset(tmp_path / name, seed)) for seed, name in enumerate(("one", "two")))
    assert pretrain(tmp_path / "run", data, f"method={method}") == 0
    drawn = {path.stem for path in (tmp_path / "run" / "figures").glob("*.png")}
    paints = {"reconstructions"} if issubclass(OBJECTIVES[method], Paints) else set()
    assert drawn == {"sample_frames", "neighbours"} | paints
    page = report_run(tmp_path / "run").read_text()
    assert "features are most alike" in page and f"{method} on recorded experience" in page
    assert "not recorded" not in page.partition("Pictures</h2>")[2].partition("Events</h2>")[0]


def test_pictures_draw_nothing_from_the_runs_generators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset(tmp_path / "data")
    with monkeypatch.context() as patch:
        patch.setattr(offline, "write_sheets", lambda shown, folder: [])
        assert pretrain(tmp_path / "without", data, "method=sac_ae") == 0
    assert pretrain(tmp_path / "with", data, "method=sac_ae") == 0
    assert_same(final(tmp_path / "with"), final(tmp_path / "without"), "state")


def final(run_dir: Path) -> dict[str, Any]:
    state = CheckpointStore(run_dir / "state").load()
    for part in ("bytes", "seconds", "tensorboard"):
        del state["parts"]["log"][part]
    groups = state["parts"]["window"]
    assert not groups["groups"], "the last row is written before the last checkpoint"
    return state


def _killed_at(words: list[str], update: int) -> None:
    step = Representation.step

    def dying(self: Representation, batch: Any) -> Any:
        if self.updates == update:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, batch)

    Representation.step = dying  # type: ignore[method-assign]
    main(words)


FAVOURED = ("repr_priority_alpha=1", "repr_priority_steps=3")


@pytest.mark.parametrize(("method", "more"), [("atc", ()), ("curl", ()), ("proto", ()), ("atc", FAVOURED)])
def test_killed_and_continued(method: str, more: tuple[str, ...], tmp_path: Path) -> None:
    data = [dataset(tmp_path / name, seed) for seed, name in enumerate(("a", "b"))]
    both, more = ",".join(map(str, data)), (f"method={method}", "data_weights=0.8,0.2", *more)
    assert pretrain(tmp_path / "whole", both, *more) == 0
    words = ["pretrain", f"data={both}", *SMALL, *more]
    for update in (2, 6, 11):
        process = SERVER.Process(target=_killed_at, args=([*words, f"run_dir={tmp_path / 'killed'}"], update))
        process.start()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
    assert pretrain(tmp_path / "killed", both, *more) == 0
    assert_same(final(tmp_path / "whole"), final(tmp_path / "killed"), "state")
    assert_same(*(tensors(tmp_path / r / "model" / "representation.safetensors") for r in ("whole", "killed")), "model")
    assert_same(records(tmp_path / "whole"), records(tmp_path / "killed"), "records")


def test_rewards_are_favoured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only rows within three steps of a reward count beside so heavy a weight; every dataset gives its share."""
    both = ",".join(str(dataset(tmp_path / name, seed)) for seed, name in enumerate(("a", "b")))
    cut, stores, steps = Sampler.cut, set(), []

    def seen(self: Sampler, lanes: Any, anchors: Any, out: Any = None) -> Any:
        if isinstance(self.anchors, PriorityAnchors):
            stores.add(id(self.store))
            steps.extend(self.store.episode_steps[self.store.rings.positions(lanes, anchors)].tolist())
        return cut(self, lanes, anchors, out)

    monkeypatch.setattr(Sampler, "cut", seen)
    assert pretrain(tmp_path / "run", both, "method=ac", *FAVOURED, "repr_priority_alpha=1e9") == 0
    assert len(stores) == 2 and len(steps) == 12 * 6 and set(steps) == {9, 10, 11}


def test_what_cannot_be_drawn_or_seen_is_refused_before_anything_is_written(tmp_path: Path, capsys: Any) -> None:
    data, unpaid = dataset(tmp_path / "data"), dataset(tmp_path / "unpaid", rewards=False)
    run = tmp_path / "run"
    said = error(capsys, run, f"{data},{unpaid}", *FAVOURED)
    assert "repr_priority_alpha=1 favours rewards" in said and f"{unpaid} has none" in said
    said = error(capsys, run, data, "num_expl_steps=9", "replay=pixels")
    assert "num_expl_steps, replay: of no use with data=" in said
    for text, size in (("crop(20)", 20), ("translate(40)", 40)):
        said = error(capsys, run, data, f"repr_augment={text}")
        assert f"repr_augment={text} gives the encoder images of {size}x{size}" in said and "32x32" in said
    assert "repr_augment=crop(99): " in error(capsys, run, data, "repr_augment=crop(99)")
    assert "repr_augment=none" in error(capsys, run, data, "augment=crop(20)", "repr_augment=none")
    assert "encoder_kind=latent takes no images" in error(capsys, run, data, "encoder_kind=latent")
    assert not run.exists()
    said = error(capsys, run, data, *FAVOURED, "repr_priority_steps=200")
    assert "batch larger than data" in said and "repr_priority_steps: the newest 200 rows" in said


def test_ctrl_c_and_a_finished_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    data, step = dataset(tmp_path / "data"), Representation.step

    def stopping(self: Representation, batch: Any) -> Any:
        if self.updates == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Representation, "step", stopping)
        assert pretrain(tmp_path / "run", data, "method=atc") == 130
    assert "stopped by SIGINT at update 7" in capsys.readouterr().out
    assert pretrain(tmp_path / "run", data, "method=atc") == 0
    assert pretrain(tmp_path / "run", data, "method=atc") == 0
    assert "finished already" in capsys.readouterr().out


def test_a_collapse_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, step = dataset(tmp_path / "data"), Representation.step

    def collapsing(self: Representation, batch: Any) -> Any:
        metrics = step(self, batch)
        with torch.no_grad():
            for parameter in self.objective.encoder.parameters():
                parameter.mul_(0.5)
        return metrics

    monkeypatch.setattr(Representation, "step", collapsing)
    assert pretrain(tmp_path / "run", data, "method=atc") == 0
    assert any(message.startswith("warning: ") for message in events(tmp_path / "run"))


def error(capsys: Any, run_dir: Path, data: Path | str, *more: str) -> str:
    assert pretrain(run_dir, data, *more) == 2
    return str(capsys.readouterr().err)


def test_bad_input(tmp_path: Path, capsys: Any) -> None:
    data, run = dataset(tmp_path / "data"), tmp_path / "run"
    film = dataset(tmp_path / "film", actions=None)
    message = error(capsys, run, film, "method=inverse")
    assert "needs 'action'" in message and "atc" in message and "vae" in message and str(film) in message
    assert pretrain(tmp_path / "film_run", film, "method=atc") == 0
    small = dataset(tmp_path / "small", size=24)
    assert "24" in (text := error(capsys, run, f"{data},{small}", "method=atc")) and str(small) in text
    assert "longest episode (12" in error(capsys, run, data, "method=atc", "atc_shift=13")
    assert "dataset" in error(capsys, run, tmp_path / "nowhere", "method=atc")
    assert "does not train the encoder" in error(capsys, run, data, "method=rnd")
    assert "batch larger than data" in error(capsys, run, data, "method=atc", "batch_size=500")
    manifest = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps(manifest)[:-30])
    assert "damaged" in error(capsys, run, data, "method=atc")


def test_classes_for_actions(tmp_path: Path) -> None:
    data = dataset(tmp_path / "data", actions=ActionSpec(1, classes=4))
    for method in ("inverse", "vae_t", "atc"):
        assert pretrain(tmp_path / method, data, f"method={method}") == 0
