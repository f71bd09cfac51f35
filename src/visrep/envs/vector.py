"""Many environments at once: in worker processes with shared memory while the learner works, or in this process.

Both ways run the same lane code and give the same bits. Every lane draws its episodes from seeds that depend only on
(seed, lane, episode), and ``recv`` returns lanes in lane order, so results do not depend on timing.
Shapes: E lanes, n lanes that stepped, m episodes that begin, C H W one frame (of state observations O 1 1, float32),
A action, K privileged state, O task observation.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import warnings
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from visrep.envs.make import is_cheap
from visrep.envs.vector_lane import UNKNOWN, EnvSpec, LaneFailed, LaneHere, LaneInfo, Slots
from visrep.envs.vector_worker import LaneProcess
from visrep.errors import UserError

__all__ = ["EnvSpec", "FirstRows", "VectorEnv", "VectorStep"]

MAX_FAILURES = 5  # of one lane in a row, without a finished step between them


@dataclass(frozen=True)
class FirstRows:
    """First rows of the episodes that begin (or, after ``load_state_dict``, current rows of those that go on).

    Attributes:
        lanes: int64 [m], ascending.
        frames: [m, C, H, W] of the environments' ``frame_dtype``.
        state: float32 [m, K], or None without privileged state.
        observation: float32 [m, O], or None where the task observation is not asked for.
    """

    lanes: NDArray[np.int64]
    frames: NDArray[Any]
    state: NDArray[np.float32] | None
    observation: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class VectorStep:
    """One agent step of every lane that finished it.

    Attributes:
        lanes: int64 [n], ascending; a lane whose environment crashed is missing.
        frames: [n, C, H, W] after the action; of the ended episode where ``is_last``.
        reward: float32 [n].
        terminal: bool [n]; true terminal states only.
        is_last: bool [n]; terminal or time limit.
        success: bool [n], or None where the environment does not report it.
        state: float32 [n, K], or None without privileged state.
        reset: first rows of the episodes that begin now, in lanes that ended or crashed; None if there are none.
        crashed: one message per crash; the lane's episode was dropped and its next one begins in ``reset``.
        observation: float32 [n, O], or None where the task observation is not asked for.
    """

    lanes: NDArray[np.int64]
    frames: NDArray[Any]
    reward: NDArray[np.float32]
    terminal: NDArray[np.bool_]
    is_last: NDArray[np.bool_]
    success: NDArray[np.bool_] | None
    state: NDArray[np.float32] | None
    reset: FirstRows | None
    crashed: list[str]
    observation: NDArray[np.float32] | None = None


class _Runner(Protocol):
    """Where a lane runs. ``start`` and ``step`` ask, ``finish`` gives the answer or raises LaneFailed."""

    def info(self) -> LaneInfo: ...
    def start(self, episode: int, actions: NDArray[np.float32] | None = None) -> None: ...
    def step(self, episode: int) -> None: ...
    def finish(self) -> Any: ...
    def close(self) -> None: ...


class VectorEnv:
    """``num_envs`` lanes of one environment, stepped together, each reset as soon as its episode ends.

    ``send(actions)`` starts a step, ``recv()`` waits for it: the learner works in between. A lane that raises or whose
    process dies is rebuilt with its next episode and reported; five failures in a row without a finished step end the
    run with the traceback.

    Args:
        spec: the environment.
        num_envs: E lanes.
        seed: of all episodes.
        processes: True for one worker process per lane, False for this process; None takes processes when there is
            more than one lane and a step costs more than handing over a frame (everything but ``toy/``).

    Attributes:
        frame_shape: (C, H, W); (O, 1, 1) of state observations.
        frame_dtype: NumPy name: "uint8" of pixels, "float32" of state observations.
        action_dim: A.
        state_dim: K, 0 without privileged state.
        observation_dim: O of the task observation beside the frames, 0 where it is not asked for or not offered.
        num_cells: cells of the environment's coverage grid, 0 where it has none.
        max_agent_steps: the episode's time limit, or None where unknown.
        fingerprint: what the images depend on.
    """

    def __init__(self, spec: EnvSpec, num_envs: int, seed: int, processes: bool | None = None) -> None:
        if num_envs < 1:
            raise UserError(f"num_envs must be at least 1, got {num_envs}")
        self.spec, self.num_envs, self.seed = spec, num_envs, seed
        self.processes = (num_envs > 1 and not is_cheap(spec.name)) if processes is None else processes
        self._runners: list[_Runner] = []
        self._memory_fd = _nameless_file() if self.processes else -1
        self._finalizer = weakref.finalize(self, _shut, self._runners, self._memory_fd)  # also at interpreter exit
        info = self._build()
        self.frame_shape, self.frame_dtype = info.frame_shape, info.frame_dtype
        self.action_dim, self.state_dim, self.observation_dim = info.action_dim, info.state_dim, info.observation_dim
        self.num_cells, self.max_agent_steps = info.num_cells, info.max_agent_steps
        self.fingerprint = info.fingerprint
        self._memory = self._allocate(Slots.nbytes(num_envs, info))
        self._slots = Slots.over(self._memory, num_envs, info)
        for runner in self._runners:
            self._attach(runner)
        self._episodes = np.zeros(num_envs, dtype=np.int64)
        self._actions: list[list[NDArray[np.float32]]] = [[] for _ in range(num_envs)]
        self._failures = [0] * num_envs
        self._replies: dict[int, bool | LaneFailed] | None = None  # of the step under way; None between steps
        self._started = False

    @property
    def action_space(self) -> gym.spaces.Box:
        """Box [-1, 1]^A of one lane."""
        return gym.spaces.Box(-1.0, 1.0, (self.action_dim,), np.float32)

    @property
    def observation_space(self) -> gym.spaces.Box:
        """Box of one lane's frame, channel-first [C, H, W]."""
        if self.frame_dtype == "float32":
            return gym.spaces.Box(-np.inf, np.inf, self.frame_shape, np.float32)
        return gym.spaces.Box(0, 255, self.frame_shape, np.uint8)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers in lane order; empty in process."""
        return [runner.pid for runner in self._runners if isinstance(runner, LaneProcess)]

    @property
    def episodes(self) -> NDArray[np.int64]:
        """Number of the episode that each lane plays, [E]."""
        return self._episodes.copy()

    @property
    def next_episode(self) -> int:
        """An episode number that no lane has begun yet."""
        return int(self._episodes.max()) + 1 if self._started else 0

    def reset(self, episode: int = 0) -> FirstRows:
        """Start episode number ``episode`` in every lane, whatever came before."""
        return self.begin(np.full(self.num_envs, episode, dtype=np.int64))

    def begin(self, episodes: NDArray[np.int64]) -> FirstRows:
        """Start episode number ``episodes[l]`` in lane l, whatever came before."""
        self._settle()
        self._episodes[:] = episodes
        return self._start_all([None] * self.num_envs)

    def send(self, actions: NDArray[np.float32]) -> None:
        """Begin one agent step in every lane; ``actions`` [E, A] in lane order."""
        if not self._finalizer.alive:
            raise RuntimeError("VectorEnv.send: these environments were closed")
        if not self._started or self._replies is not None:
            raise RuntimeError("VectorEnv.send comes after reset(), and after recv() of the step before")
        if np.shape(actions) != self._slots.action.shape:
            raise ValueError(f"VectorEnv takes actions {list(self._slots.action.shape)}, got {list(np.shape(actions))}")
        self._slots.action[:] = actions
        self._replies = {}
        for lane, runner in enumerate(self._runners):
            runner.step(int(self._episodes[lane]))

    def recv(self) -> VectorStep:
        """Wait for the step that ``send`` began. With processes it can be called again after Ctrl-C."""
        if self._replies is None:
            raise RuntimeError("VectorEnv.recv comes after send()")
        self._collect()
        replies, self._replies = self._replies, None
        stepped = [lane for lane, reply in replies.items() if not isinstance(reply, LaneFailed)]
        begun = [lane for lane in stepped if replies[lane]]
        for lane in stepped:
            self._failures[lane] = 0
            self._actions[lane].append(self._slots.action[lane].copy())
        step = self._rows(np.array(stepped, dtype=np.int64))
        for lane in begun:
            self._next_episode(lane)
        for lane, reply in replies.items():
            if isinstance(reply, LaneFailed):
                step.crashed.append(self._restart(lane, reply, skip=True))
                begun.append(lane)
        reset = self._first_rows(sorted(begun)) if begun else None
        return VectorStep(**{**vars(step), "reset": reset})

    def step(self, actions: NDArray[np.float32]) -> VectorStep:
        """``send`` and ``recv``."""
        self.send(actions)
        return self.recv()

    def state_dict(self) -> dict[str, Any]:
        """Where every lane is: its episode and the actions since that began; only between ``recv`` and ``send``.

        Returns:
            seed (int), episodes int64 [E], lengths int64 [E], actions float32 [sum of lengths, A] in lane order.
        """
        if self._replies is not None:
            raise RuntimeError("VectorEnv.state_dict: a step is under way, call recv() first")
        rows = [action for lane in self._actions for action in lane]
        return {
            "seed": self.seed,
            "episodes": self._episodes.copy(),
            "lengths": np.array([len(lane) for lane in self._actions], dtype=np.int64),
            "actions": np.array(rows, dtype=np.float32).reshape(len(rows), self.action_dim),
        }

    def load_state_dict(self, state: dict[str, Any]) -> FirstRows:
        """Go on where ``state_dict`` was taken, by replaying each lane's episode; returns every lane's current row."""
        episodes, lengths = np.asarray(state["episodes"]), np.asarray(state["lengths"])
        actions = np.asarray(state["actions"], dtype=np.float32)
        if len(episodes) != self.num_envs or int(state["seed"]) != self.seed or actions.shape[1] != self.action_dim:
            raise UserError(
                f"the saved environments do not fit: saved num_envs={len(episodes)}, seed={int(state['seed'])}, action "
                f"dimension {actions.shape[1]}; this run has {self.num_envs}, {self.seed}, {self.action_dim}"
            )
        self._settle()
        self._episodes[:] = episodes
        parts = np.split(actions, np.cumsum(lengths)[:-1])
        return self._start_all(parts)

    def close(self) -> None:
        """End all workers; safe to call twice, and called at interpreter exit."""
        self._finalizer()

    def __enter__(self) -> VectorEnv:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _build(self) -> LaneInfo:
        try:
            for lane in range(self.num_envs):
                self._runners.append(self._launch(lane))  # worker processes build theirs at the same time
            return [runner.info() for runner in self._runners][-1]
        except UserError:
            self.close()
            raise
        except LaneFailed as failure:
            self.close()
            raise UserError(f"env={self.spec.name} could not be made:\n{failure}") from None

    def _launch(self, lane: int) -> _Runner:
        if self.processes:
            return LaneProcess(self.spec, self.seed, lane, self._memory_fd)
        return LaneHere(self.spec, self.seed, lane)

    def _allocate(self, nbytes: int) -> Any:
        if not self.processes:
            return bytearray(nbytes)
        os.ftruncate(self._memory_fd, nbytes)
        return mmap.mmap(self._memory_fd, nbytes)

    def _attach(self, runner: _Runner) -> None:
        if isinstance(runner, LaneProcess):
            runner.attach(self.num_envs)
        elif isinstance(runner, LaneHere):
            runner.attach(self._slots)

    def _collect(self) -> None:
        assert self._replies is not None
        for lane, runner in enumerate(self._runners):
            if lane in self._replies:
                continue
            try:
                reply: bool | LaneFailed = bool(runner.finish())
            except LaneFailed as failure:
                reply = failure
            self._replies[lane] = reply

    def _settle(self) -> None:
        """Wait for a step under way and forget its rows; dead lanes come back when they are started."""
        if self._replies is not None:
            self._collect()
            self._replies = None

    def _start_all(self, actions: Sequence[NDArray[np.float32] | None]) -> FirstRows:
        for lane, runner in enumerate(self._runners):
            runner.start(int(self._episodes[lane]), actions[lane])
        for lane, runner in enumerate(self._runners):
            played = actions[lane]
            self._actions[lane] = [] if played is None else list(played.copy())
            try:
                runner.finish()
            except LaneFailed as failure:
                warnings.warn(self._restart(lane, failure, skip=False), RuntimeWarning, stacklevel=3)
        self._started = True
        return self._first_rows(list(range(self.num_envs)))

    def _next_episode(self, lane: int) -> None:
        self._episodes[lane] += 1
        self._actions[lane] = []

    def _restart(self, lane: int, failure: LaneFailed, skip: bool) -> str:
        """Rebuild a failed lane and return what to report.

        Args:
            lane: which.
            failure: why.
            skip: drop the episode and begin the lane's next one; otherwise begin the same one and replay its actions.
        """
        first = failure
        while True:
            self._failures[lane] += 1
            if self._failures[lane] > MAX_FAILURES:
                self.close()
                raise UserError(
                    f"env={self.spec.name}: lane {lane} failed {MAX_FAILURES + 1} times without one finished step. "
                    f"Last failure:\n{failure}"
                )
            if skip:
                self._next_episode(lane)
            try:
                self._rebuild(lane)
                break
            except LaneFailed as again:
                failure = again
        episode = self._episodes[lane]
        return f"env={self.spec.name}: lane {lane} crashed and was restarted with episode {episode}: {first}"

    def _rebuild(self, lane: int) -> None:
        self._runners[lane].close()
        runner = self._runners[lane] = self._launch(lane)
        runner.info()
        self._attach(runner)
        runner.start(int(self._episodes[lane]), np.array(self._actions[lane], dtype=np.float32))
        runner.finish()

    def _rows(self, lanes: NDArray[np.int64]) -> VectorStep:
        # Indexing with an array copies, so the rows stay valid while the next step overwrites the slots.
        slots, success = self._slots, self._slots.success[lanes]
        return VectorStep(
            lanes=lanes,
            frames=slots.frame[lanes],
            reward=slots.reward[lanes],
            terminal=slots.terminal[lanes],
            is_last=slots.is_last[lanes],
            success=success == 1 if len(success) and (success != UNKNOWN).all() else None,
            state=slots.state[lanes] if self.state_dim else None,
            reset=None,
            crashed=[],
            observation=slots.observation[lanes] if self.observation_dim else None,
        )

    def _first_rows(self, lanes: list[int]) -> FirstRows:
        index = np.array(lanes, dtype=np.int64)
        state = self._slots.reset_state[index] if self.state_dim else None
        observation = self._slots.reset_observation[index] if self.observation_dim else None
        return FirstRows(index, self._slots.reset_frame[index], state, observation)


def _nameless_file() -> int:
    """Descriptor of an empty file in memory where the system has such a folder; it has no name, so it cannot leak."""
    folder = "/dev/shm" if os.path.isdir("/dev/shm") and os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.dup(file.fileno())


def _shut(runners: list[_Runner], memory_fd: int) -> None:
    for runner in runners:
        if isinstance(runner, LaneProcess):
            runner.hang_up()  # so that all workers end at the same time
    for runner in runners:
        runner.close()
    runners.clear()
    if memory_fd >= 0:
        os.close(memory_fd)
