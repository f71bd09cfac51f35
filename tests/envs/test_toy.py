"""toy: geometry, pixels, rewards, coverage, and Gymnasium's own checker."""

from __future__ import annotations

import math
import time
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from visrep.envs.toy import EPISODE_AGENT_STEPS, GOAL_RADIUS, STEP, TASKS, ToyMaze, make
from visrep.envs.toy_layouts import LAYOUTS, cell_table, inside_wall, slide
from visrep.envs.toy_render import AGENT, AGENT_RADIUS, FLOOR, Painter, background
from visrep.errors import UserError


@pytest.mark.parametrize(("task", "size"), [("maze", 84), ("maze_center", 24), ("cross_bottom_right", 16)])
def test_gymnasium_checker(task: str, size: int) -> None:
    # Registered, so that the checker can also build it anew and try its render modes; nothing is skipped.
    name = f"visrep-test/{task.replace('_', '-')}-{size}-v0"
    gym.register(name, entry_point="visrep.envs.toy:ToyMaze", kwargs={"task": task, "image_size": size})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(name).unwrapped)
        check_env(gym.make(name, render_mode="rgb_array").unwrapped)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_task_runs_to_the_time_limit(task: str) -> None:
    env = make(task, image_size=24)
    frame, info = env.reset(seed=3)
    assert frame.shape == (24, 24, 3) and frame.dtype == np.uint8
    assert ("success" in info) == (env.goal is not None)
    for step in range(EPISODE_AGENT_STEPS):
        frame, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert not terminated and truncated == (step == EPISODE_AGENT_STEPS - 1)
        assert env.observation_space.contains(frame) and isinstance(reward, float)


def test_episode_is_a_function_of_seed_and_actions() -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (50, 2)).astype(np.float32)

    def play(seed: int, before: int) -> list[bytes]:
        env = make("maze_center", image_size=32, seed=9)
        for _ in range(before):  # earlier episodes leave no trace
            env.reset()
            env.step(actions[0])
        frames = [env.reset(seed=seed)[0].tobytes()]
        return frames + [env.step(action)[0].tobytes() for action in actions]

    assert play(5, 0) == play(5, 3)
    assert play(5, 0) != play(6, 0)


@settings(max_examples=60, deadline=None)
@given(
    layout=st.sampled_from(sorted(LAYOUTS)),
    seed=st.integers(0, 2**32 - 1),
    reach=st.sampled_from([0.02, 0.1, 0.7, 3.0]),
)
def test_walls_hold_at_any_step_length(layout: str, seed: int, reach: float) -> None:
    rng = np.random.default_rng(seed)
    walls = LAYOUTS[layout].walls
    x0, y0, x1, y1 = LAYOUTS[layout].start
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    for dx, dy in rng.uniform(-reach, reach, (60, 2)).tolist():
        old = (x, y)
        x, y = slide(walls, x, y, dx, dy)
        assert 0.0 <= x <= 1.0 and 0.0 <= y <= 1.0
        # Nowhere on the two legs of the move is the point inside a wall: it neither stops in one nor jumps across.
        for t in np.linspace(0.0, 1.0, 200):
            assert not inside_wall(walls, old[0] + t * (x - old[0]), old[1])
            assert not inside_wall(walls, x, old[1] + t * (y - old[1]))


def test_the_point_slides_along_a_wall() -> None:
    walls = LAYOUTS["s3"].walls
    face = walls[0][0]
    x, y = slide(walls, face - 0.01, 0.3, 0.02, 0.02)
    assert x == face and y == pytest.approx(0.32)
    assert slide(walls, x, y, -0.02, 0.0)[0] == pytest.approx(face - 0.02)  # and can leave it


def test_s3_is_three_rooms_joined_at_opposite_ends() -> None:
    walls = LAYOUTS["s3"].walls
    assert all(x1 - x0 == pytest.approx(0.06) for x0, _, x1, _ in walls)
    x, y = 0.1, 0.1
    rooms = set()
    for dx, dy in [(0, 1), (1, 0), (0, -1), (1, 0), (0, 1)]:  # up, right, down, right, up
        for _ in range(60):
            x, y = slide(walls, x, y, dx * STEP, dy * STEP)
            rooms.add(0 if x <= walls[0][0] else 2 if x >= walls[1][2] else 1)
        if dy:
            assert y in (0.0, 1.0)
        else:
            assert x == min([w[0] for w in walls if w[0] >= x], default=1.0)  # stopped by the next wall or the rim
    assert rooms == {0, 1, 2} and (x, y) == (1.0, 1.0)


def test_starts_stay_in_the_start_region() -> None:
    for task, (layout, _) in TASKS.items():
        env = make(task, image_size=16)
        x0, y0, x1, y1 = LAYOUTS[layout].start
        states = np.array([env.reset(seed=seed)[1]["state"] for seed in range(50)])
        assert (states >= (x0, y0)).all() and (states <= (x1, y1)).all() and states.std(axis=0).min() > 0.01
        assert not any(inside_wall(LAYOUTS[layout].walls, *state) for state in states.tolist())


def test_action_is_clipped_and_scaled_and_repeated() -> None:
    env = make("open", image_size=24, action_repeat=3)
    start = env.reset(seed=0)[1]["state"]
    state = env.step(np.array([5.0, 0.5], np.float32))[4]["state"]
    np.testing.assert_allclose(state - start, [3 * STEP, 1.5 * STEP], atol=1e-6)


def test_not_a_number_is_refused() -> None:
    env = make("maze", image_size=16)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="not finite"):
        env.step(np.array([np.nan, 0.0], np.float32))


def _walk_to(env: ToyMaze, goal: tuple[float, float]) -> list[tuple[float, bool]]:
    rows = []
    state = env.reset(seed=1)[1]["state"]
    for _ in range(EPISODE_AGENT_STEPS):
        action = np.clip((np.array(goal) - state) / (STEP * env.action_repeat), -1, 1).astype(np.float32)
        _, reward, _, _, info = env.step(action)
        state = info["state"]
        rows.append((reward, info["success"]))
    return rows


@pytest.mark.parametrize("repeat", [1, 2])
def test_goal_pays_per_frame_inside_and_success_stays(repeat: int) -> None:
    env = make("open_center", image_size=16, action_repeat=repeat)
    rows = _walk_to(env, (0.5, 0.5))
    rewards = [reward for reward, _ in rows]
    assert rewards[0] == 0.0 and rewards[-1] == float(repeat)
    assert [success for _, success in rows] == [any(rewards[: i + 1]) for i in range(len(rewards))]
    assert env.reset(seed=1)[1]["success"] is False
    x, y = env.goal or (0, 0)
    env._x, env._y = x + GOAL_RADIUS + STEP * repeat, y
    env.step(np.array([-0.01, 0.0], np.float32))
    assert env._success is False


def test_reward_free_task_pays_nothing_and_success_is_absent() -> None:
    env = make("maze", image_size=16)
    assert set(env.reset(seed=0)[1]) == {"state"}
    assert all(env.step(env.action_space.sample())[1] == 0.0 for _ in range(100))


def test_goal_is_not_drawn_unless_asked() -> None:
    plain, goal = make("maze", image_size=84), make("maze_far", image_size=84)
    shown = ToyMaze("maze_far", image_size=84, show_goal=True)
    np.testing.assert_array_equal(plain.reset(seed=4)[0], goal.reset(seed=4)[0])
    assert (shown.reset(seed=4)[0] != goal.reset(seed=4)[0]).any()


def _slow_draw(x: float, y: float, size: int, samples: int = 16) -> np.ndarray:
    """The agent over the open arena by brute force: the share of samples in each pixel that lie in the disc."""
    image = np.zeros((size, size, 3))
    grid = (np.arange(samples) + 0.5) / samples
    for row in range(size):
        for column in range(size):
            inside = 0
            for b in grid:
                for a in grid:
                    px, py = (column + a) / size, 1.0 - (row + b) / size
                    inside += math.hypot(px - x, py - y) <= AGENT_RADIUS
            share = inside / samples**2
            image[row, column] = share * np.array(AGENT) + (1 - share) * np.array(FLOOR)
    return image


@pytest.mark.parametrize(("x", "y"), [(0.5, 0.5), (0.313, 0.771), (0.0, 0.0), (1.0, 1.0), (0.01, 0.97)])
def test_disc_matches_brute_force(x: float, y: float) -> None:
    drawn = Painter(background("open", 20)).draw(x, y).astype(float)
    # 1/32 pixel of phase error and a linear edge instead of the exact area: at most a tenth of the contrast.
    assert np.abs(drawn - _slow_draw(x, y, 20)).max() <= 0.1 * (AGENT[0] - FLOOR[0]) + 1


@pytest.mark.parametrize("size", [16, 24, 25, 42, 64, 84, 128])
def test_position_can_be_read_from_the_pixels(size: int) -> None:
    painter, empty = Painter(background("open", size)), background("open", size).astype(float)
    for x, y in np.random.default_rng(0).uniform(0.15, 0.85, (50, 2)):
        ink = (painter.draw(x, y).astype(float) - empty).sum(-1)  # the disc is brighter than the floor in every channel
        centres = (np.arange(size) + 0.5) / size
        seen = (ink.sum(0) @ centres / ink.sum(), 1.0 - ink.sum(1) @ centres / ink.sum())
        np.testing.assert_allclose(seen, (x, y), atol=0.13 / size)


def test_small_moves_change_pixels() -> None:
    painter = Painter(background("s3", 24))
    for x in np.linspace(0.0, 1.0, 97):
        for dx, dy in [(STEP, 0.0), (0.0, STEP), (-STEP / 4, 0.0)]:
            a, b = painter.draw(x, 0.4), painter.draw(min(max(x + dx, 0.0), 1.0), 0.4 + dy)
            if 0.0 <= x + dx <= 1.0:
                assert np.abs(a.astype(int) - b.astype(int)).max() >= 8


def test_background_is_never_drawn_on() -> None:
    env = make("maze", image_size=24)
    before = env.draw_map(24)
    env.reset(seed=0)[0][:] = 0
    np.testing.assert_array_equal(env.draw_map(24), before)


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_coverage_cells(layout: str) -> None:
    env = make(layout, image_size=16)
    centers = env.cell_centers
    assert centers.shape == (env.num_cells, 2) and 300 < env.num_cells <= 400
    np.testing.assert_array_equal(env.coverage_cells(centers), np.arange(env.num_cells))
    assert not any(inside_wall(LAYOUTS[layout].walls, *center) for center in centers.tolist())
    corners = env.coverage_cells(np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]], np.float32))
    assert (corners >= 0).all() and len(set(corners.tolist())) == 4
    for x0, y0, x1, y1 in LAYOUTS[layout].walls:
        assert env.coverage_cells(np.array([[(x0 + x1) / 2, (y0 + y1) / 2]]))[0] == -1


def test_cells_behind_a_closed_wall_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    closed = replace(LAYOUTS["one_wall"], walls=((0.47, 0.0, 0.53, 1.0),))
    monkeypatch.setitem(LAYOUTS, "closed", closed)
    table = cell_table("closed")
    assert (table[:9] >= 0).all() and (table[9:] == -1).all()


def test_goals_can_be_reached() -> None:
    for task, (layout, goal) in TASKS.items():
        if goal:
            env = make(task, image_size=16)
            assert env.coverage_cells(np.array([LAYOUTS[layout].goals[goal]]))[0] >= 0
            start = np.array(LAYOUTS[layout].start).reshape(2, 2)
            gap = np.maximum(np.maximum(start[0] - env.goal, env.goal - start[1]), 0)
            assert np.hypot(*gap) > 2 * GOAL_RADIUS, f"{task} starts at its goal"


def test_bad_arguments_name_the_fix() -> None:
    with pytest.raises(UserError, match="maze_center"):
        ToyMaze("maze_centre")
    with pytest.raises(UserError, match="image_size >= 16"):
        make("maze", image_size=8)
    with pytest.raises(UserError, match="action_repeat"):
        make("maze", action_repeat=0)
    with pytest.raises(UserError, match="camera"):
        make("maze", camera=2)


def test_fingerprint_tells_images_apart() -> None:
    prints = [
        make("maze", image_size=size, action_repeat=repeat).fingerprint() for size in (24, 84) for repeat in (1, 2)
    ]
    assert len({repr(p) for p in prints}) == 4 and prints[0]["renderer"] == "numpy"


def test_frames_per_second() -> None:
    # CPU seconds: what other processes do meanwhile is not this test's business.
    env = make("maze", image_size=84)
    actions = np.random.default_rng(0).uniform(-1, 1, (2000, 2)).astype(np.float32)
    rates = []
    for _ in range(4):
        env.reset(seed=0)
        began = time.process_time()
        for action in actions:
            env.step(action)
        rates.append(len(actions) / (time.process_time() - began))
    assert max(rates) >= 10_000
