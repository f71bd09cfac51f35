"""The DeepMind Control environments: names, time limits, action repeat, and episodes that can be replayed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

pytest.importorskip("dm_control")
pytest.importorskip("mujoco_warp")

from gymnasium.utils.env_checker import check_env

from visrep.envs import dmc, rendering
from visrep.errors import UserError


@pytest.fixture(autouse=True)
def parents_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making an environment may set MUJOCO_GL; later tests see it as it was."""
    monkeypatch.setenv("MUJOCO_GL", "disabled")


class Blank:
    """A renderer for tests about physics."""

    draws = 0

    def reset(self, physics: Any) -> None:
        pass

    def render(self, physics: Any) -> np.ndarray:
        self.draws += 1
        return np.zeros((8, 8, 3), np.uint8)


@pytest.fixture
def blank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dmc, "make_renderer", lambda *_: Blank())


def make(task: str, **options: Any) -> Any:
    return dmc.make(task, **{"image_size": 32, "render": "warp", **options})


def play(env: Any, seed: int, agent_steps: int) -> tuple[list[float], np.ndarray, np.ndarray]:
    """Rewards, mujoco's whole integration state and the frames of an episode with actions of their own generator."""
    import mujoco

    rng = np.random.default_rng(5)
    frames, rewards = [env.reset(seed=seed)[0]], []
    for _ in range(agent_steps):
        frame, reward, *_ = env.step(rng.uniform(-1, 1, env.action_space.shape).astype(np.float32))
        frames.append(frame)
        rewards.append(reward)
    state = env.physics.get_state(int(mujoco.mjtState.mjSTATE_INTEGRATION))
    return rewards, state, np.stack(frames)


def test_tasks_are_those_of_the_installed_dm_control() -> None:
    rendering.prepare_process("warp")
    from dm_control import manipulation, suite

    vision = manipulation.get_environments_by_tag("vision")
    expected = [f"{d}_{t}" for d, t in suite.ALL_TASKS] + [f"manip_{n.removesuffix('_vision')}" for n in vision]
    assert dmc.list_tasks() == sorted(expected)
    assert all(name.replace("_vision", "_features") in manipulation.ALL for name in vision)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("ball_in_cup_catch", ("ball_in_cup", "catch")),
        ("point_mass_easy", ("point_mass", "easy")),
        ("humanoid_CMU_walk", ("humanoid_CMU", "walk")),
        ("cartpole_swingup_sparse", ("cartpole", "swingup_sparse")),
        ("stacker_stack_2", ("stacker", "stack_2")),
    ],
)
def test_names_split_into_domain_and_task(name: str, parts: tuple[str, str]) -> None:
    assert dmc._SUITE_NAMES[name] == parts


def test_unknown_names_and_cameras_are_user_errors(blank: None) -> None:
    with pytest.raises(UserError, match="cheetah_run"):
        make("cheetah_rum")
    with pytest.raises(UserError, match="cameras 0 to 1"):
        make("cheetah_run", camera=2)
    with pytest.raises(UserError, match="action_repeat=0"):
        make("cheetah_run", action_repeat=0)
    with pytest.raises(UserError, match="render=vulkan"):
        make("cheetah_run", render="vulkan")


def test_mujoco_4_is_refused_with_the_line_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_version", lambda name: "4.0.0")
    with pytest.raises(UserError, match=r"pip install 'mujoco>=3.17,<4'"):
        make("cheetah_run")


def test_gymnasium_accepts_it() -> None:
    env = make("cheetah_run", action_repeat=2)
    check_env(env, skip_render_check=True)
    observation, info = env.reset(seed=0)
    assert observation.shape == (32, 32, 3) and observation.dtype == np.uint8 and observation.std() > 10
    assert info["state"].shape == (env.state_dim,) and info["state"].dtype == np.float32
    print_ready = json.loads(json.dumps(env.fingerprint()))
    assert print_ready["renderer"] == "warp" and print_ready["camera"] == 0 and "mujoco" in print_ready["versions"]


@pytest.mark.parametrize("task", ["cheetah_run", "ball_in_cup_catch"])
def test_replayed_episode_is_identical_with_its_frames(task: str) -> None:
    env = make(task, action_repeat=2)
    first = play(env, seed=7, agent_steps=20)
    other = play(env, seed=8, agent_steps=15)
    again = play(env, seed=7, agent_steps=20)
    fresh = play(make(task, action_repeat=2), seed=7, agent_steps=20)
    for replay in (again, fresh):
        assert replay[0] == first[0]
        np.testing.assert_array_equal(replay[1], first[1])
        np.testing.assert_array_equal(replay[2], first[2])
    assert not np.array_equal(other[2][0], first[2][0])


@pytest.mark.parametrize(
    "task",
    [
        "reacher_hard",
        "point_mass_hard",
        "finger_turn_hard",
        "manipulator_bring_peg",
        "manip_reassemble_5_bricks_random_order",
    ],
)
def test_tasks_that_edit_their_model_replay_too(task: str, blank: None) -> None:
    env = make(task)
    first = play(env, seed=3, agent_steps=6)
    play(env, seed=4, agent_steps=4)
    again = play(env, seed=3, agent_steps=6)
    assert again[0] == first[0]
    np.testing.assert_array_equal(again[1], first[1])


def test_reset_without_seed_continues_the_sequence(blank: None) -> None:
    states = [make("cheetah_run", seed=s).reset()[1]["state"] for s in (1, 1, 2)]
    np.testing.assert_array_equal(states[0], states[1])
    assert not np.array_equal(states[0], states[2])
    env = make("cheetah_run")
    env.reset(seed=1)
    assert not np.array_equal(env.reset()[1]["state"], states[0])


def test_action_repeat_sums_rewards_and_draws_once(blank: None) -> None:
    single, repeated = make("cheetah_run"), make("cheetah_run", action_repeat=4)
    single.reset(seed=0), repeated.reset(seed=0)
    action = np.full(6, 0.5, np.float32)
    steps = [single.step(action) for _ in range(4)]
    draws = repeated._renderer.draws
    _, reward, _, _, info = repeated.step(action)
    assert reward == sum(step[1] for step in steps) and repeated._renderer.draws == draws + 1
    np.testing.assert_array_equal(info["state"], steps[-1][4]["state"])
    assert repeated.max_agent_steps == 250


@pytest.mark.parametrize(("action_repeat", "agent_steps"), [(1, 1000), (3, 334)])
def test_time_limit_truncates(action_repeat: int, agent_steps: int, blank: None) -> None:
    env = make("cartpole_balance", action_repeat=action_repeat)
    env.reset(seed=0)
    assert env.max_agent_steps == agent_steps
    action = np.zeros(1, np.float32)
    for _ in range(agent_steps - 1):
        assert env.step(action)[2:4] == (False, False)
    assert env.step(action)[2:4] == (False, True)
    with pytest.raises(RuntimeError, match="reset"):
        env.step(action)


@pytest.mark.parametrize(("discount", "ends"), [(0.0, (True, False)), (1.0, (False, True)), (None, (False, False))])
def test_discount_zero_is_a_true_end(discount: float | None, ends: tuple[bool, bool], blank: None) -> None:
    env = make("cartpole_balance", action_repeat=2)
    env.reset(seed=0)
    env._env.task.get_termination = lambda physics: discount
    assert env.step(np.zeros(1, np.float32))[2:4] == ends


def test_missing_reward_counts_as_zero(blank: None) -> None:
    env = make("cartpole_balance")
    env.reset(seed=0)
    env._env.task.get_reward = lambda physics: None
    assert env.step(np.zeros(1, np.float32))[1] == 0.0


def test_actions_span_the_actuators_range(blank: None) -> None:
    env = make("manip_reach_duplo")
    env.reset(seed=0)
    spec, taken = env._env.action_spec(), []
    step = env._env.step
    env._env.step = lambda control: taken.append(control) or step(control)
    for value in (-1.0, 1.0, 0.0):
        env.step(np.full(spec.shape, value, np.float32))
    np.testing.assert_allclose(taken, [spec.minimum, spec.maximum, (spec.minimum + spec.maximum) / 2], atol=1e-12)
    assert not np.allclose(spec.maximum, 1.0)


def test_cameras_and_endless_tasks(blank: None) -> None:
    assert make("quadruped_walk").fingerprint()["camera"] == 2
    assert make("quadruped_walk", camera=0).fingerprint()["camera"] == 0
    manipulation = make("manip_reach_duplo")
    assert manipulation.physics.model.id2name(manipulation.fingerprint()["camera"], "camera") == "front_close"
    assert make("lqr_lqr_2_1", action_repeat=2).max_agent_steps == dmc.ENDLESS_TASK_FRAMES // 2


def test_terrain_reset_asks_for_no_graphics_while_warp_draws(blank: None) -> None:
    env = make("quadruped_walk")
    with env.physics.contexts.gl.make_current() as context:
        context.call(type("upload", (), {"__name__": "mjr_uploadHField"})())
        with pytest.raises(RuntimeError, match="drawn by warp"):
            context.call(print)
