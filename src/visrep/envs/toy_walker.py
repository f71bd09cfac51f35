"""A script that walks the toy arenas: to the goal where there is one, else from one random place to the next.

Shapes: N counted cells.
"""

from __future__ import annotations

import math
from collections import deque
from functools import cache

import numpy as np
from numpy.typing import NDArray

from visrep.envs.contract import Action
from visrep.envs.toy_layouts import GRID, LAYOUTS, Point, cell_table

CELL = 1.0 / GRID


class Walker:
    """Follows shortest paths from cell centre to cell centre, of cells that share a side.

    Walls are thicker than a cell, so between two such centres there is none.

    Args:
        layout: name of the arena.
        goal: where to go and stay; None walks to uniformly drawn cells, one after the other.
        reach: displacement of a full action in one agent step, in arena sides.
    """

    def __init__(self, layout: str, goal: Point | None, reach: float) -> None:
        self._layout, self._goal, self._reach = layout, goal, reach
        self._cells = cell_table(layout)
        self._centers = (np.argwhere(self._cells >= 0) + 0.5) / GRID  # [N, 2]
        self._target = -1

    def begin(self) -> None:
        """An episode begins: forget where the last one was going."""
        self._target = -1

    def action(self, state: NDArray[np.float32], generator: np.random.Generator) -> Action:
        """The next action [2] at position ``state`` [2]; ``generator`` draws where to go."""
        here = self._cell(state)
        if self._goal is not None:
            self._target = self._cell(np.asarray(self._goal))
        elif self._target in (-1, here):
            self._target = int(generator.integers(len(self._centers)))
        aim = self._centers[_next_cells(self._layout, self._target)[here]]
        if self._goal is not None and math.dist(state, self._goal) <= CELL:  # it may lie where cells meet
            aim = np.asarray(self._goal)
        return np.clip((aim - state) / self._reach, -1.0, 1.0).astype(np.float32)

    def _cell(self, position: NDArray[np.floating]) -> int:
        """The counted cell with the nearest centre; a point beside a wall may lie in a cell that is not counted."""
        return int(np.argmin(np.sum((self._centers - position) ** 2, axis=1)))


@cache
def _next_cells(layout: str, target: int) -> NDArray[np.int64]:
    """For every counted cell the neighbour that is one cell nearer to ``target``, [N]."""
    assert layout in LAYOUTS
    table = cell_table(layout)
    places = np.argwhere(table >= 0)  # in the order of the cells' numbers
    nearer = np.full(len(places), -1, dtype=np.int64)
    nearer[target] = target
    queue = deque([target])
    while queue:
        cell = queue.popleft()
        x, y = places[cell]
        for i, j in ((x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)):
            if 0 <= i < GRID and 0 <= j < GRID and (other := table[i, j]) >= 0 and nearer[other] < 0:
                nearer[other] = cell
                queue.append(int(other))
    return nearer
