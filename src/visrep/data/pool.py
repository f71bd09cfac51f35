"""Large output tensors used again once nobody holds them, because fresh pages cost more than the copy into them."""

from __future__ import annotations

import sys
from math import prod

import numpy as np
import torch
from torch import Tensor


class BufferPool:
    """Hands out host tensors. A buffer is handed out again only after every tensor that views it is gone."""

    def __init__(self, keep: int = 4) -> None:
        """Keep at most ``keep`` buffers; when all are in use, a fresh one is made and not kept."""
        self._keep = keep
        self._buffers: list[np.ndarray] = []
        self._idle_references = 0

    def take(self, shape: tuple[int, ...], dtype: torch.dtype = torch.uint8) -> Tensor:
        """An uninitialised tensor of ``shape``."""
        size = prod(shape) * dtype.itemsize
        self._buffers = [buffer for buffer in self._buffers if buffer.size == size]
        for index in range(len(self._buffers)):
            # Tensors made by from_numpy hold a reference to the array until their storage is freed.
            if sys.getrefcount(self._buffers[index]) <= self._idle_references:
                return torch.from_numpy(self._buffers[index]).view(dtype).view(shape)
        fresh = np.empty(size, np.uint8)
        if len(self._buffers) >= self._keep:
            return torch.from_numpy(fresh).view(dtype).view(shape)
        self._buffers.append(fresh)
        del fresh
        self._idle_references = sys.getrefcount(self._buffers[-1])
        return torch.from_numpy(self._buffers[-1]).view(dtype).view(shape)
