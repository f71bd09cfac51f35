"""The loop that records: steps the environments and puts every episode that is over into the dataset.

Shapes: E lanes, A action.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visrep.collecting.actors import Actor
from visrep.collecting.quota import Quota
from visrep.console import Console
from visrep.data.writer import DatasetWriter
from visrep.envs.vector import FirstRows, VectorEnv, VectorStep
from visrep.errors import UserError
from visrep.runs.stopping import StopRequest

ACTIONS = 1  # tells the actions' random streams from the environments'
SIDE = ("state", "observation")


@dataclass
class _Row:
    """One row that is not in the store yet; see ``FrameStore.add``."""

    frame: NDArray[Any]
    action: NDArray[np.float32]
    reward: float
    terminal: bool
    is_last: bool
    side: dict[str, NDArray[np.float32]]


@dataclass
class Recorder:
    """Records episodes of all lanes until the quota is met.

    A row waits until its episode is over: a crash or a kill leaves no half episode in the data. Every lane goes on with
    the episode number after its last one, so a continued recording equals an uninterrupted one.
    """

    envs: VectorEnv
    actor: Actor
    writer: DatasetWriter
    quota: Quota
    returns: list[float] = field(default_factory=list)  # of the episodes that this process recorded
    crashes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        lanes = self.envs.num_envs
        self.episodes = self.writer.finished_episodes
        self.agent_steps = self.writer.store.rings.counts - self.episodes  # an episode has one row more than steps
        self._next = np.asarray(self.writer.progress.get("next_episode", [0] * lanes), np.int64)
        self._waiting: list[list[_Row]] = [[] for _ in range(lanes)]
        self._generators = [np.random.default_rng() for _ in range(lanes)]

    @property
    def open(self) -> list[bool]:
        """Lanes that have to record more."""
        pairs = zip(self.episodes.tolist(), self.agent_steps.tolist(), strict=True)
        return [not self.quota.met(lane, *done) for lane, done in enumerate(pairs)]

    @property
    def done(self) -> int:
        """Agent steps recorded, those of episodes under way in open lanes included."""
        under_way = sum(max(0, len(rows) - 1) for rows, is_open in zip(self._waiting, self.open) if is_open)
        return int(self.agent_steps.sum()) + under_way

    def start(self) -> None:
        """Begin every lane's next episode."""
        self._begin(self.envs.begin(self._next))

    def step(self) -> bool:
        """One agent step of every lane; whether an episode was recorded."""
        actions = self.actor.actions(self._generators)
        step = self.envs.step(actions)
        self.actor.see(step)
        is_open, recorded = self.open, False
        for i, lane in enumerate(step.lanes.tolist()):
            if is_open[lane]:
                ends = bool(step.terminal[i]), bool(step.is_last[i])
                row = _Row(step.frames[i], actions[lane], float(step.reward[i]), *ends, _side(step, i))
                self._waiting[lane].append(row)
                if row.is_last:
                    self._write(lane)
                    recorded = True
        self.crashes += step.crashed
        self._next = np.where(self.open, self.envs.episodes, self._next)
        if step.reset is not None:
            self._begin(step.reset)
        return recorded

    def checkpoint(self) -> None:
        """Make what is recorded survive a kill."""
        self.writer.checkpoint({"next_episode": self._next.tolist()})

    def _begin(self, first: FirstRows) -> None:
        zero = np.zeros(self.envs.action_dim, np.float32)
        numbers = self.envs.episodes
        for i, lane in enumerate(first.lanes.tolist()):
            entropy = [self.envs.seed, lane, int(numbers[lane]), ACTIONS]
            self._generators[lane] = np.random.default_rng(np.random.SeedSequence(entropy))
            self._waiting[lane] = [_Row(first.frames[i], zero, 0.0, False, False, _side(first, i))]
        self.actor.begin(first, self._generators)

    def _write(self, lane: int) -> None:
        rows, self._waiting[lane] = self._waiting[lane], []
        if len(rows) > self.writer.room[lane]:
            raise UserError(
                f"env={self.envs.spec.name}: its episodes are so short that their first rows do not fit into the room "
                f"made for {self.quota.text}: ask for episodes=<n> instead, in another folder"
            )
        for t, row in enumerate(rows):
            self.writer.store.add(
                [lane],
                row.frame[None],
                row.action[None],
                [row.reward],
                [t == 0],
                [row.terminal],
                [row.is_last],
                {name: value[None] for name, value in row.side.items()},
            )
        self.episodes[lane] += 1
        self.agent_steps[lane] += len(rows) - 1
        self.returns.append(sum(row.reward for row in rows))


def record(recorder: Recorder, console: Console, stop: StopRequest, total: int, checkpoint_seconds: float) -> bool:
    """Record until the quota is met; False when it was stopped before (what is recorded is kept).

    Args:
        recorder: the parts.
        console: shows progress and crashes.
        stop: looked at before every step.
        total: agent steps to expect, for the progress display. Episodes that end early may make it more.
        checkpoint_seconds: at most so much time's work is lost by a kill, and the episodes under way.
    """
    saved, unsaved, reported = time.monotonic(), False, 0
    with console.progress(total, "collect", done=min(recorder.done, total)) as progress:
        if any(recorder.open):
            recorder.start()
        while any(recorder.open):
            if stop:
                recorder.checkpoint()
                return False
            unsaved |= recorder.step()
            for crash in recorder.crashes[reported:]:
                console.line(f"note: {crash}", style="yellow")
            reported = len(recorder.crashes)
            if unsaved and time.monotonic() - saved >= checkpoint_seconds:
                recorder.checkpoint()
                saved, unsaved = time.monotonic(), False
            recent = {"return": float(np.mean(recorder.returns))} if recorder.returns else {}
            progress.update(min(recorder.done, total), episodes=int(recorder.episodes.sum()), **recent)
    return True


def _side(rows: FirstRows | VectorStep, i: int) -> dict[str, NDArray[np.float32]]:
    pairs = {name: getattr(rows, name) for name in SIDE}
    return {name: value[i] for name, value in pairs.items() if value is not None}
