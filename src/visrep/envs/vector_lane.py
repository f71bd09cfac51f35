"""One environment lane and the arrays that it shares with the learner; the same code in process and in a worker.

Shapes: E lanes, C colour channels, H W pixels, A action, K privileged state, O task observation. A state
observation is a frame of O channels and one pixel.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from visrep.envs.contract import Observation
from visrep.envs.make import full_name, make_env
from visrep.envs.rendering import resolve_renderer
from visrep.errors import UserError

UNKNOWN = -1  # in Slots.success: the environment does not say


class LaneFailed(Exception):
    """The lane's environment raised or its process died; the text says which, with the traceback where there is one."""


@dataclass(frozen=True)
class EnvSpec:
    """Everything needed to make the same environment again in another process; see ``make_env``.

    ``with_observation`` delivers the task's own state observation beside the frames, where there is one.
    """

    name: str
    image_size: int = 84
    action_repeat: int = 1
    render: str = "auto"
    camera: int | None = None
    observation: Observation = "pixels"
    with_observation: bool = False

    def make(self, seed: int = 0) -> gym.Env[Any, Any]:
        """Build it."""
        options = asdict(self)
        del options["with_observation"]
        return make_env(options.pop("name"), seed=seed, **options)

    def settled(self) -> EnvSpec:
        """With MuJoCo's renderer decided, here and not by every worker: what "auto" means, and its compilation.

        Raises:
            UserError: the renderer does not work here.
        """
        if self.observation == "state" or not full_name(self.name).startswith("dmc/"):
            return self
        return replace(self, render=resolve_renderer(self.render))


@dataclass(frozen=True)
class LaneInfo:
    """What a built environment says about itself.

    Attributes:
        frame_shape: (C, H, W); (O, 1, 1) of state observations.
        frame_dtype: NumPy name, "uint8" of pixels, "float32" of state observations.
        action_dim: A.
        state_dim: K, 0 without privileged state.
        observation_dim: O of the task observation beside the frames, 0 where it is not asked for or not offered.
        num_cells: cells of its coverage grid, 0 where it has none.
        max_agent_steps: its time limit, None where it does not say.
        fingerprint: what its images depend on.
    """

    frame_shape: tuple[int, int, int]
    frame_dtype: str
    action_dim: int
    state_dim: int
    observation_dim: int
    num_cells: int
    max_agent_steps: int | None
    fingerprint: dict[str, Any]


@dataclass(frozen=True)
class Slots:
    """Arrays of all lanes over one block of bytes: a lane writes row i, the learner reads it after the lane's reply.

    ``reset_frame``, ``reset_state`` and ``reset_observation`` hold the first row of the episode that begins, the others
    the row just stepped.
    """

    action: NDArray[np.float32]  # [E, A]
    frame: NDArray[Any]  # [E, C, H, W]
    reward: NDArray[np.float32]  # [E]
    terminal: NDArray[np.bool_]  # [E]
    is_last: NDArray[np.bool_]  # [E]
    success: NDArray[np.int8]  # [E]; UNKNOWN, 0 or 1
    state: NDArray[np.float32]  # [E, K]
    observation: NDArray[np.float32]  # [E, O]
    reset_frame: NDArray[Any]  # [E, C, H, W]
    reset_state: NDArray[np.float32]  # [E, K]
    reset_observation: NDArray[np.float32]  # [E, O]

    @staticmethod
    def _plan(lanes: int, info: LaneInfo) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        widths = {
            "action": info.action_dim,
            "state": info.state_dim,
            "reset_state": info.state_dim,
            "observation": info.observation_dim,
            "reset_observation": info.observation_dim,
        }
        plan: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
            **{name: (np.dtype(np.float32), (lanes, width)) for name, width in widths.items()},
            "reward": (np.dtype(np.float32), (lanes,)),
            "frame": (np.dtype(info.frame_dtype), (lanes, *info.frame_shape)),
            "reset_frame": (np.dtype(info.frame_dtype), (lanes, *info.frame_shape)),
            "terminal": (np.dtype(np.bool_), (lanes,)),
            "is_last": (np.dtype(np.bool_), (lanes,)),
            "success": (np.dtype(np.int8), (lanes,)),
        }
        # Wide types first, so that every array starts at a multiple of its item size.
        return dict(sorted(plan.items(), key=lambda part: -part[1][0].itemsize))

    @staticmethod
    def nbytes(lanes: int, info: LaneInfo) -> int:
        """Size of the block."""
        plan = Slots._plan(lanes, info).values()
        return sum(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize for dtype, shape in plan)

    @staticmethod
    def over(buffer: Any, lanes: int, info: LaneInfo) -> Slots:
        """Lay the arrays over a writable buffer of ``nbytes`` bytes."""
        arrays, offset = {}, 0
        for name, (dtype, shape) in Slots._plan(lanes, info).items():
            arrays[name] = np.ndarray(shape, dtype, buffer=buffer, offset=offset)
            offset += arrays[name].nbytes
        return Slots(**arrays)


def episode_seed(seed: int, lane: int, episode: int) -> int:
    """Seed of one episode of one lane, 0..2^32-1: independent of how many lanes there are and of their timing."""
    return int(np.random.SeedSequence([seed, lane, episode]).generate_state(1)[0])


class Lane:
    """One environment and its row in the slots."""

    def __init__(self, spec: EnvSpec, seed: int, index: int) -> None:
        self._seed, self._index = seed, index
        self._env = spec.make(episode_seed(seed, index, 0))
        self._core: Any = self._env.unwrapped
        self._slots: Slots | None = None
        self.info = _describe(self._env, spec)

    def attach(self, slots: Slots) -> None:
        """Write rows there from now on."""
        self._slots = slots

    def start(self, episode: int, actions: NDArray[np.float32] | None = None) -> None:
        """Begin an episode and write its first row; with ``actions`` [t, A] replay them and write the row after them.

        Raises:
            RuntimeError: the replay ended the episode, so the environment is not a function of its seed and actions.
        """
        obs, info = self._env.reset(seed=episode_seed(self._seed, self._index, episode))
        for action in () if actions is None else actions:
            obs, _, terminated, truncated, info = self._env.step(action)
            if terminated or truncated:
                raise RuntimeError(
                    "the episode ended while its actions were replayed to resume: this environment's reset(seed) does "
                    "not determine the episode, or it was saved with another version of the environment"
                )
        slots, i = self._written()
        slots.reset_frame[i] = _frame(obs)
        if self.info.state_dim:
            slots.reset_state[i] = info["state"]
        if self.info.observation_dim:
            slots.reset_observation[i] = self._core.task_observation()

    def step(self, episode: int) -> bool:
        """Step with the action in the slots and write the row; if the episode ended, start ``episode + 1`` too.

        Returns:
            True if the episode ended.
        """
        slots, i = self._written()
        obs, reward, terminated, truncated, info = self._env.step(slots.action[i].copy())
        slots.frame[i] = _frame(obs)
        slots.reward[i] = reward
        slots.terminal[i] = terminated
        slots.is_last[i] = terminated or truncated
        slots.success[i] = int(info["success"]) if "success" in info else UNKNOWN
        if self.info.state_dim:
            slots.state[i] = info["state"]
        if self.info.observation_dim:
            slots.observation[i] = self._core.task_observation()
        if terminated or truncated:
            self.start(episode + 1)
            return True
        return False

    def close(self) -> None:
        """Release the environment."""
        self._env.close()

    def _written(self) -> tuple[Slots, int]:
        assert self._slots is not None, "attach() comes before start() and step()"
        return self._slots, self._index


class LaneHere:
    """A lane in this process, with the face of a ``LaneProcess``; the work happens in ``finish``."""

    def __init__(self, spec: EnvSpec, seed: int, index: int) -> None:
        self._lane: Lane = _guarded(Lane, spec, seed, index)
        self._work: tuple[Any, ...] | None = None

    def info(self) -> LaneInfo:
        """The built environment's description."""
        return self._lane.info

    def attach(self, slots: Slots) -> None:
        """Write rows there from now on."""
        self._lane.attach(slots)

    def start(self, episode: int, actions: NDArray[np.float32] | None = None) -> None:
        """Ask for ``Lane.start``."""
        self._work = (self._lane.start, episode, actions)

    def step(self, episode: int) -> None:
        """Ask for ``Lane.step``."""
        self._work = (self._lane.step, episode)

    def finish(self) -> Any:
        """Do the work: True where a step ended the episode; raises LaneFailed."""
        assert self._work is not None, "finish() comes after start() or step()"
        return _guarded(*self._work)

    def close(self) -> None:
        """Release the environment."""
        self._lane.close()


def _guarded(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call, and turn whatever the environment raises into the failure that a worker process would report."""
    try:
        return call(*arguments)
    except UserError:
        raise
    except Exception:
        raise LaneFailed(traceback.format_exc()) from None


def _frame(observed: NDArray[Any]) -> NDArray[Any]:
    """[H, W, C] to [C, H, W], and a vector [O] to [O, 1, 1]."""
    return observed.transpose(2, 0, 1) if observed.ndim == 3 else observed[:, None, None]


def _frame_shape(env: gym.Env[Any, Any], spec: EnvSpec) -> tuple[int, int, int]:
    space, state = env.observation_space, spec.observation == "state"
    what, dtype, dims = ("float32 vectors [O]", np.float32, 1) if state else ("uint8 frames [H, W, C]", np.uint8, 3)
    if not isinstance(space, gym.spaces.Box) or space.dtype != dtype or len(space.shape) != dims:
        raise ValueError(f"env={spec.name} must give {what}, but its observation space is {space}")
    if state:
        return space.shape[0], 1, 1
    height, width, channels = space.shape
    return channels, height, width


def _describe(env: gym.Env[Any, Any], spec: EnvSpec) -> LaneInfo:
    frame_shape = _frame_shape(env, spec)
    actions = env.action_space
    if not isinstance(actions, gym.spaces.Box) or len(actions.shape) != 1:
        raise UserError(
            f"env={spec.name} takes actions {actions}, but policies here act in continuous boxes, Box of shape (A,): "
            "choose an environment with such actions; an encoder can be pre-trained on recorded data with discrete "
            "actions, without acting: visrep pretrain data=<dataset>"
        )
    core: Any = env.unwrapped
    fingerprint = getattr(core, "fingerprint", None)
    return LaneInfo(
        frame_shape=frame_shape,
        frame_dtype="float32" if spec.observation == "state" else "uint8",
        action_dim=actions.shape[0],
        state_dim=int(getattr(core, "state_dim", 0)),
        observation_dim=int(getattr(core, "observation_dim", 0)) if spec.with_observation else 0,
        num_cells=int(getattr(core, "num_cells", 0)),
        max_agent_steps=getattr(core, "max_agent_steps", None),
        fingerprint=fingerprint() if callable(fingerprint) else asdict(spec),
    )
