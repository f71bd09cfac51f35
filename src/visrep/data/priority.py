"""Anchors drawn by the reward that follows them: ATC's prioritised replay for sparse rewards.

p_t = 1 + alpha * R_t^beta with R_t = sum_{i<n} gamma^i |r_{t+i}|, cut at the episode's end (astooke/rlpyt, the replay
for unsupervised learning). r_t is the reward of the transition t -> t+1; it lies in row t+1 of a store, which is where
this file reads it.

Shapes: m anchors, n steps of the return.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from visrep.data.anchors import Anchors, Window, too_few
from visrep.data.columns import Index
from visrep.data.store import FrameStore
from visrep.data.sumtree import SumTree, distinct_leaves
from visrep.errors import UserError

CHUNK = 4096


@dataclass(frozen=True)
class RewardPriority:
    """How reward-rich futures are favoured.

    Attributes:
        alpha: weight of the return; 0 draws uniformly.
        beta: its exponent.
        n_step: agent steps that the return looks ahead.
        gamma: discount per agent step.
    """

    alpha: float = 1.0
    beta: float = 1.0
    n_step: int = 100
    gamma: float = 0.99

    def __post_init__(self) -> None:
        if self.alpha < 0 or self.beta < 0 or self.n_step < 1 or not 0 <= self.gamma <= 1:
            raise ValueError(f"priorities need alpha >= 0, beta >= 0, n_step >= 1 and 0 <= gamma <= 1; got {self}")

    def of(self, rewards: NDArray[np.floating], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Priorities [m] from the n rewards after each anchor [m, n], of those ``inside`` [m, n] its episode.

        Summed in order, so that a row's priority does not depend on which rows are computed with it.
        """
        returns = np.zeros(len(rewards))
        for i in range(self.n_step):
            returns = returns + self.gamma**i * np.abs(rewards[:, i], dtype=np.float64) * inside[:, i]
        return np.asarray(1 + self.alpha * returns**self.beta)


class PriorityAnchors(Anchors):
    """Draws distinct valid anchors by reward priority.

    A priority is fixed when its return is complete. The newest rows of each lane are not drawn: n of them, or as many
    as the window reaches ahead if that is more, so a window never runs into rows that are still to come. No importance
    weights, no updates from errors. The priorities are a function of the store's rows, so nothing is saved: they are
    computed anew after a load, and otherwise kept up with new rows at the next draw.
    """

    def __init__(self, store: FrameStore, window: Window, draws: int, priority: RewardPriority, reach: int) -> None:
        """Draw ``draws`` anchors at a time from ``store``; ``reach`` >= ``window.high`` is the highest offset shown.

        Raises:
            UserError: the store has no rewards.
        """
        if not store.spec.rewards:
            raise UserError("prioritised replay needs rewards, and this store has none: draw uniformly (alpha = 0)")
        super().__init__(store, window, draws)
        self.priority = priority
        self.tree = SumTree(store.lanes * store.rings.ring)
        self._behind = max(priority.n_step, reach)  # newest rows of a lane that are not drawn
        self._counts = np.zeros(store.lanes, np.int64)  # row counts that the tree has seen
        self._version = -1
        self._loads = store.loads

    def draw(self, generator: np.random.Generator, draws: int | None = None) -> tuple[Index, Index]:
        """(lanes, row numbers) of distinct anchors in the order of drawing.

        Raises:
            UserError: fewer anchors with complete returns than draws.
        """
        self.catch_up()
        count = self.draws if draws is None else draws
        able = int(np.count_nonzero(self.tree.weights))
        if able < count:
            waiting = f" or repr_priority_steps: the newest {self._behind} rows of each environment are never drawn"
            raise too_few(count, able, self.store.rows, waiting)
        leaves = distinct_leaves(self.tree, count, generator.random)[:count]
        if len(leaves) < count:  # a few weights outshine the others
            leaves = np.concatenate([leaves, self._rest(leaves, count - len(leaves), generator)])
        ring = self.store.rings.ring
        lanes, positions = leaves // ring, leaves % ring
        newest = self.store.rings.counts[lanes] - 1
        return lanes, newest - (newest - positions) % ring

    def _rest(self, taken: Index, count: int, generator: np.random.Generator) -> Index:
        """Further draws without replacement: the smallest exponential times E_j / w_j (Efraimidis, Spirakis 2006)."""
        weights = self.tree.weights.copy()
        weights[taken] = 0
        able = np.flatnonzero(weights)
        times = generator.exponential(size=len(able)) / weights[able]
        return able[np.argsort(times)[:count]]

    def catch_up(self) -> None:
        """Bring the priorities up to the store's rows: O(new rows) unless the store was loaded."""
        if self._version == self.store.version:
            return
        rings = self.store.rings
        if self._loads != self.store.loads:
            self.tree = SumTree(self.tree.leaves)
            self._counts = np.zeros(rings.lanes, np.int64)
        parts = [self._changed(lane) for lane in range(rings.lanes)]
        lanes = np.concatenate([np.full(len(rows), lane, np.int64) for lane, rows in enumerate(parts)])
        rows = np.concatenate(parts)
        for first in range(0, len(rows), CHUNK):
            some = slice(first, first + CHUNK)
            self._measure(lanes[some], rows[some])
        self._counts = rings.counts.copy()
        self._version, self._loads = self.store.version, self.store.loads

    def _changed(self, lane: int) -> Index:
        """Rows of a lane whose weight may not be what the tree holds, each position once."""
        rings, w = self.store.rings, self.window
        start, count, seen = int(rings.starts[lane]), int(rings.counts[lane]), int(self._counts[lane])
        if count == seen:
            return np.zeros(0, np.int64)
        oldest = max(0, count - rings.ring)  # rows since then lie in the ring, readable or not
        if count - seen + self._behind >= rings.window:
            return np.arange(oldest, count)
        # The oldest rows lose their frame stacks, or are no longer readable; the newest are new, or complete now.
        front = np.arange(max(oldest, seen - rings.window), min(count, start + w.stack - 1 - w.low))
        back = np.arange(max(seen - self._behind, front[-1] + 1 if len(front) else 0), count)
        return np.concatenate([front, back])

    def _measure(self, lanes: Index, rows: Index) -> None:
        """Set the weights of rows [m] of ``lanes`` [m]: 0 where they cannot be drawn."""
        rings, p = self.store.rings, self.priority
        weights = np.zeros(len(rows))
        able = (rows >= rings.starts[lanes]) & (rows + self._behind < rings.counts[lanes])
        able[able] = self.valid(lanes[able], rows[able])
        lane, row = lanes[able][:, None], rows[able][:, None]
        ahead = np.arange(1, p.n_step + 1)
        positions = rings.positions(lane, row + ahead)  # [m, n]
        steps = self.store.episode_steps
        inside = steps[positions] == steps[rings.positions(lane, row)] + ahead
        rewards = self.store.gather("reward", torch.from_numpy(positions).to(self.store.device))[..., 0]
        weights[able] = p.of(rewards.cpu().numpy(), inside)
        self.tree.set(rings.positions(lanes, rows), weights)
