"""One named field of a row store: a fixed number of rows in RAM, in a memory-mapped file or on a torch device.

Shapes: N rows, D values of one row.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Index = NDArray[np.int64]


@dataclass(frozen=True)
class ColumnSpec:
    """Name, shape of one row's value, and NumPy dtype name."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def row_bytes(self) -> int:
        """Bytes of one row's value."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


class Column:
    """``rows`` values of one field, flat [N, D]; ``host`` is None where the values live on another device."""

    def __init__(self, spec: ColumnSpec, rows: int, device: torch.device | None, memory: NDArray[np.generic] | None):
        """Allocate, or wrap.

        Args:
            spec: what one row holds.
            rows: N.
            device: torch device that holds the values, or None for host memory.
            memory: existing contiguous host memory (a memory-mapped file) to use instead of allocating.
        """
        self.spec = spec
        self.host: NDArray[np.generic] | None = None
        width = prod(spec.shape)
        if device is None:
            # np.empty commits pages only when they are written, so an unfilled store costs little.
            self.host = np.empty((rows, width), spec.dtype) if memory is None else memory.reshape(rows, width)
            with warnings.catch_warnings():
                # A dataset's files are mapped read-only; torch cannot express that, and nothing writes to them.
                warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
                self.values = torch.from_numpy(self.host)
        else:
            dtype = torch.from_numpy(np.empty(0, spec.dtype)).dtype
            self.values = torch.empty((rows, width), dtype=dtype, device=device)

    def write(self, index: Index, values: NDArray[np.generic]) -> None:
        """Set rows ``index`` [n] to ``values`` [n, ...]."""
        flat = np.ascontiguousarray(values, dtype=self.spec.dtype).reshape(len(index), -1)
        if self.host is not None:
            self.host[index] = flat
        else:
            device = self.values.device
            self.values.index_copy_(0, torch.from_numpy(index).to(device), torch.tensor(flat, device=device))

    def read(self, start: int, stop: int) -> NDArray[np.generic]:
        """Rows start..stop as host memory [n, D] (a view where they are on the host)."""
        if self.host is not None:
            return self.host[start:stop]
        return np.asarray(self.values[start:stop].cpu().numpy())

    def gather(self, index: Tensor, out: Tensor | None = None) -> Tensor:
        """Rows ``index`` [n] (int64, same device) as [n, D], written into ``out`` if given."""
        if out is None:
            return torch.index_select(self.values, 0, index)
        return torch.index_select(self.values, 0, index, out=out)
