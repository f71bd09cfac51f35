"""The updates between two rows of metrics: their means, how fast they came, and NaN as an error."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from visrep.console import ram_bytes
from visrep.log import MetricAccumulator
from visrep.runs.finite import CHECK_UPDATES, require_finite


class MetricsWindow:
    """Collects the metrics of updates until a row is due.

    Args:
        device: where losses live; a CPU is checked for NaN at every update, a GPU every hundred (each check is a sync).
        counts: where the run stands, by name (``updates``), for the speeds.
    """

    def __init__(self, device: torch.device, **counts: int) -> None:
        self._checks_all = device.type == "cpu"
        self._accumulator = MetricAccumulator()
        self.begin(**counts)

    def begin(self, **counts: int) -> None:
        """Measure speeds from now."""
        self._began, self._counts = time.monotonic(), counts

    def add(self, metrics: dict[str, Tensor], update: int, where: str) -> None:
        """Take one update's metrics.

        Raises:
            NonFiniteLoss: one is NaN or infinite; names it and ``where`` the run stands.
        """
        if self._checks_all or update % CHECK_UPDATES == 0:
            require_finite(metrics, where)
        self._accumulator.add(metrics)

    def row(self, **counts: int) -> dict[str, float]:
        """Means, ``<count>_per_second`` and memory since the last row; the next window begins."""
        seconds = max(1e-9, time.monotonic() - self._began)
        speeds = {f"{name}_per_second": (count - self._counts[name]) / seconds for name, count in counts.items()}
        values = {**self._accumulator.means(), **speeds, "ram_bytes": float(ram_bytes())}
        self._accumulator.reset()
        self.begin(**counts)
        return values

    def state_dict(self) -> dict[str, Any]:
        """What was collected; times begin anew."""
        return self._accumulator.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self._accumulator.load_state_dict(state)
