"""``visrep collect replay=``: a run's replay store as a dataset, equal to what save_buffer=true writes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from run_tools import add_suite, finish, start, stored_rows, words

from visrep.cli import main
from visrep.collecting import replay as module
from visrep.collecting.replay import ReplayRequest, collect_replay
from visrep.config import parse
from visrep.console import Console
from visrep.data.dataset import open_dataset
from visrep.errors import UserError
from visrep.files import take_lock
from visrep.runs.checkpoints import CheckpointStore
from visrep.runs.phases import phase_names
from visrep.runs.pretrained import dataset_settings
from visrep.runs.saved_replay import find_replay

pytestmark = pytest.mark.usefixtures("in_process")

QUIET = Console(stream=StringIO())


def train(folder: Path, *more: str, command: str = "pretrain") -> Path:
    """A small run that saves its replay itself."""
    lengths = ("num_train_steps",) if command == "pretrain" else ()
    typed = [word for word in words(folder, "save_buffer=true", "num_eval_episodes=0", *more)
             if word.partition("=")[0] not in lengths]  # fmt: skip
    assert main([command, *typed]) == 0
    return folder


def save(run: Path, out: Path, phase: str | None = None) -> Path:
    assert collect_replay(QUIET, ReplayRequest(str(out), str(run), phase)) == 0
    return out


def assert_equals_the_runs_own(out: Path, own: Path, run: Path) -> None:
    """All files byte for byte; the manifests but for the command and what tells which run it was."""
    ours, theirs = (json.loads((folder / "dataset.json").read_text()) for folder in (out, own))
    del ours["provenance"]["command"], theirs["provenance"]["command"]
    assert ours["provenance"].pop("run") == str(run.resolve())
    assert ours["provenance"].pop("checkpoint") == CheckpointStore(run / "state").digest()
    assert ours == theirs and list(ours) == list(theirs)
    names = sorted(path.name for path in own.iterdir())
    assert sorted(path.name for path in out.iterdir()) == [".lock", *names]
    for name in names:
        assert name == "dataset.json" or (out / name).read_bytes() == (own / name).read_bytes(), name


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished pre-training of two lanes whose rings have gone round."""
    with pytest.MonkeyPatch.context() as patch:
        add_suite(patch)
        yield train(tmp_path_factory.mktemp("full") / "run", "num_envs=2", "replay_buffer_capacity=90")


@pytest.fixture
def run(full: Path, tmp_path: Path) -> Path:
    """A copy of it to be damaged."""
    return Path(shutil.copytree(full, tmp_path / "run"))


# -- what it holds ----------------------------------------------------------------------------------------------------


def test_it_equals_what_save_buffer_writes(full: Path, tmp_path: Path) -> None:
    out = save(full, tmp_path / "data")
    assert_equals_the_runs_own(out, full / "buffer" / "pretrain", full)
    assert open_dataset(out).store.rows == 90


@pytest.mark.parametrize("storage", ["disk", "device"])
def test_wherever_the_rows_live(storage: str, tmp_path: Path) -> None:
    run = train(tmp_path / "run", f"storage={storage}", "device=cpu", "replay_buffer_capacity=50")
    before = {path: path.read_bytes() for path in (run / "state").rglob("*.npy")}
    assert_equals_the_runs_own(save(run, tmp_path / "data"), run / "buffer" / "pretrain", run)
    assert {path: path.read_bytes() for path in (run / "state").rglob("*.npy")} == before


def test_state_vectors(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["train", "preset=sac_state+tiny", "env=toy/maze_center", "num_expl_steps=0", "num_train_steps=80",
                 "save_buffer=true", "threads=1", "log_save_tb=false", f"run_dir={run}"]) == 0  # fmt: skip
    out = save(run, tmp_path / "data")
    assert_equals_the_runs_own(out, run / "buffer" / "finetune", run)
    assert open_dataset(out).store.spec.frame_dtype == "float32"


def test_a_killed_run_gives_the_rows_of_its_newest_checkpoint(tmp_path: Path) -> None:
    """Also where the kill tore the checkpoint after it, whose rows lie beside those of the one before."""
    run = tmp_path / "run"
    command = ["train", *words(run, "replay_buffer_capacity=60", "num_eval_episodes=0")]
    assert finish(start(command, die_at=3, region="torn checkpoint")) < 0
    saved = CheckpointStore(run / "state").load()
    assert saved["parts"]["counters"]["agent_step"] == 40
    out = save(run, tmp_path / "data")
    data = open_dataset(out)
    assert data.manifest["provenance"]["policy"] == {"kind": "replay", "phase": "pretrain", "agent_step": 40}
    kept = stored_rows(run, "pretrain", saved["parts"]["store"])
    copied = {path.stem: np.load(path) for path in out.glob("*.npy")}
    assert set(kept) == set(copied)
    for name, values in kept.items():
        np.testing.assert_array_equal(copied[name][0], values)
    assert main(command) == 0  # the run is none the worse for it


def test_pre_training_and_probing_take_it(full: Path, tmp_path: Path) -> None:
    out = save(full, tmp_path / "data")
    own = dataset_settings([f"data={full / 'buffer' / 'pretrain'}"])
    assert dataset_settings([f"data={out}"]) == own and own["frame_stack"] == 3
    short = ("num_repr_updates=2", "batch_size=4", "threads=1", "log_save_tb=false", "encoder_channels=4")
    assert main(["pretrain", f"data={out}", f"run_dir={tmp_path / 'offline'}", "method=atc", *short, "shift_pad=2",
                 "atc_shift=1"]) == 0  # fmt: skip
    longer = train(tmp_path / "long", "num_expl_steps=300")
    data = save(longer, tmp_path / "longer")
    assert main(["probe", f"encoder={longer}", f"data={data}", "samples=60"]) == 0


# -- which phase ------------------------------------------------------------------------------------------------------


def test_the_phases_of_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pre-training rows can be had until the task phase has written both kept checkpoints."""
    both = tmp_path / "both"
    command = ["train", *words(both, "num_eval_episodes=0")]
    # Checkpoints at 40, 80, 120 (the task phase has begun): the fourth, at 160, is never finished.
    assert finish(start(command, die_at=7, region="torn checkpoint")) < 0
    early = find_replay(both, "pretrain")
    assert (early.phase, early.agent_step) == ("pretrain", 80) and find_replay(both).phase == "finetune"
    assert open_dataset(save(both, tmp_path / "early", "pretrain")).store.transitions == 80
    assert main(command) == 0
    capsys.readouterr()
    assert main(["collect", f"replay={both}", "phase=pretrain", f"out={tmp_path / 'late'}"]) == 2
    said = capsys.readouterr().err
    assert "rows of phase pretrain are gone" in said and "save_buffer=true" in said and "phase=finetune" in said
    assert not (tmp_path / "late").exists()
    (both / "buffer" / "pretrain").mkdir(parents=True)
    (both / "buffer" / "pretrain" / "dataset.json").write_text("{}")
    with pytest.raises(UserError, match=rf"use {both}/buffer/pretrain$"):
        find_replay(both, "pretrain")
    assert open_dataset(save(both, tmp_path / "task")).manifest["provenance"]["policy"]["agent_step"] == 240


def test_a_phase_that_is_not_there(full: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"phase=finetune: .* has the phase pretrain only"):
        find_replay(full, "finetune")
    run = tmp_path / "run"
    assert finish(start(["train", *words(run)], die_at=3, region="torn checkpoint")) < 0
    with pytest.raises(
        UserError, match=r"no rows of phase finetune yet \(.* of pretrain, agent step 40\): continue it"
    ):
        find_replay(run, "finetune")


# -- what goes wrong --------------------------------------------------------------------------------------------------


def refusal(run: Path, out: Path, phase: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        save(run, out, phase)
    assert not (out / "dataset.json").exists()
    return str(caught.value)


def test_no_run_and_no_checkpoint(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    assert "is not there" in refusal(tmp_path / "none", out)
    assert "has no config.yaml" in refusal(tmp_path, out)
    assert "is a file" in refusal(run / "config.yaml", out)
    assert "is a dataset already" in refusal(run / "buffer" / "pretrain", out)
    for folder in (run / "state").glob("0*"):
        shutil.rmtree(folder)
    assert "has no checkpoint yet" in refusal(run, out) and "every 40 agent steps" in refusal(run, out)
    shutil.rmtree(run / "state")
    assert "has no checkpoint yet" in refusal(run, out) and not (run / "state").exists()
    assert not out.exists()


def test_damage(run: Path, tmp_path: Path) -> None:
    out, rows = tmp_path / "data", run / "state" / "store-pretrain"
    newest = CheckpointStore(run / "state").latest()
    assert newest is not None
    state = (newest / "state.pt").read_bytes()
    (newest / "state.pt").write_bytes(state[:-9])
    assert "is cut off" in (said := refusal(run, out)) and "add resume=previous to the run's command" in said
    (newest / "state.pt").write_bytes(state)
    image = np.load(rows / "image.npy", mmap_mode="r+")
    image[:] += 1
    image.flush()
    assert "does not match its checksum" in refusal(run, out)
    (rows / "image.npy").unlink()
    assert "image.npy is missing" in refusal(run, out)
    shutil.rmtree(rows)
    assert "the rows of phase pretrain are missing: restore" in refusal(run, out)
    assert not out.exists()


def test_a_provenance_that_is_gone(run: Path, tmp_path: Path) -> None:
    path = run / "provenance.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in about.items() if key != "environment"}))
    assert "does not say the run's environment: restore it" in refusal(run, tmp_path / "data")
    path.unlink()
    assert "provenance.json cannot be read" in refusal(run, tmp_path / "data")


def test_a_run_that_is_running(run: Path, tmp_path: Path) -> None:
    with take_lock(run, ""):
        assert "in use by another running process: wait until the run is over" in refusal(run, tmp_path / "data")
    with take_lock(run, "", shared=True):  # another one that saves its replay
        save(run, tmp_path / "data")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (
            ["replay=r", "env=toy/maze", "episodes=5", "num_envs=1"],
            "leave out env, episodes, num_envs, or leave out rep",
        ),
        (["replay=r", "policy=random"], "leave out policy"),
        (["replay=r", "phase=pretrian"], "did you mean pretrain?"),
        (["replay="], "replay is empty"),
        (["env=toy/maze", "episodes=5", "phase=pretrain"], "phase=pretrain goes with replay=<run directory>"),
    ],
)
def test_keys_that_do_not_go_together(
    keys: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["collect", f"out={tmp_path / 'data'}", *keys]) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "data").exists()


def test_a_run_on_recorded_data_has_no_replay_and_no_policy(
    full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offline = tmp_path / "offline"
    assert main(["pretrain", f"data={full / 'buffer' / 'pretrain'}", f"run_dir={offline}", "method=vae", "threads=1",
                 "num_repr_updates=1", "batch_size=4", "log_save_tb=false", "encoder_channels=4"]) == 0  # fmt: skip
    assert "learned from recorded data" in refusal(offline, tmp_path / "data")
    capsys.readouterr()
    for command in (["evaluate", f"run={offline}"], ["collect", f"policy={offline}", "out=x", "episodes=1"]):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "learned from recorded data" in said and "no policy" in said and f"finetune encoder={offline}" in said


def test_latents_are_said_to_be_latents(full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "latents"
    keys = words(run, "transfer=frozen", f"encoder={full}", "replay=latents", "save_buffer=true", "num_train_steps=60",
                 "num_eval_episodes=0", "keep=none")  # fmt: skip
    assert main(["finetune", *(word for word in keys if not word.startswith("num_expl_steps"))]) == 0
    out = save(run, tmp_path / "data")
    assert_equals_the_runs_own(out, run / "buffer" / "finetune", run)
    capsys.readouterr()
    for command in (["pretrain", f"data={out}", f"run_dir={tmp_path / 'offline'}", "threads=1"],
                    ["probe", f"encoder={full}", f"data={out}"]):  # fmt: skip
        assert main(command) == 2
        said = capsys.readouterr().err
        assert f"{out} holds latents of a frozen encoder (" in said and "replay=pixels" in said
    assert not (tmp_path / "offline").exists()


def test_a_runs_own_folders_are_no_datasets(full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, what in ((full, "a run"), (full / "state", "part of a run"), (full / "state" / "store-pretrain", "")):
        assert main(["probe", f"encoder={full}", f"data={folder}"]) == 2
        said = capsys.readouterr().err
        assert f"{folder} is {what}" in said and f"visrep collect replay={full} " in said
        assert ("phase=pretrain" in said) == folder.name.startswith("store")


# -- a folder that is there already -----------------------------------------------------------------------------------


def test_a_finished_copy_is_left_as_it_is(run: Path, tmp_path: Path) -> None:
    out = save(run, tmp_path / "data")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.glob("[!.]*")}
    shown = StringIO()
    assert collect_replay(Console(stream=shown), ReplayRequest(str(out), str(run), "pretrain")) == 0
    assert shown.getvalue().startswith("this dataset is finished already: ")
    own = str(run / "buffer" / "pretrain")
    assert collect_replay(Console(stream=shown), ReplayRequest(own, str(run))) == 0  # the same rows
    other = train(tmp_path / "other", "num_envs=2", "replay_buffer_capacity=90", "seed=7")
    with pytest.raises(UserError, match=r"finished dataset of another replay:\n  seed: 1 there, 7 asked for\nchoose"):
        save(other, out)
    twin = train(tmp_path / "twin", "num_envs=2", "replay_buffer_capacity=90")
    with pytest.raises(UserError, match="the same settings, but another run"):
        save(twin, out)
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.glob("[!.]*")} == before


def test_folders_that_hold_something_else(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = ["collect", "env=short/toy", "image_size=16", "episodes=1"]
    episodes, out = tmp_path / "episodes", save(run, tmp_path / "data")
    assert main([*record, f"out={episodes}"]) == 0
    with pytest.raises(UserError, match="finished dataset that is no run's replay: choose another out"):
        save(run, episodes)
    with pytest.raises(UserError, match="is not empty and holds no dataset"):
        save(run, tmp_path)
    assert main([*record, f"out={out}"]) == 2
    assert "visrep collect did not record: choose another out" in capsys.readouterr().err


def test_a_copy_that_was_cut_short_begins_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "data"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("visrep.data.dataset.write_json_atomic", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        save(run, out)
    assert (out / "image.npy").exists() and not (out / "dataset.json").exists()
    with pytest.raises(UserError, match="not finished: run the same collect command again"):
        open_dataset(out)
    assert main(["collect", "env=short/toy", "episodes=1", f"out={out}"]) == 2
    assert "holds an unfinished copy of a run's replay" in capsys.readouterr().err
    assert_equals_the_runs_own(save(run, out), run / "buffer" / "pretrain", run)


def test_a_full_disk_is_said_before(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_disk", lambda _: 1000)
    assert "the replay needs" in refusal(run, tmp_path / "data")
    monkeypatch.undo()
    save(run, tmp_path / "data")


def test_the_phases_follow_from_the_lengths_alone() -> None:
    for command, more, names in (
        ("train", [], ["pretrain", "finetune"]),
        ("pretrain", [], ["pretrain"]),
        ("finetune", ["encoder=x"], ["finetune"]),
    ):
        assert phase_names(parse(["env=toy/maze_center", *more], command)) == names  # type: ignore[arg-type]
