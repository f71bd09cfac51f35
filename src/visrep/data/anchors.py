"""Which rows may anchor a sample, and uniform draws of them.

A window is ``anchor + low .. anchor + high``. Episode steps count up by one inside an episode, so the rows a and a + k
belong to one episode exactly when ``step[a + k] == step[a] + k``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visrep.data.columns import Index
from visrep.data.store import FrameStore
from visrep.errors import UserError

LOWEST_ACCEPTANCE = 1 / 8
ROUNDS = 16


@dataclass(frozen=True)
class Window:
    """Rows that a sample needs: ``low <= 0 <= high`` relative to the anchor, and ``stack - 1`` frames before each."""

    low: int
    high: int
    stack: int


def too_few(wanted: int, able: int, rows: int, otherwise: str = "") -> UserError:
    """The error that a draw of ``wanted`` anchors ends in where ``able`` of the stored ``rows`` can be drawn.

    ``otherwise`` is said of what else may be changed.
    """
    return UserError(
        f"batch larger than data: {wanted} samples were asked for, but only {able} of {rows} stored rows can start "
        f"one; collect more steps first (num_seed_steps), or lower batch_size (repr_batch_size){otherwise}"
    )


class Anchors:
    """Draws anchors uniformly over all valid ones. The result depends only on the store's rows and the generator."""

    def __init__(self, store: FrameStore, window: Window, draws: int) -> None:
        """Draw ``draws`` anchors at a time from ``store``."""
        self.store = store
        self.window = window
        self.draws = draws
        self._listed: Index | None = None
        self._listed_version = -1

    def valid(self, lanes: Index, rows: Index) -> NDArray[np.bool_]:
        """Whether readable rows [n] have their whole window in one episode and their stacked frames in the store."""
        rings, steps, w = self.store.rings, self.store.episode_steps, self.window
        step = steps[rings.positions(lanes, rows)].astype(np.int64)
        # Frame stacks repeat the first frame at an episode's start, so they reach back min(stack - 1, step) rows.
        lowest_step = step + w.low
        oldest = rows + w.low - np.minimum(w.stack - 1, lowest_step)
        ok = (lowest_step >= 0) & (oldest >= rings.starts[lanes])
        if w.high:
            ok &= rows + w.high < rings.counts[lanes]
            ok &= steps[rings.positions(lanes, rows + w.high)] == step + w.high
        return np.asarray(ok)

    def all(self) -> Index:
        """Every valid anchor, as indices for ``Rings.locate``, ascending. Kept until the store changes."""
        if self._listed is None or self._listed_version != self.store.version:
            lanes, rows = self.store.rings.locate(np.arange(self.store.rows))
            self._listed = np.flatnonzero(self.valid(lanes, rows))
            self._listed_version = self.store.version
        return self._listed

    def draw(self, generator: np.random.Generator, draws: int | None = None) -> tuple[Index, Index]:
        """(lanes, row numbers) of ``draws`` anchors, uniform with replacement; None draws as many as always.

        Raises:
            UserError: fewer valid anchors than ``draws``. (Counted where data are scarce; a store that accepts more
                than 1/8 of uniformly drawn rows and holds eight times as many rows as draws has enough.)
        """
        total = self.store.rows
        chosen: list[Index] = []
        missing = wanted = self.draws if draws is None else draws
        if total >= wanted / LOWEST_ACCEPTANCE:
            for _ in range(ROUNDS):
                candidates = generator.integers(0, total, size=missing + missing // 8 + 8)
                accepted = candidates[self.valid(*self.store.rings.locate(candidates))][:missing]
                if len(accepted) < LOWEST_ACCEPTANCE * missing:
                    break
                chosen.append(accepted)
                missing -= len(accepted)
                if not missing:
                    return self.store.rings.locate(np.concatenate(chosen))
        anchors = self.all()
        if len(anchors) < wanted:
            raise too_few(wanted, len(anchors), total)
        chosen.append(anchors[generator.integers(0, len(anchors), size=missing)])
        return self.store.rings.locate(np.concatenate(chosen))
