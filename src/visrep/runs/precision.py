"""Where computation may run in bfloat16."""

from __future__ import annotations

import torch


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Autocast to bfloat16 on ``device`` where ``precision`` is "bf16"; a no-op for "fp32".

    Without autocast's weight cache: it would hand out the weights from before an optimiser step in the same context.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)
