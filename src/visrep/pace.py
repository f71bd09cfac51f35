"""How often the objective is updated beside the policy, and at which learning rate (Stooke et al. 2021, released code).

Iterations count policy updates. With r = (last - i) / (last - first), 1 at the first iteration and 0 at the last:
constant_X, front_X_Y (X once, then Y), linear_X, quadratic_X, cosine_X, pulse_X_Y (Y every X agent steps), mod_X (1
every X iterations).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Anneal = Literal["constant", "cosine"]
ARGUMENTS = {"constant": 1, "front": 2, "linear": 1, "quadratic": 1, "cosine": 1, "pulse": 2, "mod": 1}
HELP = "write constant_X, front_X_Y, linear_X, quadratic_X, cosine_X, pulse_X_Y or mod_X with whole numbers"


@dataclass(frozen=True)
class UpdateCounts:
    """Number of objective updates at each iteration.

    Attributes:
        kind: name before the first underscore.
        numbers: X, or X and Y.
        agent_steps_per_iteration: agent steps between two iterations; ``pulse`` is written in agent steps.
    """

    kind: str
    numbers: tuple[int, ...]
    agent_steps_per_iteration: float = 1.0

    def at(self, iteration: int, first: int, last: int) -> int:
        """Updates at ``iteration`` of ``first``..``last``; 0 outside. Rounds to nearest, ties to even."""
        if not first <= iteration <= last:
            return 0
        x = self.numbers[0]
        remaining = (last - iteration) / (last - first) if last > first else 1.0
        match self.kind:
            case "constant":
                return x
            case "front":
                return x if iteration == first else self.numbers[1]
            case "linear":
                return round(x * remaining)
            case "quadratic":
                return round(x * remaining**2)
            case "cosine":
                return round(x * math.sin(0.5 * math.pi * remaining))
            case "pulse":
                every = max(1, int(x // self.agent_steps_per_iteration))
                return self.numbers[1] if (iteration - first) % every == 0 else 0
        return int(iteration % x == 0)  # mod

    def total(self, first: int, last: int) -> int:
        """Sum over all iterations: what a cosine learning rate is planned on."""
        return sum(self.at(iteration, first, last) for iteration in range(first, last + 1))


def parse_update_counts(text: str, agent_steps_per_iteration: float = 1.0) -> UpdateCounts:
    """Read a schedule such as ``quadratic_6``.

    Raises:
        ValueError: not a schedule; says how to write one.
    """
    kind, *words = text.strip().split("_")
    if ARGUMENTS.get(kind) != len(words) or not all(word.isdigit() for word in words):
        raise ValueError(f"schedule {text!r} of the objective's updates is not understood: {HELP}")
    numbers = tuple(int(word) for word in words)
    if kind in ("pulse", "mod") and numbers[0] < 1:
        raise ValueError(f"schedule {text!r} repeats every 0 steps: {HELP}")
    return UpdateCounts(kind, numbers, agent_steps_per_iteration)


@dataclass(frozen=True)
class Pace:
    """When the objective is updated within one phase of a run.

    Attributes:
        counts: objective updates by iteration.
        end: agent step at which the phase ends.
        updates_per_agent_step: policy updates, hence iterations, per agent step.
        start_steps: agent steps before the objective's first update.
    """

    counts: UpdateCounts
    end: int
    updates_per_agent_step: float
    start_steps: int = 0

    def span(self, learn_start: int) -> tuple[int, int]:
        """First and last iteration, as ticks, of a phase whose learning begins at agent step ``learn_start``."""

        def tick(agent_step: int) -> int:
            return learn_start + math.ceil((agent_step - learn_start) * self.updates_per_agent_step - 1e-9)

        return tick(max(self.start_steps, learn_start)), tick(self.end) - 1

    def at(self, tick: int, learn_start: int) -> int:
        """Objective updates that belong to the policy update ``tick``."""
        return self.counts.at(tick, *self.span(learn_start))

    def total(self, learn_start: int) -> int:
        """All objective updates of the phase."""
        return _total(self.counts, *self.span(learn_start))


@functools.lru_cache(maxsize=8)
def _total(counts: UpdateCounts, first: int, last: int) -> int:
    return counts.total(first, last)


@dataclass(frozen=True)
class LearningRate:
    """Linear warm-up from 0, then constant or a cosine to 0 over the planned updates.

    Attributes:
        peak: rate after the warm-up.
        warmup: updates of the warm-up.
        anneal: "constant" or "cosine".
        planned: function that gives the planned total of updates; asked only where a cosine needs it.
    """

    peak: float
    warmup: int = 0
    anneal: Anneal = "constant"
    planned: Callable[[], int] | None = None

    def at(self, index: int) -> float:
        """Rate of update ``index``: counted from 0 in offline training (with a warm-up the first update has rate
        0), from 1 beside a policy, as in the released code."""
        if index < self.warmup:
            return self.peak * index / self.warmup
        if self.anneal == "constant" or self.planned is None:
            return self.peak
        span = max(self.planned() - self.warmup, 1)
        return 0.5 * self.peak * (1.0 + math.cos(math.pi * min((index - self.warmup) / span, 1.0)))
