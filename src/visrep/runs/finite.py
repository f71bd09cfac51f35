"""NaN and infinity end a run with a clear error before they reach a file."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from visrep.errors import UserError

CHECK_UPDATES = 100  # updates between checks where each waits for the device


class NonFiniteLoss(UserError):
    """A loss or value became NaN or infinite; the last checkpoint is the last good state."""


def first_nonfinite(metrics: dict[str, Tensor]) -> str | None:
    """Name of the first metric that is NaN or infinite, or None. Reads from the device once."""
    if not metrics:
        return None
    finite = torch.isfinite(torch.stack([value.detach().double() for value in metrics.values()])).tolist()
    return next((name for name, good in zip(metrics, finite, strict=True) if not good), None)


def require_finite(metrics: dict[str, Tensor], where: str) -> None:
    """Raise NonFiniteLoss naming the first value that is NaN or infinite, and ``where`` the run stands."""
    name = first_nonfinite(metrics)
    if name is not None:
        raise _stopped(name, where)


def require_finite_weights(modules: Mapping[str, nn.Module], where: str) -> None:
    """Raise NonFiniteLoss before broken weights reach a file: a loss may look fine until its gradient overflows."""
    for key, module in modules.items():
        for name, value in module.state_dict().items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise _stopped(f"{key}.{name}", where)


def _stopped(name: str, where: str) -> NonFiniteLoss:
    return NonFiniteLoss(
        f"{name} became NaN or infinite at {where}: the run stopped; the newest checkpoint holds the last good state. "
        "Try a smaller lr, precision=fp32, or look at the metrics just before this step"
    )
