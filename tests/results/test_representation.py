"""Ranks of features against the definitions, and on representations whose rank is known."""

from __future__ import annotations

import math

import pytest
import torch

from visrep.results.representation import effective_rank, feature_rank, singular_values, stable_rank


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(40, 6), (6, 40), (9, 9)])
def test_effective_rank_is_the_formula(shape: tuple[int, int]) -> None:
    features = noise(*shape) + 0.5
    sigma = torch.linalg.svdvals(features.double())
    torch.testing.assert_close(singular_values(features), sigma)
    entropy = 0.0
    for value in sigma.tolist():
        p = value / sum(sigma.tolist()) + 1e-7
        entropy -= p * math.log(p)
    assert effective_rank(features).item() == pytest.approx(math.exp(entropy), rel=1e-5)


def test_known_ranks() -> None:
    assert effective_rank(noise(4000, 16)).item() == pytest.approx(16, rel=0.01)  # isotropic
    assert effective_rank(torch.eye(8)).item() == pytest.approx(8, rel=1e-4)
    low = noise(200, 3) @ noise(3, 50)
    assert 1.5 < effective_rank(low).item() <= 3.001
    assert feature_rank(low).item() == 3 and stable_rank(low).item() == 3


@pytest.mark.parametrize("features", [torch.zeros(20, 8), torch.ones(20, 8) * 7, torch.ones(64, 2000) * 0.3])
def test_a_collapsed_representation_has_rank_one(features: torch.Tensor) -> None:
    assert effective_rank(features).item() == pytest.approx(1.0, abs=0.01)
    assert feature_rank(features).item() == stable_rank(features).item() == (1 if features.any() else 0)


def test_low_precision_input_and_thresholds() -> None:
    features = torch.diag(torch.tensor([10.0, 1.0, 0.001]))
    assert feature_rank(features).item() == 2
    assert feature_rank(features, threshold=1.0).item() == 1
    assert stable_rank(features, delta=0.2).item() == 1
    assert effective_rank(features.bfloat16()).dtype == torch.float32
    assert math.isnan(effective_rank(torch.full((3, 3), math.nan)).item())


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"\[2, 3, 4\]"):
        effective_rank(torch.zeros(2, 3, 4))
