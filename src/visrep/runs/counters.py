"""Where a run stands."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Counters:
    """Progress of a run; every field survives a crash except ``actions``, which lives within one step.

    Attributes:
        agent_step: agent steps taken in the whole run, over all environments.
        updates: updates made in the whole run.
        phase: index of the running phase.
        phase_updates: updates made in this phase.
        learn_start: agent step of this phase's first update, -1 before it.
        started: whether the environments' first episodes have begun in this phase.
        evaluated_at: agent step of the newest evaluation, -1 before the first.
        episodes: finished episodes.
        owed: updates of the objective that the newest policy update still brings with it.
    """

    saved = (
        "agent_step", "updates", "phase", "phase_updates", "learn_start", "started", "evaluated_at", "episodes", "owed",
    )  # fmt: skip

    def __init__(self) -> None:
        self.agent_step = 0
        self.updates = 0
        self.phase = 0
        self.phase_updates = 0
        self.learn_start = -1
        self.started = False
        self.evaluated_at = -1
        self.episodes = 0
        self.owed = 0
        self.actions: NDArray[np.float32] = np.zeros((0, 0), dtype=np.float32)

    @property
    def where(self) -> str:
        """In words, for messages."""
        return f"agent step {self.agent_step}, update {self.updates}"

    def next_phase(self) -> None:
        """Enter the next phase: its updates and its episodes start afresh, the agent steps go on."""
        self.phase += 1
        self.phase_updates = 0
        self.learn_start = -1
        self.started = False

    def state_dict(self) -> dict[str, Any]:
        """Plain integers and booleans."""
        return {name: getattr(self, name) for name in self.saved}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` stood."""
        for name in self.saved:
            setattr(self, name, state[name])
