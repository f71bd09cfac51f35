"""What a run tells while it goes: episodes, losses, intrinsic reward, coverage, speed, memory, and NaN as an error."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visrep.envs.vector import VectorStep
from visrep.log import RunLog
from visrep.runs.counters import Counters
from visrep.runs.coverage import Coverage
from visrep.runs.window import MetricsWindow


class Monitor:
    """Collects what happened and writes it to the log; holds no part of the computation.

    Args:
        log: where rows go.
        counters: where the run stands.
        num_envs: lanes.
        coverage: visit counts, or None where the environment offers no privileged state.
        log_agent_steps: agent steps after which a metrics row is due, besides the one at each end of lane 0's episode.
        device: where losses live.
    """

    def __init__(
        self,
        log: RunLog,
        counters: Counters,
        num_envs: int,
        coverage: Coverage | None,
        log_agent_steps: int,
        device: torch.device,
    ) -> None:
        self.log = log
        self.counters = counters
        self.coverage = coverage
        self.returns = np.zeros(num_envs, dtype=np.float64)
        self.lengths = np.zeros(num_envs, dtype=np.int64)
        self.successes = np.zeros(num_envs, dtype=bool)
        self.metrics_at = 0
        self.metrics_due = False
        self.recent_return = math.nan
        self._log_agent_steps = log_agent_steps
        self._episode_began = np.full(num_envs, time.monotonic())
        self._window = MetricsWindow(device, **self._counts())

    def _counts(self) -> dict[str, int]:
        return {"agent_steps": self.counters.agent_step, "updates": self.counters.updates}

    def learned(self, metrics: dict[str, Tensor]) -> None:
        """Take one update's metrics; NonFiniteLoss where one is NaN or infinite."""
        self._window.add(metrics, self.counters.updates, self.counters.where)

    def warn(self, message: str) -> None:
        """Tell the user, on the screen and in the log, that something looks wrong; the run goes on."""
        self.log.warning(self.counters.agent_step, message)

    def visited(self, state: NDArray[np.float32] | None) -> None:
        """Count privileged states [n, K] for the coverage."""
        if self.coverage is not None and state is not None:
            self.coverage.visit(state)

    def stepped(self, step: VectorStep) -> None:
        """Take one vector step: returns, lengths, finished episodes, crashed workers."""
        self.visited(step.state)
        self.returns[step.lanes] += step.reward
        self.lengths[step.lanes] += 1
        if step.success is not None:
            self.successes[step.lanes] |= step.success
        for message in step.crashed:
            self.log.event(self.counters.agent_step, message)
        for lane in step.lanes[step.is_last]:
            self._finish(int(lane), step.success is not None)
        if step.reset is not None:
            # Also lanes whose worker died: their unfinished episode counts for nothing.
            self.returns[step.reset.lanes] = 0.0
            self.lengths[step.reset.lanes] = 0
            self.successes[step.reset.lanes] = False
        if self.counters.agent_step - self.metrics_at >= self._log_agent_steps:
            self.metrics_due = True

    def _finish(self, lane: int, has_success: bool) -> None:
        now = time.monotonic()
        self.counters.episodes += 1
        self.recent_return = float(self.returns[lane])
        self.log.train(
            self.counters.agent_step,
            episode=self.counters.episodes,
            episode_reward=self.recent_return,
            fps=self.lengths[lane] / max(1e-9, now - self._episode_began[lane]),
            length=int(self.lengths[lane]),
            success=float(self.successes[lane]) if has_success else None,
        )
        self._episode_began[lane] = now
        self.metrics_due = self.metrics_due or lane == 0

    def write_metrics(self, extra: dict[str, float]) -> None:
        """Write one metrics row: means since the last row, coverage, speed, memory."""
        values = {**self._window.row(**self._counts()), **extra, "updates": float(self.counters.updates)}
        if self.coverage is not None:
            values.update(self.coverage.metrics())
        self.log.metrics(self.counters.agent_step, values)
        self.metrics_at = self.counters.agent_step
        self.metrics_due = False

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides what later rows say, times aside."""
        return {
            "accumulator": self._window.state_dict(),
            "coverage": None if self.coverage is None else self.coverage.state_dict(),
            "returns": torch.from_numpy(self.returns.copy()),
            "lengths": torch.from_numpy(self.lengths.copy()),
            "successes": torch.from_numpy(self.successes.copy()),
            "metrics_at": self.metrics_at,
            "metrics_due": self.metrics_due,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` stood; speeds are measured from now."""
        self._window.load_state_dict(state["accumulator"])
        if self.coverage is not None and state["coverage"] is not None:
            self.coverage.load_state_dict(state["coverage"])
        self.returns[:] = state["returns"].numpy()
        self.lengths[:] = state["lengths"].numpy()
        self.successes[:] = state["successes"].numpy()
        self.metrics_at, self.metrics_due = state["metrics_at"], state["metrics_due"]
        self._window.begin(**self._counts())
