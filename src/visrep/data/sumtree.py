"""Weighted draws from many leaves whose weights change: a binary tree of sums in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from visrep.data.columns import Index

Weights = NDArray[np.float64]
ROUNDS = 32


class SumTree:
    """Non-negative weights [n] with O(log n) change and look-up, vectorised.

    Every inner node is computed as the sum of its two children, never adjusted by a difference: the tree depends on
    its present leaves alone, so one that is rebuilt equals one that was changed step by step, bit for bit.
    """

    def __init__(self, leaves: int) -> None:
        """All weights are zero."""
        self.leaves = leaves
        self.base = 1 << max(0, (leaves - 1).bit_length())  # node i has the children 2i and 2i + 1; leaf j is base + j
        self._levels = self.base.bit_length() - 1
        self._nodes = np.zeros(2 * self.base)

    @property
    def weights(self) -> Weights:
        """The leaves, [n]; change them through ``set`` only."""
        return self._nodes[self.base : self.base + self.leaves]

    @property
    def total(self) -> float:
        """Sum of all weights."""
        return float(self._nodes[1])

    def set(self, leaves: Index, weights: Weights) -> None:
        """Set ``weights`` [m] of distinct ``leaves`` [m]."""
        self._nodes[self.base + leaves] = weights
        parents = self.base + leaves
        for _ in range(self._levels):
            parents = np.unique(parents >> 1)
            self._nodes[parents] = self._nodes[2 * parents] + self._nodes[2 * parents + 1]

    def find(self, mass: Weights) -> Index:
        """The first leaf whose cumulative sum reaches ``mass`` [m] in [0, total]; a leaf of weight 0 never."""
        node, left = np.ones(len(mass), np.int64), mass.copy()
        for _ in range(self._levels):
            node *= 2
            lower, upper = self._nodes[node], self._nodes[node + 1]
            # Rounding may carry a mass past the last weight above 0, or leave 0 in front of the first one.
            right = ((left > lower) | (lower == 0)) & (upper > 0)
            left -= np.where(right, lower, 0)
            node += right
        return node - self.base


def distinct_leaves(tree: SumTree, count: int, uniforms: Callable[[int], Weights], rounds: int = ROUNDS) -> Index:
    """Leaves drawn by weight without replacement, in the order of their first draw.

    Draws ``count`` leaves, then twice as many as are missing until ``count`` distinct ones are found (ATC's replay).
    The first ``count`` of the result are successive draws without replacement. The released code sorts the result by
    leaf before it keeps ``count``, which favours low leaves.

    Args:
        tree: the weights.
        count: how many are wanted; at most as many as have a weight above 0.
        uniforms: gives m numbers uniform in [0, 1).
        rounds: give up after so many; the result may then be shorter.
    """
    found = np.zeros(0, np.int64)
    missing = count
    for turn in range(rounds):
        if missing <= 0:
            break
        drawn = tree.find(uniforms(missing if turn == 0 else 2 * missing) * tree.total)
        found = np.concatenate([found, drawn])
        found = found[np.sort(np.unique(found, return_index=True)[1])]
        missing = count - len(found)
    return found
