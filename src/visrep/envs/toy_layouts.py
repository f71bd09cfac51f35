"""The arenas of the toy suite: walls, start region and goals in the unit square, and how a point moves among them.

Coordinates: x grows to the right and y upwards, both in 0..1. Shapes: G cells per side, N reachable cells.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Rect = tuple[float, float, float, float]  # x0, y0, x1, y1
Point = tuple[float, float]

GRID = 20  # coverage cells per side
FINE = 5  # flood-fill samples per cell side; odd, so that one sample is the cell's centre
THICK = 0.06  # wall thickness


@dataclass(frozen=True)
class Layout:
    """One arena.

    Attributes:
        walls: axis-aligned rectangles that the point cannot enter.
        start: rectangle from which episodes start, uniformly.
        goals: centre of each named goal.
    """

    walls: tuple[Rect, ...]
    start: Rect
    goals: dict[str, Point] = field(default_factory=dict)


def _vertical(x: float, y0: float, y1: float) -> Rect:
    return (x - THICK / 2, y0, x + THICK / 2, y1)


def _horizontal(y: float, x0: float, x1: float) -> Rect:
    return (x0, y - THICK / 2, x1, y + THICK / 2)


LAYOUTS: dict[str, Layout] = {
    # Three rooms in an S: up the first, down the second, up the third. Starts at the dead end of the first room, so
    # that uniform random actions stay there (about 19 % of the cells in 60,000 agent steps).
    "s3": Layout(
        walls=(_vertical(1 / 3, 0.0, 0.8), _vertical(2 / 3, 0.2, 1.0)),
        start=(0.05, 0.05, 0.15, 0.15),
        goals={"center": (0.5, 0.5), "far": (0.85, 0.9)},
    ),
    "open": Layout(walls=(), start=(0.05, 0.05, 0.25, 0.25), goals={"center": (0.5, 0.5), "far": (0.9, 0.9)}),
    "one_wall": Layout(walls=(_vertical(0.5, 0.0, 0.75),), start=(0.05, 0.05, 0.25, 0.25), goals={"far": (0.85, 0.1)}),
    # Four rooms joined at the rim, as in the point-mass maze of ExORL (Yarats et al. 2022).
    "cross": Layout(
        walls=(_vertical(0.5, 0.15, 0.85), _horizontal(0.5, 0.15, 0.85)),
        start=(0.05, 0.75, 0.25, 0.95),
        goals={
            "top_right": (0.8, 0.8),
            "bottom_left": (0.2, 0.2),
            "bottom_right": (0.8, 0.2),
        },
    ),
}


def slide(walls: tuple[Rect, ...], x: float, y: float, dx: float, dy: float) -> Point:
    """Move a point by (dx, dy): first along x, then along y, each stopped by the first wall face in its way.

    Because the swept interval is tested, no step length tunnels through a wall; the axis that is free still moves,
    so the point slides. Faces belong to the free space.
    """
    target = min(max(x + dx, 0.0), 1.0)
    for x0, y0, x1, y1 in walls:
        if y0 < y < y1:
            if x <= x0 < target:
                target = x0
            elif target < x1 <= x:
                target = x1
    x, target = target, min(max(y + dy, 0.0), 1.0)
    for x0, y0, x1, y1 in walls:
        if x0 < x < x1:
            if y <= y0 < target:
                target = y0
            elif target < y1 <= y:
                target = y1
    return x, target


def inside_wall(walls: tuple[Rect, ...], x: float, y: float) -> bool:
    """True strictly inside a wall."""
    return any(x0 < x < x1 and y0 < y < y1 for x0, y0, x1, y1 in walls)


@lru_cache(maxsize=16)
def cell_table(layout: str) -> NDArray[np.int64]:
    """Cell numbering of a layout, [GRID, GRID] indexed by (x cell, y cell): 0..N-1, or -1 where not reachable.

    A cell counts when its centre can be reached from the centre of the start region: a flood fill over FINE x FINE
    samples per cell, so that gaps and walls narrower than a cell are seen.
    """
    arena = LAYOUTS[layout]
    side = GRID * FINE
    free = np.array(
        [[not inside_wall(arena.walls, (i + 0.5) / side, (j + 0.5) / side) for j in range(side)] for i in range(side)]
    )
    x0, y0, x1, y1 = arena.start
    first = (int((x0 + x1) / 2 * side), int((y0 + y1) / 2 * side))
    reached = np.zeros((side, side), dtype=bool)
    reached[first] = True
    queue = deque([first])
    while queue:
        i, j = queue.popleft()
        for a, b in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
            if 0 <= a < side and 0 <= b < side and free[a, b] and not reached[a, b]:
                reached[a, b] = True
                queue.append((a, b))
    counted = reached[FINE // 2 :: FINE, FINE // 2 :: FINE]  # [GRID, GRID]
    table = np.full((GRID, GRID), -1, dtype=np.int64)
    table[counted] = np.arange(int(counted.sum()))
    table.setflags(write=False)  # shared by every environment of this layout
    return table
