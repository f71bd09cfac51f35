"""The published codes' log densities, one number at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from visrep.policies.densities import LOG_DENSITIES, LogDensity
from visrep.policies.distributions import SquashedGaussian

NAMES: list[LogDensity] = list(LOG_DENSITIES)


def by_loop(name: LogDensity, mean: Tensor, log_std: Tensor, noise: Tensor) -> list[float]:
    """The equations in plain floats."""
    rows = []
    for m_row, s_row, e_row in zip(mean.tolist(), log_std.tolist(), noise.tolist(), strict=True):
        total = 0.0
        for m, s, e in zip(m_row, s_row, e_row, strict=True):
            x = m + math.exp(s) * e
            std = math.exp(s) + (1e-8 if name == "rlpyt" else 0.0)
            gaussian = -0.5 * ((x - m) / std) ** 2 - s - 0.5 * math.log(2 * math.pi)
            slope = 1.0 - math.tanh(x) ** 2
            log_slope = {
                "exact": math.log(1.0 / math.cosh(x) ** 2),
                "sac_ae": math.log(max(slope, 0.0) + 1e-6),
                "rlpyt": math.log(slope + 1e-8),
            }[name]
            total += gaussian - log_slope
        rows.append(total)
    return rows


@pytest.mark.parametrize("spread", [0.5, 3.0, 15.0])  # the last saturates the tanh: where the codes part
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_loop(name: LogDensity, spread: float) -> None:
    g = torch.Generator().manual_seed(0)
    mean, log_std, noise = (torch.randn(16, 3, generator=g, dtype=torch.float64) for _ in range(3))
    mean *= spread
    action, log_prob = SquashedGaussian(mean, log_std).sample(noise, name)
    assert log_prob.shape == (16, 1)
    torch.testing.assert_close(log_prob[:, 0].tolist(), by_loop(name, mean, log_std, noise), rtol=1e-6, atol=1e-6)
    assert torch.equal(action, SquashedGaussian(mean, log_std).sample(noise)[0]), "the action does not depend on it"


def test_they_part_where_the_tanh_saturates() -> None:
    policy = SquashedGaussian(torch.full((1, 1), 12.0), torch.zeros(1, 1))
    values = [policy.sample(torch.zeros(1, 1), name)[1].item() for name in NAMES]
    assert all(math.isfinite(value) for value in values) and len(set(values)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_stay_finite(name: LogDensity) -> None:
    mean = torch.tensor([[-50.0, -9.0, 0.0, 9.0, 50.0]], requires_grad=True)
    log_std = torch.full((1, 5), -10.0, requires_grad=True)
    SquashedGaussian(mean, log_std).sample(torch.randn(1, 5), name)[1].sum().backward()
    assert mean.grad is not None and log_std.grad is not None
    assert torch.isfinite(mean.grad).all() and torch.isfinite(log_std.grad).all()
