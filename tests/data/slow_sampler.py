"""What a sample must be, written with loops over the plain record and is_first alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from histories import Row

from visrep.data.batch import BatchSpec


@dataclass
class SlowLane:
    rows: list[Row]
    window: int
    stack: int
    padding: str = "repeat"

    @property
    def start(self) -> int:
        return max(0, len(self.rows) - self.window)

    def episode(self, row: int) -> int:
        """Row number of the first row of ``row``'s episode."""
        while not self.rows[row].first:
            row -= 1
        return row

    def stack_rows(self, row: int) -> list[int]:
        return [max(row - j, self.episode(row)) for j in range(self.stack - 1, -1, -1)]

    def stacked(self, row: int) -> np.ndarray:
        frames = []
        for back in range(self.stack - 1, -1, -1):
            inside = row - back >= self.episode(row)
            frame = self.rows[max(row - back, self.episode(row))].frame
            frames.append(frame if inside or self.padding == "repeat" else np.zeros_like(frame))
        return np.concatenate(frames)

    def shows(self, row: int, anchor: int) -> bool:
        """Whether ``row`` exists in the anchor's episode with its whole stack."""
        if not self.start <= row < len(self.rows) or self.episode(row) != self.episode(anchor):
            return False
        return min(self.stack_rows(row)) >= self.start

    def may_anchor(self, row: int, spec: BatchSpec) -> bool:
        needed = range(spec.n_step + 1) if spec.crossing == "mask" else (0, *spec.offsets, *range(spec.n_step + 1))
        return all(self.shows(row + o, row) for o in needed)

    def anchors(self, spec: BatchSpec) -> list[int]:
        return [row for row in range(self.start, len(self.rows)) if self.may_anchor(row, spec)]

    def sample(self, anchor: int, spec: BatchSpec, discount: float) -> dict[str, np.ndarray]:
        shown, valid = [], []
        for offset in spec.offsets:
            row = anchor + offset
            valid.append(self.shows(row, anchor))
            while not self.shows(row, anchor):
                row += -1 if offset > 0 else 1
            shown.append(row)
        total, weight = 0.0, 1.0
        for i in range(spec.n_step):
            total += weight * self.rows[anchor + 1 + i].reward
            weight *= discount * (1.0 - self.rows[anchor + 1 + i].terminal)
        return {
            "image": np.stack([self.stacked(r) for r in shown]),
            "action": np.stack([self.rows[r].action for r in shown]),
            "reward": np.array([[self.rows[r].reward] for r in shown], np.float32),
            "terminal": np.array([[self.rows[r].terminal] for r in shown]),
            "state": np.stack([self.rows[r].state for r in shown]),
            "valid": np.array(valid),
            "return": np.array([total]),
            "discount": np.array([weight]),
        }
