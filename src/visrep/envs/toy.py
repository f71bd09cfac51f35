"""toy: a point in a walled arena, seen from above. Drawn in NumPy, so it needs no simulator and no renderer.

Tasks are layout x goal: ``maze`` is the reward-free three-room arena ``s3``, ``maze_center`` the same arena with a
goal in its centre, ``<layout>`` and ``<layout>_<goal>`` the others (see ``toy_layouts.LAYOUTS``).
Shapes: S image size, N rows or cells.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from visrep.envs.contract import Action, Frame, Observation, Observed, PixelEnv, Script
from visrep.envs.toy_layouts import GRID, LAYOUTS, cell_table, slide
from visrep.envs.toy_render import Painter, background
from visrep.envs.toy_walker import Walker
from visrep.errors import UserError, nearest

DRAWING = 2  # raise when the pixels change, so that fingerprints of old data no longer match
STEP = 0.02  # displacement of a full action per environment frame, in arena sides
EPISODE_AGENT_STEPS = 200
GOAL_RADIUS = 0.15
MIN_SIZE = 16


def _tasks() -> dict[str, tuple[str, str | None]]:
    tasks: dict[str, tuple[str, str | None]] = {}
    for prefix, layout in [("maze", "s3")] + [(name, name) for name in LAYOUTS]:
        tasks[prefix] = (layout, None)
        tasks.update({f"{prefix}_{goal}": (layout, goal) for goal in LAYOUTS[layout].goals})
    return tasks


TASKS = _tasks()  # task -> (layout, goal or None)


class ToyMaze(PixelEnv):
    """A point moves by ``action * 0.02`` per environment frame in the unit square; walls stop it and it slides along.

    Without a goal there is no reward. With one, every environment frame inside the goal's radius pays 1, the episode
    goes on until the time limit, and ``info["success"]`` tells whether the goal was reached in this episode. The goal
    is not drawn unless ``show_goal``: images before and after pre-training then come from one distribution.
    ``info["state"]`` is the position, float32 [2] (x to the right, y upwards). The task observation is that, and the
    goal's position where there is one: float32 [2] or [4].

    Args:
        task: a name from ``list_tasks()``.
        image_size: pixels, at least 16.
        action_repeat: environment frames per agent step.
        seed: of the first ``reset()`` that names no seed.
        show_goal: draw the goal as a green disc.
        observation: "pixels", or "state" for the task observation in place of frames.
        render_mode: None or "rgb_array"; ``render()`` returns the current frame.
    """

    state_dim = 2

    def __init__(
        self,
        task: str = "maze",
        image_size: int = 84,
        action_repeat: int = 1,
        seed: int | None = None,
        show_goal: bool = False,
        render_mode: str | None = None,
        observation: Observation = "pixels",
    ) -> None:
        if task not in TASKS:
            near = ", ".join(nearest(task, TASKS)) or ", ".join(TASKS)
            raise UserError(f"toy has no task {task!r}; near: {near}")
        if image_size < MIN_SIZE or action_repeat < 1:
            raise UserError(
                f"toy needs image_size >= {MIN_SIZE} and action_repeat >= 1, got {image_size} and {action_repeat}"
            )
        self.task, self.image_size, self.action_repeat = task, image_size, action_repeat
        self.layout, goal = TASKS[task]
        self.max_agent_steps = EPISODE_AGENT_STEPS
        self.render_mode = render_mode
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.goal = LAYOUTS[self.layout].goals[goal] if goal else None
        self.observation, self.observation_dim = observation, 4 if self.goal else 2
        self.observation_space = (
            gym.spaces.Box(0.0, 1.0, (self.observation_dim,), np.float32)
            if observation == "state"
            else gym.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        )
        self.show_goal = show_goal and self.goal is not None
        self._walls = LAYOUTS[self.layout].walls
        self._cells = cell_table(self.layout)
        self.num_cells = int(self._cells.max()) + 1
        self._x = self._y = math.nan
        self._agent_step = 0
        self._success = False
        if seed is not None:
            super().reset(seed=seed)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observed, dict[str, Any]]:
        """Start an episode at a uniform position of the start region, a pure function of ``seed`` where given."""
        super().reset(seed=seed)
        x0, y0, x1, y1 = LAYOUTS[self.layout].start
        u, v = self.np_random.random(2)
        self._x, self._y = float(x0 + (x1 - x0) * u), float(y0 + (y1 - y0) * v)
        self._agent_step = 0
        self._success = False
        return self._observed(), self._info()

    def step(self, action: Action) -> tuple[Observed, float, bool, bool, dict[str, Any]]:
        """One agent step; the action is clipped to [-1, 1]. Never terminates; truncated at the time limit."""
        dx = min(max(float(action[0]), -1.0), 1.0) * STEP
        dy = min(max(float(action[1]), -1.0), 1.0) * STEP
        if not math.isfinite(dx + dy + self._x):
            raise ValueError(f"toy/{self.task}: the action is not finite ({action}), or step came before reset")
        reward = 0.0
        for _ in range(self.action_repeat):
            self._x, self._y = slide(self._walls, self._x, self._y, dx, dy)
            reward += self._reward()
        self._agent_step += 1
        self._success = self._success or reward > 0.0
        truncated = self._agent_step >= self.max_agent_steps
        return self._observed(), reward, False, truncated, self._info()

    def render(self) -> Frame | None:  # type: ignore[override]
        """The current frame [S, S, 3] with render_mode="rgb_array", else None."""
        return self._painter.draw(self._x, self._y) if self.render_mode == "rgb_array" else None

    def fingerprint(self) -> dict[str, Any]:
        """What the observations depend on."""
        if self.observation == "state":
            same = {"suite": "toy", "task": self.task, "layout": self.layout, "action_repeat": self.action_repeat}
            return {**same, "observation": "state", "renderer": "none"}
        return {
            "suite": "toy",
            "task": self.task,
            "layout": self.layout,
            "renderer": "numpy",
            "image_size": self.image_size,
            "action_repeat": self.action_repeat,
            "camera": None,
            "show_goal": self.show_goal,
            "versions": {"drawing": DRAWING},
        }

    def task_observation(self) -> NDArray[np.float32]:
        """Position, then the goal's where there is one."""
        return np.array((self._x, self._y, *(self.goal or ())), dtype=np.float32)

    def coverage_cells(self, state: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
        """[N, 2] positions to [N] cells of a 20 x 20 grid; -1 in cells whose centre is inside a wall."""
        cells = np.clip((np.asarray(state) * GRID).astype(np.int64), 0, GRID - 1)  # [N, 2]
        return self._cells[cells[:, 0], cells[:, 1]]

    @property
    def cell_centers(self) -> NDArray[np.float32]:
        """Position of every counted cell's centre in index order, float32 [num_cells, 2]."""
        # np.argwhere walks in row-major order, the order in which cell_table numbers the cells.
        return ((np.argwhere(self._cells >= 0) + 0.5) / GRID).astype(np.float32)

    def draw_map(self, size: int = 256, show_goal: bool = True) -> Frame:
        """The empty arena for figures, [size, size, 3]; x and y span 0..1, row 0 is y = 1."""
        goal = (self.goal, GOAL_RADIUS) if show_goal and self.goal else ()
        return background(self.layout, size, *goal).copy()

    @cached_property
    def _painter(self) -> Painter:
        shown = (self.goal, GOAL_RADIUS) if self.show_goal and self.goal else ()
        return Painter(background(self.layout, self.image_size, *shown))

    def _observed(self) -> Observed:
        return self.task_observation() if self.observation == "state" else self._painter.draw(self._x, self._y)

    def _reward(self) -> float:
        if self.goal is None:
            return 0.0
        return float(math.hypot(self._x - self.goal[0], self._y - self.goal[1]) <= GOAL_RADIUS)

    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = {"state": np.array((self._x, self._y), dtype=np.float32)}
        if self.goal is not None:
            info["success"] = self._success
        return info


def list_tasks() -> list[str]:
    """Names of every task of the suite, without the ``toy/``."""
    return list(TASKS)


def make(
    task: str,
    image_size: int = 84,
    action_repeat: int = 1,
    render: str = "auto",
    camera: int | None = None,
    seed: int = 0,
    observation: Observation = "pixels",
) -> ToyMaze:
    """Build a task. ``render`` is not looked at: there is one way to draw; ``camera`` must be None or 0."""
    if camera not in (None, 0):
        raise UserError(f"toy/{task} has one camera, 0; got camera={camera}")
    return ToyMaze(task, image_size, action_repeat, seed=seed, render_mode="rgb_array", observation=observation)


def make_script(task: str, action_repeat: int) -> Script:
    """A scripted policy: walks to the goal and stays, or through the rooms where there is none."""
    layout, goal = TASKS[task]
    return Walker(layout, LAYOUTS[layout].goals[goal] if goal else None, STEP * action_repeat)
