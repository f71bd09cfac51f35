"""Sinkhorn targets against Proto-RL's public code, a loop-written transport solver, and their defining properties."""

import math

import numpy as np
import pytest
import torch
from load import cases, load_case
from objective_case import RUNS

from visrep.objectives.parts.sinkhorn import sinkhorn


def sinkhorn_loops(scores: torch.Tensor, temperature: float, num_iters: int) -> list[list[float]]:
    """The description of the targets, entry by entry, in Python floats."""
    rows = scores.tolist()
    top = max(max(row) for row in rows)
    mass = [[math.exp((s - top) / temperature) for s in row] for row in rows]  # B x K
    num_samples, num_prototypes = len(mass), len(mass[0])
    for _ in range(num_iters):
        for k in range(num_prototypes):
            total = sum(mass[b][k] for b in range(num_samples))
            for b in range(num_samples):
                mass[b][k] *= 1.0 / num_prototypes / total
        for b in range(num_samples):
            total = sum(mass[b])
            mass[b] = [m / num_samples / total for m in mass[b]]
    return [[m / sum(row) for m in row] for row in mass]


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", cases("proto_sinkhorn"))
def test_against_public_code(case: str, run: str) -> None:
    c = load_case("proto_sinkhorn", case)
    scores = torch.from_numpy(c["in"]["scores"]).to(getattr(torch, run))
    q = sinkhorn(scores, float(c["meta"]["temperature"]), int(c["meta"]["num_iters"]))
    want, tolerance = (c["out64"]["q"], 1e-8) if run == "float64" else (c["out"]["q"], 1e-5)
    assert q.dtype == scores.dtype
    assert np.abs(q.numpy() - want).max() <= tolerance


@pytest.mark.parametrize(
    ("samples", "prototypes", "temperature", "iters"), [(7, 4, 0.1, 3), (3, 9, 1.0, 5), (1, 1, 0.5, 1)]
)
def test_against_loops(samples: int, prototypes: int, temperature: float, iters: int) -> None:
    generator = torch.Generator().manual_seed(samples)
    scores = torch.rand(samples, prototypes, generator=generator, dtype=torch.float64) * 2 - 1
    want = torch.tensor(sinkhorn_loops(scores, temperature, iters), dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(scores, temperature, iters), want, rtol=1e-12, atol=1e-14)


def test_many_sweeps_use_all_prototypes_equally() -> None:
    scores = torch.rand(64, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q = sinkhorn(scores, 0.1, num_iters=200)
    torch.testing.assert_close(q.sum(dim=0), torch.full((8,), 8.0, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hopeless_samples_get_a_finite_row(dtype: torch.dtype) -> None:
    scores = torch.rand(6, 5, generator=torch.Generator().manual_seed(1)).to(dtype)
    scores[2] -= 500.0  # exp(-5000) is zero in either precision
    scores[4] -= 90.0
    q = sinkhorn(scores, 0.1)
    assert q.isfinite().all()
    torch.testing.assert_close(q.sum(dim=1), torch.ones(6, dtype=dtype))
    # A hopeless sample prefers what its own scores prefer, as the log domain would have it.
    assert (q[2] > 0).all()


def test_bfloat16_scores_under_autocast_are_solved_in_float32() -> None:
    scores = torch.rand(16, 8, generator=torch.Generator().manual_seed(2)) * 2 - 1
    half = scores.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        q = sinkhorn(half, 0.1)
    assert q.dtype == torch.float32
    torch.testing.assert_close(q, sinkhorn(half.float(), 0.1), rtol=0, atol=0)


def test_scores_are_left_alone_and_get_no_gradient() -> None:
    scores = torch.rand(4, 3, requires_grad=True)
    before = scores.detach().clone()
    assert not sinkhorn(scores, 0.1).requires_grad
    assert torch.equal(scores.detach(), before)
