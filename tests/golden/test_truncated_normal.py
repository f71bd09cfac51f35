"""DrQ-v2's clipped Gaussian against its public code."""

import pytest
import torch
from compare import assert_scaled, precision_of, tensor
from load import cases, load_case

from visrep.policies.distributions import TruncatedNormal


@pytest.mark.parametrize("run", ("float32", "float64"))
@pytest.mark.parametrize("case", cases("drqv2_truncated_normal"))
def test_truncated_normal(case: str, run: str) -> None:
    c = load_case("drqv2_truncated_normal", case)
    dtype, tolerance = precision_of(run, 1e-5)
    meta = {name: float(value) for name, value in c["meta"].items()}
    loc = tensor(c["in"]["loc"], dtype).requires_grad_()
    scale = tensor(c["in"]["scale"], dtype).requires_grad_()
    policy = TruncatedNormal(loc, scale, meta["low"], meta["high"], meta["eps"])
    sample = policy.sample(tensor(c["rand"]["noise"], dtype), None if meta["clip"] < 0 else meta["clip"])
    got = {
        "sample": sample,
        "log_prob": policy.log_prob(sample),
        "entropy": policy.entropy(),
        "mean": policy.mean,
    }
    assert got.keys() == c["out64"].keys()
    for name, value in got.items():
        assert_scaled(value, c["out64"][name], tolerance, name)
    gradients = torch.autograd.grad((tensor(c["in"]["cotangent"], dtype) * sample).sum(), [loc, scale])
    for name, value in zip(("loc", "scale"), gradients, strict=True):
        assert_scaled(value, c["grad64"][name], tolerance, f"grad {name}")
