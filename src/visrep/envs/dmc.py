"""The DeepMind Control suite and its manipulation tasks as pixel environments.

``<domain>_<task>`` for the suite (``cheetah_run``, ``ball_in_cup_catch``, ``humanoid_CMU_walk``), ``manip_<name>`` for
every manipulation task that dm_control offers as ``<name>_vision``. Conventions of the published pixel benchmarks:
camera 0 (2 for quadruped, the task's own for manipulation), actions scaled to [-1, 1], no reward shown in the colours.

Shapes: H W pixels, A action, K state, O task observation.
"""

from __future__ import annotations

import contextlib
import logging
import math
from importlib import metadata
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from visrep.envs.contract import Action, Frame, Observation, Observed, PixelEnv
from visrep.envs.dmc_state import state_layout
from visrep.envs.rendering import (
    NO_RENDERER,
    make_renderer,
    opengl_error,
    package_problem,
    prepare_process,
    resolve_renderer,
)
from visrep.errors import UserError, nearest

# Written out so that names can be listed and checked without importing dm_control, which would settle OpenGL for the
# process. A test compares them with the installed dm_control.
SUITE_TASKS: dict[str, tuple[str, ...]] = {
    "acrobot": ("swingup", "swingup_sparse"),
    "ball_in_cup": ("catch",),
    "cartpole": ("balance", "balance_sparse", "swingup", "swingup_sparse", "three_poles", "two_poles"),
    "cheetah": ("run",),
    "dog": ("fetch", "run", "stand", "trot", "walk"),
    "finger": ("spin", "turn_easy", "turn_hard"),
    "fish": ("swim", "upright"),
    "hopper": ("hop", "stand"),
    "humanoid": ("run", "run_pure_state", "stand", "walk"),
    "humanoid_CMU": ("run", "stand", "walk"),
    "lqr": ("lqr_2_1", "lqr_6_2"),
    "manipulator": ("bring_ball", "bring_peg", "insert_ball", "insert_peg"),
    "pendulum": ("swingup",),
    "point_mass": ("easy", "hard"),
    "quadruped": ("escape", "fetch", "run", "walk"),
    "reacher": ("easy", "hard"),
    "stacker": ("stack_2", "stack_4"),
    "swimmer": ("swimmer15", "swimmer6"),
    "walker": ("run", "stand", "walk"),
}
MANIPULATION_TASKS = (
    "lift_brick", "lift_large_box", "place_brick", "place_cradle", "reach_duplo", "reach_site",
    "reassemble_3_bricks_fixed_order", "reassemble_5_bricks_random_order", "stack_2_bricks",
    "stack_2_bricks_moveable_base", "stack_2_of_3_bricks_random_order", "stack_3_bricks",
)  # fmt: skip
MANIPULATION_PREFIX = "manip_"
MANIPULATION_CAMERA = "front_close"
QUADRUPED_CAMERA = 2  # the robot turns in every direction: the camera that looks from above and behind
ENDLESS_TASK_FRAMES = 1000  # lqr has no time limit of its own; it gets that of the other tasks

_SUITE_NAMES = {f"{domain}_{task}": (domain, task) for domain, tasks in SUITE_TASKS.items() for task in tasks}


def list_tasks() -> list[str]:
    """Every task name that ``make`` takes, sorted; imports nothing."""
    return sorted([*_SUITE_NAMES, *(MANIPULATION_PREFIX + name for name in MANIPULATION_TASKS)])


def make(
    task: str,
    *,
    image_size: int = 84,
    action_repeat: int = 1,
    render: str = "auto",
    camera: int | None = None,
    seed: int = 0,
    observation: Observation = "pixels",
) -> gym.Env[Observed, Action]:
    """Make the environment of one task in this process.

    Args:
        task: one of ``list_tasks()``.
        image_size: pixels, height and width.
        action_repeat: frames per agent step; rewards are summed and only the last frame is drawn.
        render: warp, egl, osmesa or auto (``rendering.resolve_renderer``).
        camera: index of a camera of the model; None takes the suite's convention.
        seed: of the first ``reset()`` without a seed, and of models that are drawn at random (lqr).
        observation: "state" for the task's own observation, flattened, instead of images; suite tasks only.

    Raises:
        UserError: unknown task or camera, missing packages, a renderer that does not work in this process, or state
            observations of a manipulation task.
    """
    if task not in list_tasks():
        near = ", ".join(nearest(task, list_tasks()))
        raise UserError(f"unknown task dmc/{task}{f'; near: {near}' if near else ''}")
    if action_repeat < 1 or image_size < 1:
        raise UserError(f"action_repeat={action_repeat} and image_size={image_size} must be at least 1")
    if problem := package_problem():
        raise UserError(f"dmc/{task} does not work here: {problem[0]}. Mend it with: {problem[1]}")
    if observation == "state":
        require_task_observation(task)
        render = NO_RENDERER
    renderer = resolve_renderer(render) if render == "auto" else render
    prepare_process(renderer)
    return DmcEnv(task, image_size, action_repeat, renderer, camera, seed)


def require_task_observation(task: str) -> None:
    """Raise UserError for the tasks that are offered through a camera alone."""
    if task not in _SUITE_NAMES:
        raise UserError(
            f"dmc/{task} is a manipulation task, offered here through a camera only, as dm_control's _vision tasks "
            "are: it has no state observation. Use observation=pixels, or a task of the suite"
        )


class DmcEnv(PixelEnv):
    """One task behind Gymnasium's API; see ``PixelEnv`` for the conventions.

    ``info["state"]`` is dm_control's physics state (positions, velocities, activations), float32 [K]. The task
    observation is the task's observation dictionary in its own order, flattened, float32 [O].
    """

    def __init__(
        self, task: str, image_size: int, action_repeat: int, renderer: str, camera: int | None, seed: int
    ) -> None:
        self.observation: Observation = "state" if renderer == NO_RENDERER else "pixels"
        self.render_mode = "rgb_array" if self.observation == "pixels" else None
        self.image_size, self.action_repeat = image_size, action_repeat
        self._task, self._renderer_name = task, renderer
        self._suite = task in _SUITE_NAMES
        self._env: Any = _load(task, seed, renderer)
        self._camera = self._camera_index(camera)
        if self.observation == "pixels":
            self._renderer = make_renderer(renderer, image_size, image_size, self._camera)
        if self._suite and renderer in ("warp", NO_RENDERER):
            self.physics._contexts = _NO_GRAPHICS
        spec = self._env.action_spec()
        # An actuator without limits (lqr) takes the agent's action as it is.
        self._low = np.where(np.isfinite(spec.minimum), spec.minimum, -1.0)
        self._span = np.where(np.isfinite(spec.maximum), spec.maximum, 1.0) - self._low
        self.action_space = Box(-1.0, 1.0, spec.shape, np.float32)
        self.observation_dim = self._count_observed() if self._suite else 0
        self.observation_space = (
            Box(0, 255, (image_size, image_size, 3), np.uint8)
            if self.observation == "pixels"
            else Box(-np.inf, np.inf, (self.observation_dim,), np.float32)
        )
        self.state_dim = int(self.physics.get_state().size)
        self._frames_limit = self._time_limit_frames()
        self.max_agent_steps = math.ceil(self._frames_limit / action_repeat)
        self._frames_done = 0
        self._over = True
        self._first_seed: int | None = seed
        self._frame: Frame | None = None
        self._seen: Any = None  # dm_control's observation of the present state

    @property
    def physics(self) -> Any:
        """dm_control's physics; manipulation tasks make another one at each reset."""
        return self._env.physics

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observed, dict[str, Any]]:
        """Start an episode, a pure function of ``seed`` and the actions; without seed, the next of a sequence."""
        if seed is None and self._first_seed is not None:
            seed = self._first_seed
        self._first_seed = None
        super().reset(seed=seed)
        # Gymnasium's generator yields the episode's seed, so that reset() after reset(seed=s) is reproducible too.
        random = np.random.RandomState(self.np_random.integers(2**32, dtype=np.uint64))
        if self._suite:
            self._env.task._random = random
        else:
            self._env._random_state = random
            if (order := getattr(self._env.task, "_initial_order", None)) is not None:
                order.sort()  # reassemble_5_bricks shuffles the previous episode's order
        self._seen = self._env.reset().observation
        self._frames_done, self._over = 0, False
        if self.observation == "pixels":
            self._renderer.reset(self.physics)
        return self._observed(), {"state": self._state()}

    def step(self, action: Action) -> tuple[Observed, float, bool, bool, dict[str, Any]]:
        """``action_repeat`` frames with one action, or fewer where the episode ends."""
        if self._over:
            raise RuntimeError(f"dmc/{self._task}: the episode is over (or has not begun), call reset() first")
        control = self._low + (np.asarray(action, dtype=np.float64) + 1.0) * (0.5 * self._span)
        reward, terminated, truncated = 0.0, False, False
        for _ in range(self.action_repeat):
            step = self._env.step(control)
            self._frames_done += 1
            reward += 0.0 if step.reward is None else float(step.reward)
            if step.last():
                # dm_control ends an episode with discount 0 at a true end and 1 at the time limit
                terminated = step.discount is not None and float(step.discount) == 0.0
                truncated = not terminated
            elif self._frames_done >= self._frames_limit:
                truncated = True
            if terminated or truncated:
                break
        self._over = terminated or truncated
        self._seen = step.observation
        return self._observed(), reward, terminated, truncated, {"state": self._state()}

    def draw(self) -> Frame:
        """A new image [H, W, 3] of the present state."""
        self._frame = self._renderer.render(self.physics)
        return self._frame

    def render(self) -> Frame | None:  # type: ignore[override]
        """The last frame again."""
        return self._frame

    def close(self) -> None:
        """Free the simulator and its graphics."""
        self._env.close()

    def fingerprint(self) -> dict[str, Any]:
        """What observations depend on; images differ between versions of mujoco and between ray tracing and OpenGL.

        Also what the values of the state are called and which of them are angles.
        """
        packages = ["dm_control", "mujoco"] + (["mujoco-warp"] if self._renderer_name == "warp" else [])
        seen = (
            {"camera": self._camera, "image_size": self.image_size}
            if self.observation == "pixels"
            else {"observation": "state"}
        )
        return {
            "suite": "dmc",
            "task": self._task,
            "renderer": self._renderer_name,
            **seen,
            "action_repeat": self.action_repeat,
            "versions": {name: metadata.version(name) for name in packages},
            **state_layout(self.physics.model),
        }

    def task_observation(self) -> NDArray[np.float32]:
        """The values of the task's observation, in its order."""
        require_task_observation(self._task)
        return np.concatenate([np.ravel(value) for value in self._seen.values()]).astype(np.float32)

    def _observed(self) -> Observed:
        return self.draw() if self.observation == "pixels" else self.task_observation()

    def _count_observed(self) -> int:
        return sum(math.prod(spec.shape) for spec in self._env.observation_spec().values())

    def _state(self) -> NDArray[np.float32]:
        state: NDArray[np.float32] = self.physics.get_state().astype(np.float32)
        return state

    def _camera_index(self, camera: int | None) -> int:
        count = int(self.physics.model.ncam)
        if camera is None:
            if not self._suite:
                return int(self.physics.model.name2id(MANIPULATION_CAMERA, "camera"))
            return QUADRUPED_CAMERA if _SUITE_NAMES[self._task][0] == "quadruped" else 0
        if not 0 <= camera < count:
            raise UserError(f"dmc/{self._task} has cameras 0 to {count - 1}, there is no camera={camera}")
        return camera

    def _time_limit_frames(self) -> int:
        if self._suite:
            limit = self._env._step_limit
        else:
            limit = self._env._time_limit / self._env.control_timestep()
        return ENDLESS_TASK_FRAMES if math.isinf(limit) else math.ceil(limit - 1e-6)


def _load(task: str, seed: int, renderer: str) -> Any:
    logging.getLogger("absl").addFilter(_deprecation)  # of names inside dm_control's own models
    try:
        if task not in _SUITE_NAMES:
            from dm_control import manipulation

            # "_features" is the same task without the camera among its observations, which would be drawn by OpenGL
            # at construction; our own renderer draws that camera.
            return manipulation.load(f"{task.removeprefix(MANIPULATION_PREFIX)}_features", seed=seed)
        from dm_control import suite
    except (ImportError, AttributeError, RuntimeError) as error:  # AttributeError: PyOpenGL without a library
        raise opengl_error(renderer, error) from error
    domain, name = _SUITE_NAMES[task]
    return suite.load(domain, name, task_kwargs={"random": seed}, visualize_reward=False)


def _deprecation(record: logging.LogRecord) -> bool:
    return "deprecated" not in record.getMessage()


class _NoGraphics:
    """Stands in for the OpenGL context while the ray tracer draws.

    ``quadruped_escape`` uploads its terrain to OpenGL at each reset, which would create a context; the tracer takes the
    terrain from the model. Anything else asked of OpenGL is a mistake.
    """

    def __init__(self) -> None:
        self.gl = self.mujoco = self.ptr = self

    def make_current(self) -> contextlib.AbstractContextManager[_NoGraphics]:
        return contextlib.nullcontext(self)

    def call(self, function: Any, *_: Any) -> None:
        if getattr(function, "__name__", "") != "mjr_uploadHField":
            raise RuntimeError("this environment is drawn by warp; OpenGL is not available in it (use env.render())")

    def free(self) -> None:
        """Nothing is held."""


_NO_GRAPHICS = _NoGraphics()
