"""How much of an environment has been visited, from privileged state: the control that images cannot give.

Shapes: N visits, K state, M cells.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

SIMHASH_BITS = 20

CellFunction = Callable[[NDArray[np.float32]], NDArray[np.int64]]


class Coverage:
    """Visit counts over cells of the privileged state.

    An environment with cells of its own (the toy arenas: free grid cells) reports the share of them that was visited.
    For any other state the cells are the 2^20 codes of a fixed SimHash (signs of random projections of the state), and
    only the number of distinct codes and the entropy of their histogram mean anything.

    Args:
        state_dim: K.
        num_cells: M, or 0 to use the SimHash.
        cell_function: states [N, K] to cell indices [N], -1 for none; needed where ``num_cells`` > 0.
    """

    def __init__(self, state_dim: int, num_cells: int = 0, cell_function: CellFunction | None = None) -> None:
        self.num_cells = num_cells
        self.counts = np.zeros(num_cells or 2**SIMHASH_BITS, dtype=np.int64)
        self._cell_function = cell_function
        # The projection is part of the metric's definition: the same for every run and seed.
        self._projection = np.random.default_rng(0).standard_normal((state_dim, SIMHASH_BITS))

    def visit(self, states: NDArray[np.float32]) -> None:
        """Count states [N, K]."""
        if self._cell_function is not None and self.num_cells:
            cells = self._cell_function(states)
            cells = cells[cells >= 0]
        else:
            bits = (states.astype(np.float64) @ self._projection > 0).astype(np.int64)  # [N, bits]
            cells = bits @ (1 << np.arange(SIMHASH_BITS, dtype=np.int64))  # [N]
        np.add.at(self.counts, cells, 1)

    def metrics(self) -> dict[str, float]:
        """Distinct cells visited, entropy of the visits in nats, and the visited share where cells are finite."""
        visited = self.counts[self.counts > 0]
        share = visited / max(1, visited.sum())
        values = {
            "state_cells_visited": float(len(visited)),
            "state_entropy": float(-(share * np.log(share)).sum()) if len(visited) else 0.0,
        }
        if self.num_cells:
            values["state_coverage"] = len(visited) / self.num_cells
        return values

    def state_dict(self) -> dict[str, Any]:
        """Non-zero counts only: the SimHash table is large and sparse."""
        index = np.flatnonzero(self.counts)
        return {"index": torch.from_numpy(index), "count": torch.from_numpy(self.counts[index])}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the saved counts."""
        self.counts[:] = 0
        self.counts[state["index"].numpy()] = state["count"].numpy()
