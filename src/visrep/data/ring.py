"""Where rows lie: one ring per lane, addressed by (lane, row number since the store was made).

Row numbers only grow. Row r of lane l lies at ``l * ring + r % ring``; readable are the last ``window`` rows of a lane.
"""

from __future__ import annotations

import numpy as np

from visrep.data.columns import Index


class Rings:
    """Row counts of all lanes and the arithmetic between row numbers and positions."""

    def __init__(self, lanes: int, window: int, ring: int) -> None:
        """``lanes`` rings of ``ring`` rows each, of which the last ``window`` are readable."""
        if lanes < 1 or window < 2:
            raise ValueError(
                f"a store needs at least one lane and two rows per lane, got {lanes} lanes of {window} rows: "
                "raise the capacity (replay_buffer_capacity) or lower the number of lanes (num_envs)"
            )
        assert ring >= window
        self.lanes = lanes
        self.window = window
        self.ring = ring
        self.counts: Index = np.zeros(lanes, np.int64)

    @property
    def starts(self) -> Index:
        """First readable row number of each lane, [lanes]."""
        return np.maximum(self.counts - self.window, 0)

    @property
    def sizes(self) -> Index:
        """Readable rows of each lane, [lanes]."""
        return np.minimum(self.counts, self.window)

    def positions(self, lanes: Index, rows: Index) -> Index:
        """Positions of row numbers ``rows`` of ``lanes`` (broadcast against each other)."""
        return lanes * self.ring + rows % self.ring

    def locate(self, flat: Index) -> tuple[Index, Index]:
        """(lanes, row numbers) of the ``flat``-th readable rows, counting lane after lane, oldest first."""
        sizes = self.sizes
        ends = np.cumsum(sizes)
        lanes = np.searchsorted(ends, flat, side="right").astype(np.int64)
        return lanes, flat - (ends - sizes)[lanes] + self.starts[lanes]

    def runs(self, lane: int, first: int, last: int, limit: int) -> list[tuple[int, int, int]]:
        """Cut rows first..last of a lane into contiguous stretches: (first row, start position, rows <= limit)."""
        stretches = []
        row = first
        while row < last:
            count = min(last - row, self.ring - row % self.ring, limit)
            stretches.append((row, lane * self.ring + row % self.ring, count))
            row += count
        return stretches
