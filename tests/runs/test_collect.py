"""``visrep collect``: what is in the dataset, who acted, what a kill costs, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_tools import SERVER, ShortToy, add_suite, make_short

from visrep.cli import main
from visrep.collecting.collect import collect
from visrep.collecting.request import Request
from visrep.collecting.trained import find_trained
from visrep.console import Console
from visrep.data.dataset import Dataset, open_dataset
from visrep.data.episodes import Episode, episodes
from visrep.data.writer import DatasetWriter
from visrep.envs.vector import VectorEnv
from visrep.envs.vector_lane import EnvSpec, episode_seed
from visrep.errors import UserError
from visrep.runs.acting import FrameStacker
from visrep.runs.compose import Source, build_agent, build_networks
from visrep.runs.pretrained import load_agent

QUIET = Console(quiet=True)
SHORT = {"env": "short/toy", "image_size": 16, "action_repeat": 1}


@pytest.fixture(autouse=True)
def suite(monkeypatch: pytest.MonkeyPatch) -> None:
    add_suite(monkeypatch)


def gather(out: Path, **keys: Any) -> Dataset:
    """Record with few words; the opened dataset."""
    assert collect(QUIET, Request(out=str(out), **{**SHORT, **keys}), checkpoint_seconds=0) == 0
    return open_dataset(out)


def column(data: Dataset, name: str, episode: Episode) -> np.ndarray:
    rows = np.arange(episode.first_row, episode.last_row + 1)
    return data.store.read(name, np.full(len(rows), episode.lane), rows)


def content(folder: Path) -> dict[str, Any]:
    """Everything in a dataset but the command that was typed."""
    manifest = json.loads((folder / "dataset.json").read_text())
    del manifest["provenance"]["command"]
    return {"manifest": manifest, **{path.name: path.read_bytes() for path in folder.glob("*.npy")}}


def assert_is_what_the_environment_gives(data: Dataset, spec: EnvSpec, seed: int, first_number: int = 0) -> None:
    """Play every stored action again, in environments of our own, and compare every row."""
    seen = dict.fromkeys(range(data.store.lanes), first_number)
    for episode in episodes(data.store):
        env = spec.make()
        core: Any = env.unwrapped
        frame, info = env.reset(seed=episode_seed(seed, episode.lane, seen[episode.lane]))
        seen[episode.lane] += 1
        stored = {name: column(data, name, episode) for name in [*data.store.spec.provides, "is_first", "is_last"]}
        assert stored["is_first"][:, 0].tolist() == [True] + [False] * episode.agent_steps
        assert stored["is_last"][:, 0].tolist() == [False] * episode.agent_steps + [True]
        assert not stored["terminal"].any()
        reward = 0.0
        for t, action in enumerate(stored["action"]):
            if t:
                frame, reward, _, truncated, info = env.step(action)
                assert truncated == stored["is_last"][t, 0]
            shown = frame.transpose(2, 0, 1) if frame.ndim == 3 else frame[:, None, None]
            np.testing.assert_array_equal(stored["image"][t], shown)
            np.testing.assert_array_equal(stored["state"][t], info["state"])
            if "observation" in stored:
                np.testing.assert_array_equal(stored["observation"][t], core.task_observation())
            assert stored["reward"][t, 0] == np.float32(reward)


def test_random_episodes_are_the_environments_own(tmp_path: Path) -> None:
    data = gather(tmp_path / "data", episodes=5, num_envs=2, seed=7)
    assert [(e.lane, e.agent_steps) for e in episodes(data.store)] == [(0, 30)] * 3 + [(1, 30)] * 2
    assert data.store.spec.side == {"state": (2,), "observation": (4,)}
    assert_is_what_the_environment_gives(data, EnvSpec("short/toy", 16), 7)
    actions = np.concatenate([column(data, "action", e)[1:] for e in episodes(data.store)])
    assert abs(actions.mean()) < 0.15 and 0.5 < actions.std() < 0.65  # uniform: 0.577
    assert len(np.unique(actions[:, 0])) == len(actions)
    provenance = data.manifest["provenance"]
    assert provenance["policy"] == {"kind": "random"} and provenance["seed"] == 7 and provenance["num_envs"] == 2
    assert data.manifest["environment"]["suite"] == "toy" and "torch" in provenance["versions"]
    assert not (tmp_path / "data" / "collecting").exists() and data.frame_stack is None


def test_worker_processes_record_the_same(tmp_path: Path) -> None:
    here = gather(tmp_path / "here", episodes=3, num_envs=2)
    there = gather(tmp_path / "there", episodes=3, num_envs=2, env="run_tools:make_short")
    one, other = content(here.folder), content(there.folder)
    assert {name for name in one if one[name] != other[name]} == {"manifest"}


def test_agent_steps_are_reached_by_whole_episodes(tmp_path: Path) -> None:
    data = gather(tmp_path / "data", agent_steps=100, num_envs=3)  # shares of 34, 33 and 33 agent steps
    assert [(e.lane, e.agent_steps) for e in episodes(data.store)] == [(0, 30)] * 2 + [(1, 30)] * 2 + [(2, 30)] * 2
    assert data.manifest["transitions"] == 180


def test_more_environments_than_episodes(tmp_path: Path) -> None:
    assert gather(tmp_path / "data", episodes=2, num_envs=8).store.lanes == 2


@pytest.mark.parametrize(("policy", "low", "high"), [("random", -0.15, 0.15), ("smooth", 0.8, 0.95)])
def test_smooth_actions_remember_and_random_ones_do_not(policy: str, low: float, high: float, tmp_path: Path) -> None:
    data = gather(tmp_path / "data", episodes=20, num_envs=4, policy=policy)
    parts = [column(data, "action", e)[1:] for e in episodes(data.store)]
    before, after = (np.concatenate([part[s].ravel() for part in parts]) for s in (np.s_[:-1], np.s_[1:]))
    assert low < np.corrcoef(before, after)[0, 1] < high
    assert np.abs(before).max() <= 1


def test_the_script_gets_its_reward(tmp_path: Path) -> None:
    data = gather(tmp_path / "data", env="toy/maze_center", episodes=2, policy="scripted", observation="state")
    assert data.manifest["returns"]["min"] > 50 and data.store.spec.side == {"state": (2,)}
    assert data.store.spec.frame_shape == (4, 1, 1) and data.store.spec.frame_dtype == "float32"
    assert_is_what_the_environment_gives(data, EnvSpec("toy/maze_center", observation="state"), 1)
    noisy = gather(tmp_path / "noisy", env="toy/maze_center", episodes=2, policy="scripted", noise_std=0.5)
    assert noisy.manifest["provenance"]["noise_std"] == 0.5
    first, other = (column(d, "action", episodes(d.store)[0])[1:] for d in (data, noisy))
    assert 0.2 < (other - first)[:5].std() < 0.8 and np.abs(other).max() <= 1


# -- interruptions ----------------------------------------------------------------------------------------------------


def slow_child(out: str) -> None:
    """Record in a process of its own, with a checkpoint after every episode."""
    add_suite()
    collect(QUIET, Request(out=out, episodes=60, num_envs=3, policy="smooth", **SHORT), checkpoint_seconds=0)


def test_kill_9_and_continue_equals_an_uninterrupted_recording(tmp_path: Path) -> None:
    gather(tmp_path / "whole", episodes=60, num_envs=3, policy="smooth")
    out = tmp_path / "killed"

    def kept() -> int:
        file = out / "collecting" / "progress.json"
        return sum(json.loads(file.read_text())["state"]["counts"]) if file.exists() else 0

    before = 0
    for delay in (0.0, 0.03, 0.07):
        child = SERVER.Process(target=slow_child, args=(str(out),))
        child.start()
        while kept() <= before:
            assert child.is_alive(), "the child was too fast to be killed, or failed"
        child.join(delay)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        before = kept()
        assert 0 < before < 60 * 31 and before % 31 == 0
    gather(out, episodes=60, num_envs=3, policy="smooth")
    assert content(out) == content(tmp_path / "whole")


def test_ctrl_c_keeps_the_finished_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gather(tmp_path / "whole", episodes=4, num_envs=2)
    request, step, count = Request(out=str(tmp_path / "cut"), episodes=4, num_envs=2, **SHORT), VectorEnv.step, 0

    def interrupted(envs: VectorEnv, actions: np.ndarray) -> Any:
        nonlocal count
        count += 1
        if count == 45:
            os.kill(os.getpid(), signal.SIGINT)
        return step(envs, actions)

    monkeypatch.setattr(VectorEnv, "step", interrupted)
    shown = StringIO()
    assert collect(Console(stream=shown), request, checkpoint_seconds=1e9) == 130
    assert "stopped by SIGINT; the same command continues" in shown.getvalue()
    with pytest.raises(UserError, match="run the same collect command again"):
        open_dataset(tmp_path / "cut")
    assert collect(Console(stream=shown), request) == 0
    assert "2 episodes are recorded" in shown.getvalue() and "4 episodes, 120 agent steps" in shown.getvalue()
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_a_kill_while_the_dataset_is_written_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gather(tmp_path / "whole", episodes=2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(DatasetWriter, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        gather(tmp_path / "cut", episodes=2)
    gather(tmp_path / "cut", episodes=2)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


CRASHES: list[int] = []


class Crashing(ShortToy):
    """Fails in its tenth step as often as ``CRASHES`` says."""

    def step(self, action: Any) -> Any:
        if CRASHES and self._agent_step == 10:
            CRASHES.pop()
            raise ArithmeticError("the simulator diverged")
        return super().step(action)


def make_crashing(**options: Any) -> ShortToy:
    return Crashing(image_size=options["image_size"], seed=options["seed"])


def test_a_crashed_episode_leaves_no_rows(tmp_path: Path) -> None:
    CRASHES.append(1)
    shown = StringIO()
    request = Request(out=str(tmp_path / "data"), **{**SHORT, "env": "test_collect:make_crashing"}, episodes=2)
    assert collect(Console(stream=shown), request) == 0
    assert "the simulator diverged" in shown.getvalue()
    data = open_dataset(tmp_path / "data")
    assert [e.agent_steps for e in episodes(data.store)] == [30, 30]
    assert_is_what_the_environment_gives(data, EnvSpec("short/toy", 16), 1, first_number=1)


# -- trained policies -------------------------------------------------------------------------------------------------

TRAINING = (
    "preset=toy_maze+tiny", "env=toy/open_center", "num_envs=1", "updates_per_agent_step=0.25", "num_expl_steps=0",
    "num_train_steps=60", "num_random_steps=24", "num_seed_steps=24", "batch_size=12", "hidden_dim=16", "method=none",
    "num_eval_episodes=0", "save_video=false", "image_size=16", "log_save_tb=false", "threads=1",
)  # fmt: skip


def train(run_dir: Path, *more: str) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        add_suite(patch)
        threads = torch.get_num_threads()
        keys = {word.partition("=")[0]: word for word in (*TRAINING, *more)}
        assert main(["train", *keys.values(), f"run_dir={run_dir}"]) == 0
        torch.set_num_threads(threads)
    return run_dir


@pytest.fixture(scope="module")
def pixel_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield train(tmp_path_factory.mktemp("pixels") / "run", "encoder_gradient=critic")


@pytest.fixture(scope="module")
def state_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    words = ("observation=state", "frame_stack=1", "encoder_gradient=none")
    yield train(tmp_path_factory.mktemp("state") / "run", *words)


def chosen(run_dir: Path, observed: np.ndarray, stack: int) -> np.ndarray:
    """The run's actions [T, A] at the observations [T+1, C, H, W] of one episode, computed here."""
    trained = find_trained(str(run_dir))
    channels, height, width = observed.shape[1:]
    with VectorEnv(EnvSpec("toy/open_center", 16), 1, 0) as envs:
        source = replace(Source.of(envs), frame_shape=(channels, height, width))
    networks = build_networks(trained.config, source, torch.device("cpu"))
    load_agent(networks, str(trained.path))
    agent = build_agent(trained.config, networks, torch.device("cpu"))
    stacker = FrameStacker(1, (channels, height, width), stack, observed.dtype.name)
    stacker.begin(np.array([0]), observed[:1])
    actions = []
    for frame in observed[1:]:
        actions.append(agent.actions(stacker.frames, 10**9)[0])
        stacker.push(np.array([0]), frame[None])
    return np.array(actions)


def test_a_policy_on_pixels_acts_on_the_stack_that_it_records(pixel_run: Path, tmp_path: Path) -> None:
    request = {"env": None, "image_size": None, "action_repeat": None, "episodes": 3, "num_envs": 2}
    data = gather(tmp_path / "data", policy=str(pixel_run), **request)
    assert data.manifest["env"] == "toy/open_center" and data.frame_stack == 3
    assert data.store.spec.frame_shape == (3, 16, 16)
    about = data.manifest["provenance"]["policy"]
    assert about["kind"] == "trained" and about["agent_step"] == 60 and len(about["sha256"]) == 64
    assert data.manifest["provenance"]["config"]["batch_size"] == 12
    for episode in episodes(data.store):
        images, actions = column(data, "image", episode), column(data, "action", episode)
        np.testing.assert_allclose(actions[1:], chosen(pixel_run, images, 3), atol=1e-6)
    # The file itself serves as well as the directory; noise is added to the same means.
    file = next((pixel_run / "model").glob("task_agent_*"))
    noisy = gather(tmp_path / "noisy", policy=str(file), **request, noise_std=0.1)
    first, other = (column(d, "action", episodes(d.store)[0])[1] for d in (data, noisy))
    assert 0 < np.abs(first - other).max() < 0.6


def test_a_policy_on_state_records_pixels(state_run: Path, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"policy": str(state_run), "env": None, "episodes": 3, "num_envs": 2}
    pixels = gather(tmp_path / "pixels", **keys)
    vectors = gather(tmp_path / "vectors", **keys, observation="state")
    assert pixels.store.spec.frame_shape == (3, 16, 16) and pixels.store.spec.side["observation"] == (4,)
    assert vectors.store.spec.frame_shape == (4, 1, 1)
    assert pixels.frame_stack is None and vectors.frame_stack == 1
    for one, other in zip(episodes(pixels.store), episodes(vectors.store), strict=True):
        for name in ("action", "reward", "state", "is_last"):
            np.testing.assert_array_equal(column(pixels, name, one), column(vectors, name, other))
        beside = column(pixels, "observation", one)
        np.testing.assert_array_equal(beside, column(vectors, "image", other)[:, :, 0, 0])
        np.testing.assert_allclose(
            column(pixels, "action", one)[1:], chosen(state_run, beside[:, :, None, None], 1), atol=1e-6
        )
    assert np.ptp(column(pixels, "action", one)[1:], axis=0).max() > 0, "it looks at what it is shown"


def test_what_a_trained_policy_cannot_do(pixel_run: Path, state_run: Path, tmp_path: Path) -> None:
    def refused(message: str, **keys: Any) -> None:
        with pytest.raises(UserError, match=message):
            gather(tmp_path / "data", **{**SHORT, "env": None, "image_size": None, "episodes": 1, **keys})

    refused("acts on pixels, which observation=state does not draw", policy=str(pixel_run), observation="state")
    refused("acts on images of 16 pixels, not image_size=24", policy=str(pixel_run), image_size=24)
    refused(r"does not fit env=toy/maze as it is recorded", policy=str(state_run), env="toy/maze")
    blind = "test_collect:make_blind"
    refused("env=test_collect:make_blind has no state observation", policy=str(state_run), env=blind)
    encoder = pixel_run / "model" / "encoder.safetensors"
    refused("holds an encoder and no policy", policy=str(encoder))
    refused("no model/", policy=str(tmp_path))
    note = StringIO()
    request = Request(out=str(tmp_path / "note"), policy=str(pixel_run), env="short/toy", action_repeat=2, episodes=1)
    assert collect(Console(stream=note), request) == 0
    assert "learned with env=toy/open_center, it acts with short/toy" in note.getvalue()
    assert "learned with action_repeat=1, it acts with 2" in note.getvalue()


def make_blind(**options: Any) -> ShortToy:
    """No task observation."""
    env = make_short(image_size=options["image_size"])
    env.observation_dim = 0
    return env


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["episodes=0"], "episodes=0: at least one is recorded"),
        (["agent_steps=-5"], "agent_steps=-5: at least one is recorded"),
        ([], "either episodes=<n> or agent_steps=<n>"),
        (["episodes=1", "agent_steps=5"], "either episodes=<n> or agent_steps=<n>"),
        (["episodes=1", "policy=randm"], "unknown policy=randm: did you mean random?"),
        (["episodes=1", "policy=runs/none"], "or name a run directory or an agent file"),
        (["episodes=1", "policy=scripted"], "env=short/toy has no scripted policy"),
        (["episodes=1", "observation=stat"], "observation=stat: did you mean state?"),
        (["episodes=1", "num_envs=0"], "num_envs=0 must be at least 1\n"),
        (["episodes=1", "seed=-1"], "visrep collect: seed=-1 must be at least 0\n"),
        (["episodes=1", "render=foo"], "render=foo is unknown; choose auto, warp, egl, osmesa"),
        (["episodes=1", "out=a,b"], "out=a,b: no comma in it, data=<folder>,<folder> separates"),
        (["episodes=1", f"out={'x' * 300}"], "File name too long"),
        (["episodes=1", f"policy={'x' * 300}"], "or name a run directory or an agent file"),
        (["episodes=1", "noise_std=-1"], "noise_std=-1: a number from 0 up"),
        (["episodes=1", "noise_std=nan"], "noise_std=nan: a number from 0 up"),
        (["episodes=1", "image_size=0"], "image_size=0: at least 1"),
        (["episods=1"], "did you mean episodes?"),
        (["episodes=some"], "episodes=some: expected a whole number"),
        (["episodes=1", "env=toy/mazee"], "near: toy/maze"),
        (["episodes=1", "env=test_collect:make_endless"], "does not say its time limit"),
        (["episodes=100000000"], "are free: make room, record less"),
    ],
)
def test_bad_input(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = {word.partition("=")[0]: word for word in ("env=short/toy", f"out={tmp_path / 'data'}", *words)}
    assert main(["collect", *keys.values()]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "data" / "dataset.json").exists()


def make_endless(**options: Any) -> ShortToy:
    env = make_short(image_size=options["image_size"])
    env.max_agent_steps = None  # type: ignore[assignment]
    return env


def test_folders_that_hold_something_else(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing env="):
        gather(tmp_path / "data", env=None, episodes=1)
    gather(tmp_path / "data", episodes=1)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        gather(tmp_path / "file", episodes=1)
    with pytest.raises(UserError, match=r"is not empty and holds no dataset \(data, file\)"):
        gather(tmp_path, episodes=1)


def test_another_recording_is_not_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(DatasetWriter, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        gather(tmp_path, episodes=2)
    for other in ({"seed": 2}, {"policy": "smooth"}, {"noise_std": 0.1}, {"image_size": 24}, {"episodes": 3}):
        with pytest.raises(UserError, match="unfinished collection of other data") as caught:
            gather(tmp_path, **{"episodes": 2, **other})
        ((key, value),) = other.items()
        _, line, _ = str(caught.value).splitlines()
        assert line.startswith(f"  {key}: ") and line.endswith(f" there, {value} asked for")
    with pytest.raises(UserError, match=r"data:\n  num_envs: 1 there, 8 asked for\nuse"):
        gather(tmp_path, episodes=2, num_envs=8)
    with pytest.raises(UserError, match=r"data:\n  episodes: 2 there, 4 asked for\n  num_envs: 1 there, 2 asked for\n"):
        gather(tmp_path, episodes=4, num_envs=2)
    gather(tmp_path, episodes=2)


def test_a_finished_recording_is_left_as_it_is(tmp_path: Path) -> None:
    keys: dict[str, Any] = {**SHORT, "out": str(tmp_path / "data"), "episodes": 2, "num_envs": 8}
    assert collect(QUIET, Request(**keys)) == 0
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "data").glob("*.*")}
    shown = StringIO()
    assert collect(Console(stream=shown), Request(**keys)) == 0
    assert shown.getvalue().startswith("this dataset is finished already: 2 episodes, 60 agent steps, mean return ")
    assert collect(Console(stream=shown), Request(**{**keys, "num_envs": 2})) == 0, "two episodes, two environments"
    refusals = (
        ({"seed": 5}, "seed: 1 there, 5 asked for"),
        ({"image_size": 24, "noise_std": 0.5}, "image_size: 16 there, 24 asked for\n  noise_std: 0.0 there, 0.5 asked"),
        ({"episodes": 3}, "episodes: 2 there, 3 asked for"),
        ({"num_envs": 1}, "num_envs: 2 there, 1 asked for"),
        ({"env": "toy/maze"}, "env: short/toy there, toy/maze asked for"),
        ({"env": "toy/maze", "observation": "state"},
         "env: short/toy there, toy/maze asked for\n  observation: pixels there, state asked for"),
        ({"episodes": None, "agent_steps": 9}, "episodes: 2 there, nothing asked for\n  agent_steps: nothing there, 9"),
    )  # fmt: skip
    for other, says in refusals:
        with pytest.raises(UserError, match="holds a finished dataset of other data") as caught:
            collect(QUIET, Request(**{**keys, **other}))
        said = str(caught.value)
        assert f"data:\n  {says}" in said and "delete" not in said and len(said.splitlines()) == 3 + says.count("\n")
    manifest = tmp_path / "data" / "dataset.json"
    about = json.loads(manifest.read_text())
    about["environment"]["versions"]["drawing"] = 1
    text = json.dumps(about)
    manifest.write_text(text)
    assert collect(Console(stream=shown), Request(**keys)) == 0
    assert "recorded under other conditions: versions.drawing: 1 there, 2 here" in shown.getvalue()
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "data").glob("*.npy")}
    assert manifest.read_text() == text and before.items() >= after.items()
    del about["provenance"]["asked_for"]
    manifest.write_text(json.dumps(about))
    with pytest.raises(UserError, match="that visrep collect did not record: choose another out"):
        collect(QUIET, Request(**keys))


def test_a_place_that_is_write_protected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refused)  # the superuser may write anywhere
    with pytest.raises(UserError, match=r"Permission denied.: choose another folder or change its permissions"):
        gather(tmp_path / "data", episodes=1)


def test_an_empty_out_is_no_folder() -> None:
    for out in ("", " "):
        with pytest.raises(UserError, match="out is empty: name a folder"):
            Request(out=out, episodes=1)


def test_progress_counts_towards_whole_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visrep.console.PLAIN_SECONDS", 0.0)  # a line for every agent step
    shown = StringIO()
    request = Request(out=str(tmp_path / "data"), agent_steps=100, num_envs=3, **SHORT)
    assert collect(Console(stream=shown), request) == 0
    shares = [line.split()[1:3] for line in shown.getvalue().splitlines() if line.startswith("collect: ")]
    assert shares[-1] == ["180/180", "(100"] and max(int(share.strip("(")) for _, share in shares) == 100


def test_episodes_too_short_for_the_room(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"out": str(tmp_path / "data"), **SHORT, "env": "test_collect:make_shortest"}
    with pytest.raises(UserError, match="ask for episodes=<n> instead"):
        collect(QUIET, Request(**keys, agent_steps=300))
    assert collect(QUIET, Request(**{**keys, "out": str(tmp_path / "other")}, episodes=300)) == 0
    assert open_dataset(tmp_path / "other").manifest["transitions"] == 300


class Shortest(ShortToy):
    """Truly ends after one agent step, and says it might take 30."""

    def step(self, action: Any) -> Any:
        frame, reward, _, _, info = super().step(action)
        return frame, reward, True, False, info


def make_shortest(**options: Any) -> ShortToy:
    return Shortest(image_size=options["image_size"], seed=options["seed"])


def test_help_names_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collect", "--help"]) == 0
    assert "noise_std        of Gaussian noise" in capsys.readouterr().out


def test_a_control_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dm_control")
    pytest.importorskip("mujoco_warp")
    monkeypatch.setenv("MUJOCO_GL", "disabled")  # set by environments made in this process
    keys: dict[str, Any] = {"env": "cartpole_swingup", "episodes": 2, "action_repeat": 100}
    data = gather(tmp_path / "pixels", **keys, policy="smooth", render="warp")
    assert data.store.spec.side == {"state": (4,), "observation": (5,)} and data.manifest["transitions"] == 20
    vectors = gather(tmp_path / "state", **keys, policy="smooth", observation="state")
    for one, other in zip(episodes(data.store), episodes(vectors.store), strict=True):
        np.testing.assert_array_equal(column(data, "observation", one), column(vectors, "image", other)[:, :, 0, 0])
        assert column(data, "image", one).std() > 1
