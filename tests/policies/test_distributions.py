"""Densities against torch.distributions and against integration."""

import torch
from torch import distributions

from visrep.policies.distributions import SquashedGaussian


def test_squashed_log_prob_equals_torch() -> None:
    g = torch.Generator().manual_seed(0)
    raw, noise = (
        torch.randn(64, 8, generator=g, dtype=torch.float64),
        torch.randn(64, 4, generator=g, dtype=torch.float64),
    )
    policy = SquashedGaussian.from_raw(raw, (-3.0, 1.0))
    action, log_prob = policy.sample(noise)
    base = distributions.Normal(policy.mean, policy.log_std.exp())
    squashed = distributions.TransformedDistribution(base, [distributions.transforms.TanhTransform()])
    torch.testing.assert_close(log_prob, squashed.log_prob(action).sum(dim=1, keepdim=True), rtol=1e-6, atol=1e-6)


def test_log_std_stays_in_its_bounds() -> None:
    raw = torch.tensor([[0.0, -1e3], [0.0, 0.0], [0.0, 1e3]])
    log_std = SquashedGaussian.from_raw(raw, (-10.0, 2.0)).log_std
    torch.testing.assert_close(log_std, torch.tensor([[-10.0], [-4.0], [2.0]]))


def test_density_is_finite_where_tanh_saturates() -> None:
    policy = SquashedGaussian(torch.full((1, 1), 50.0), torch.zeros(1, 1))
    action, log_prob = policy.sample(torch.zeros(1, 1))
    assert action == 1.0 and torch.isfinite(log_prob).all()
