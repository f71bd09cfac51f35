"""Neighbour distances and particle entropy against URLB's public code and against loops."""

import math

import pytest
import torch
from load import cases, load_case
from objective_case import RUNS, Expected

from visrep.exploration.knn import kth_distance, nearest_distances, particle_entropy
from visrep.exploration.moments import RunningMoments


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", cases("particle_entropy"))
def test_particle_entropy_and_moments(case: str, run: str) -> None:
    c = load_case("particle_entropy", case)
    want = Expected(c, run, 5e-6)
    meta = {name: value.item() for name, value in c["meta"].items()}
    moments = RunningMoments().to(want.dtype)
    for call, rep in enumerate(want.inputs["rep"]):
        distances = nearest_distances(rep, rep, meta["k"])
        if not meta["average"]:
            distances = distances[:, -1:]
        if meta["normalise"]:
            moments.merge(distances)
        mean = moments.mean if meta["normalise"] else None
        want.check(particle_entropy(distances, mean, meta["clip"]), "reward", call)
        for name, value in {"rms_mean": moments.mean, "rms_var": moments.var, "rms_count": moments.count}.items():
            want.check(value, name, call)


def neighbours_loops(queries: torch.Tensor, memory: torch.Tensor, k: int) -> list[list[float]]:
    return [sorted(math.dist(query, row) for row in memory.tolist())[:k] for query in queries.tolist()]


@pytest.mark.parametrize(("queries", "rows", "dim", "k"), [(5, 9, 3, 4), (1, 1, 2, 1), (40, 30, 16, 12)])
@pytest.mark.parametrize("spread", [1.0, 1e-4])
def test_against_loops(queries: int, rows: int, dim: int, k: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(rows)
    centre = torch.randn(dim, generator=generator)
    points = torch.nn.functional.normalize(centre + spread * torch.randn(queries + rows, dim, generator=generator))
    query, memory = points[:queries], points[queries:]
    want = torch.tensor(neighbours_loops(query, memory, k))
    torch.testing.assert_close(nearest_distances(query, memory, k), want, rtol=1e-6, atol=0)
    torch.testing.assert_close(kth_distance(query, memory, k), want[:, -1:], rtol=1e-6, atol=0)


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_own_copies_are_at_exactly_zero(scale: float) -> None:
    """Trap 10: matrix products alone would leave 1e-4 to 1e-2 here."""
    memory = scale * torch.nn.functional.normalize(torch.randn(256, 128, generator=torch.Generator().manual_seed(0)))
    memory[1] = memory[2] = memory[0]
    with torch.autocast("cpu", torch.bfloat16):
        distances = nearest_distances(memory, memory, 3)
    assert distances.dtype == torch.float32
    assert (distances[:, 0] == 0).all()
    assert (distances[:3] == 0).all()
    assert (distances[3:, 1] > 0).all()


def test_too_few_rows_is_explained() -> None:
    with pytest.raises(ValueError, match="3-th nearest neighbour was asked for among 2 rows"):
        nearest_distances(torch.zeros(4, 1), torch.zeros(2, 1), 3)


def test_moments_of_one_value() -> None:
    moments = RunningMoments()
    moments.merge(torch.tensor([2.0]))
    assert moments.var.isfinite() and moments.mean == pytest.approx(2.0, rel=1e-3)


def test_moments_against_all_values_at_once() -> None:
    values = torch.randn(7, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3 + 1
    moments = RunningMoments().double()
    for part in values:
        moments.merge(part)
    assert moments.mean == pytest.approx(float(values.mean()), rel=1e-4)
    assert moments.var == pytest.approx(float(values.var()), rel=0.05)  # unbiased parts merged as biased: URLB
