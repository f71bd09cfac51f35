"""Drawing the toy arenas: an anti-aliased background drawn once, and a disc blended over it at every step.

Shapes: S image size in pixels, D side of the disc's patch, P sub-pixel phases per axis. Images are [S, S, 3], row 0
is the top (y = 1).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from visrep.envs.toy_layouts import LAYOUTS, Point, Rect

FLOOR = (12, 14, 20)
WALL = (96, 104, 120)
AGENT = (255, 120, 60)
GOAL = (60, 160, 70)
AGENT_RADIUS = 0.05  # of the arena
PHASES = 16  # the disc moves in steps of 1/16 pixel
ONE = 256  # fixed-point 1.0 of the alpha tables

Image = NDArray[np.uint8]


def _overlap(low: float, high: float, size: int) -> NDArray[np.float64]:
    """Fraction of each of ``size`` pixels that the interval [low, high] of 0..1 covers, [S]."""
    edges = np.arange(size + 1) / size
    return np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0.0, None) * size


def _disc_alpha(x: float, y: float, radius: float, size: int) -> NDArray[np.float64]:
    """Coverage of each pixel by a disc, all in pixels, [S, S]; the edge is a ramp one pixel wide."""
    centres = np.arange(size) + 0.5
    distance = np.hypot(centres[:, None] - y, centres[None, :] - x)
    return np.clip(radius + 0.5 - distance, 0.0, 1.0)


@lru_cache(maxsize=32)
def background(layout: str, size: int, goal: Point | None = None, goal_radius: float = 0.0) -> Image:
    """The empty arena, [S, S, 3] and read-only, with the goal as a green disc where one is given."""
    image = np.broadcast_to(np.array(FLOOR, dtype=np.float64), (size, size, 3)).copy()
    if goal is not None:
        alpha = _disc_alpha(goal[0] * size, (1.0 - goal[1]) * size, goal_radius * size, size)[..., None]
        image += alpha * (np.array(GOAL) - image)
    alpha = np.zeros((size, size))
    for wall in LAYOUTS[layout].walls:
        alpha = np.maximum(alpha, _wall_alpha(wall, size))
    image += alpha[..., None] * (np.array(WALL) - image)
    drawn = np.rint(image).astype(np.uint8)
    drawn.setflags(write=False)
    return drawn


def _wall_alpha(wall: Rect, size: int) -> NDArray[np.float64]:
    x0, y0, x1, y1 = wall
    return _overlap(1.0 - y1, 1.0 - y0, size)[:, None] * _overlap(x0, x1, size)[None, :]


@lru_cache(maxsize=8)
def _disc_tables(size: int) -> tuple[NDArray[np.uint16], NDArray[np.uint16], float]:
    """The agent's disc at every sub-pixel phase.

    Returns:
        ink: colour times alpha in 1/256, [P, P, D, D, 3], phases indexed (row, column);
        keep: 256 - alpha, [P, P, D, D, 3];
        reach: pixels from the patch's corner to the disc's centre at phase 0.
    """
    radius = AGENT_RADIUS * size
    reach = math.ceil(radius + 0.5)
    side = 2 * reach + 1
    alpha = np.empty((PHASES, PHASES, side, side))
    for row in range(PHASES):
        for column in range(PHASES):
            y, x = reach + (row + 0.5) / PHASES, reach + (column + 0.5) / PHASES
            alpha[row, column] = _disc_alpha(x, y, radius, side)
    fixed = np.rint(alpha * ONE).astype(np.uint16)[..., None]
    ink = fixed * np.array(AGENT, dtype=np.uint16)
    keep = np.broadcast_to(ONE - fixed, ink.shape).astype(np.uint16)
    return ink, keep, reach


class Painter:
    """Draws the agent over a fixed background."""

    def __init__(self, base: Image) -> None:
        self.base = base
        self._wide = base.astype(np.uint16)
        self._size = base.shape[0]
        self._ink, self._keep, self._reach = _disc_tables(self._size)

    def draw(self, x: float, y: float) -> Image:
        """A new image with the agent at (x, y) in 0..1, [S, S, 3]."""
        size = self._size
        px, py = x * size, (1.0 - y) * size
        column, row = math.floor(px), math.floor(py)
        phase = (int((py - row) * PHASES), int((px - column) * PHASES))
        top, left = row - self._reach, column - self._reach  # of the patch, may lie outside the image
        side = 2 * self._reach + 1
        r0, r1 = max(top, 0), min(top + side, size)
        c0, c1 = max(left, 0), min(left + side, size)
        ink, keep = self._ink[phase], self._keep[phase]
        if r1 - r0 < side or c1 - c0 < side:
            inner = (slice(r0 - top, r1 - top), slice(c0 - left, c1 - left))
            ink, keep = ink[inner], keep[inner]
        image = self.base.copy()
        patch = self._wide[r0:r1, c0:c1] * keep  # at most 255 * 256 + 255 * 256 - ..., the two alphas sum to 256
        patch += ink
        patch >>= 8
        image[r0:r1, c0:c1] = patch
        return image
