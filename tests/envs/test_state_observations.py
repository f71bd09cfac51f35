"""observation=state: the task's own vector instead of images, nothing drawn; and beside images, as a side channel."""

from __future__ import annotations

import os
import signal
import warnings
from typing import Any

import failing_env
import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from visrep.encoders import InputContract, build_encoder
from visrep.envs import toy
from visrep.envs.make import make_env
from visrep.envs.toy_layouts import LAYOUTS
from visrep.envs.vector import EnvSpec, FirstRows, VectorEnv, VectorStep
from visrep.errors import UserError

STATE = EnvSpec("toy/maze_center", observation="state")
BOTH_CHANNELS = EnvSpec("toy/maze_center", image_size=16, with_observation=True)
BOTH = pytest.mark.parametrize("processes", [False, True], ids=["in-process", "processes"])


def actions(steps: int, lanes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, lanes, 2)).astype(np.float32)


def flat(rows: VectorStep | FirstRows | None) -> Any:
    values = [] if rows is None else vars(rows).values()
    return [v.tobytes() if isinstance(v, np.ndarray) else flat(v) if isinstance(v, FirstRows) else v for v in values]


def test_gymnasium_accepts_the_toy() -> None:
    options = {"task": "maze_center", "observation": "state"}
    gym.register("visrep-test/toy-state-v0", entry_point="visrep.envs.toy:ToyMaze", kwargs=options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make("visrep-test/toy-state-v0").unwrapped)
        check_env(gym.make("visrep-test/toy-state-v0", render_mode="rgb_array").unwrapped)


def test_the_toy_shows_the_point_and_the_goal_and_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy, "Painter", None)
    for task, goal in (("maze_center", LAYOUTS["s3"].goals["center"]), ("maze", ())):
        env = make_env(f"toy/{task}", observation="state")
        seen, info = env.reset(seed=3)
        for action in actions(20, 1)[:, 0]:
            np.testing.assert_array_equal(seen, np.array([*info["state"], *goal], np.float32))
            assert env.observation_space.contains(seen)
            seen, *_, info = env.step(action)
    with pytest.raises(TypeError):  # the test can fail: pixels do need the painter
        make_env("toy/maze").reset(seed=0)


@BOTH
def test_a_vector_is_a_frame_of_one_pixel(processes: bool) -> None:
    with VectorEnv(STATE, 3, 7, processes) as env:
        assert env.frame_shape == (4, 1, 1) and env.frame_dtype == "float32" and env.observation_dim == 0
        assert env.observation_space.shape == (4, 1, 1) and env.observation_space.dtype == np.float32
        assert env.fingerprint["observation"] == "state" and env.fingerprint["renderer"] == "none"
        first = env.reset()
        assert first.frames.shape == (3, 4, 1, 1) and first.frames.dtype == np.float32 and first.observation is None
        for t, action in enumerate(actions(201, 3)):
            step = env.step(action)
            assert step.state is not None and step.frames.dtype == np.float32
            np.testing.assert_array_equal(step.frames[:, :2, 0, 0], step.state)
            np.testing.assert_array_equal(step.frames[:, 2:, 0, 0], np.full((3, 2), 0.5, np.float32))
            if t == 199:  # every lane begins its next episode, where it starts
                assert step.is_last.all() and step.reset is not None and step.reset.state is not None
                np.testing.assert_array_equal(step.reset.frames[:, :2, 0, 0], step.reset.state)
                assert (step.reset.state != step.state).any(axis=1).all()
        encoder = build_encoder("vector", InputContract(1, 1, channels=4, stack=1))
        np.testing.assert_array_equal(encoder(torch.from_numpy(step.frames)).numpy(), step.frames[:, :, 0, 0])


@pytest.mark.parametrize("spec", [STATE, BOTH_CHANNELS], ids=["state", "beside pixels"])
def test_processes_agree_and_resume_bit_for_bit(spec: EnvSpec) -> None:
    moves, runs = actions(230, 2), []
    for processes in (False, True):
        with VectorEnv(spec, 2, 3, processes) as env:
            runs.append([flat(env.reset())] + [flat(env.step(a)) for a in moves])
    assert runs[0] == runs[1]
    with VectorEnv(spec, 2, 3, True) as env, VectorEnv(spec, 2, 3, True) as again:
        env.reset()
        for action in moves[:210]:
            step = env.step(action)
        current = again.load_state_dict(env.state_dict())
        assert flat(current) == flat(FirstRows(step.lanes, step.frames, step.state, step.observation))
        assert [flat(again.step(a)) for a in moves[210:]] == runs[0][211:]


def test_pixels_and_the_observation_beside_them_are_those_of_either_alone() -> None:
    pixels = EnvSpec("toy/maze_center", image_size=16)
    with VectorEnv(pixels, 2, 3) as one, VectorEnv(STATE, 2, 3) as other, VectorEnv(BOTH_CHANNELS, 2, 3) as both:
        assert both.observation_dim == 4 and one.observation_dim == 0 and both.frame_dtype == "uint8"
        rows = [(one.reset(), other.reset(), both.reset())]
        steps = [tuple(env.step(a) for env in (one, other, both)) for a in actions(201, 2)]
        rows += [tuple(step.reset for step in some) for some in steps if some[0].reset]  # type: ignore[misc]
        assert len(rows) == 2
        for image, vector, joint in [*rows, *steps]:
            np.testing.assert_array_equal(joint.frames, image.frames)
            assert image.observation is None and joint.observation is not None
            np.testing.assert_array_equal(joint.observation, vector.frames[:, :, 0, 0])
            np.testing.assert_array_equal(joint.state, vector.state)


@BOTH
@pytest.mark.parametrize("channels", [{"observation": "state"}, {"with_observation": True}], ids=str)
def test_a_crashed_lane_comes_back(channels: dict[str, Any], processes: bool) -> None:
    spec = EnvSpec("failing_env:on_trigger", 16, **channels)
    moves = actions(20, 2)
    moves[5, 1, 0] = failing_env.TRIGGER
    with VectorEnv(spec, 2, 0, processes) as env:
        env.reset()
        steps = [env.step(a) for a in moves]
        if processes:
            os.kill(env.pids[0], signal.SIGKILL)
            killed = env.step(moves[0])
            assert killed.lanes.tolist() == [1] and killed.reset is not None and killed.reset.lanes.tolist() == [0]
    assert steps[5].lanes.tolist() == [0] and "the simulator diverged" in steps[5].crashed[0]
    fresh = steps[5].reset
    assert fresh is not None and fresh.lanes.tolist() == [1] and fresh.state is not None
    seen = fresh.frames[:, :, 0, 0] if spec.observation == "state" else fresh.observation
    assert seen is not None
    np.testing.assert_array_equal(seen, fresh.state)  # this toy has no goal
    assert all(step.lanes.tolist() == [0, 1] for step in steps[6:])


@BOTH
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (EnvSpec("failing_env:images_only", 16, observation="state"), "has no state observation"),
        (EnvSpec("failing_env:no_observation", 16, observation="state"), "must give float32 vectors"),
        (EnvSpec("toy/maze", 16, observation="smell"), "choose pixels or state"),  # type: ignore[arg-type]
    ],
)
def test_environments_without_one_are_refused(spec: EnvSpec, message: str, processes: bool) -> None:
    with pytest.raises(UserError, match=message):
        VectorEnv(spec, 1, 0, processes)


def test_own_environments_need_not_know_of_it() -> None:
    with VectorEnv(EnvSpec("failing_env:no_observation", 16, with_observation=True), 1, 0) as env:
        assert env.observation_dim == 0 and env.reset().observation is None
    with VectorEnv(EnvSpec("failing_env:images_only", 16), 1, 0) as env:
        assert env.reset().frames.shape == (1, 3, 16, 16)


def test_each_lane_can_begin_where_it_is_told() -> None:
    with VectorEnv(STATE, 2, 3) as env, VectorEnv(STATE, 2, 3) as other:
        first = env.begin(np.array([4, 1]))
        assert env.episodes.tolist() == [4, 1]
        for lane, episode in ((0, 4), (1, 1)):
            np.testing.assert_array_equal(first.frames[lane], other.reset(episode).frames[lane])
