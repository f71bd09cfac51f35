"""Ranks, alignment, uniformity and dormant units against the definitions, and where they are known."""

from __future__ import annotations

import math

import pytest
import torch

from visrep.probes.activity import dormant_fraction, unit_scores
from visrep.probes.ranks import (
    effective_rank,
    entropy_rank,
    feature_rank,
    participation_ratio,
    ranks,
    singular_values,
    stable_rank,
)
from visrep.probes.sphere import alignment, uniformity


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


@pytest.mark.parametrize("shape", [(50, 7), (7, 50)])
def test_ranks_of_one_decomposition_are_the_single_ones(shape: tuple[int, int]) -> None:
    features = noise(*shape) + 0.5
    found = ranks(features)
    assert found["rankme"] == effective_rank(features).item() and found["srank"] == stable_rank(features).item()
    assert found["feature_rank"] == feature_rank(features).item()
    assert found["entropy_rank"] == entropy_rank(features).item()
    sigma = torch.linalg.svdvals((features - features.mean(0)).double()).tolist()
    shares = [value / sum(sigma) for value in sigma]
    assert found["entropy_rank"] == pytest.approx(
        math.exp(-sum(p * math.log(p) for p in shares if p > 1e-12)), rel=1e-4
    )
    variance = torch.linalg.eigvalsh(torch.cov(features.double().T)).tolist()
    expected = sum(variance) ** 2 / sum(value**2 for value in variance)
    assert participation_ratio(features).item() == found["participation_ratio"] == pytest.approx(expected, rel=1e-5)


def test_the_mean_hides_rank_from_rankme_alone() -> None:
    features = noise(2000, 8)
    assert entropy_rank(features + 1e3).item() == pytest.approx(8, rel=0.01)
    assert effective_rank(features + 1e3).item() < 1.1
    assert participation_ratio(torch.ones(9, 4)).item() == 0 and entropy_rank(torch.ones(9, 4)).item() == 1


def test_alignment_and_uniformity_are_the_loops() -> None:
    one, two = noise(30, 5), noise(30, 5) * 0.3 + noise(60, 5)[30:]
    sphere, other = ([row / row.norm() for row in part.double()] for part in (one, two))
    expected = sum(float((a - b).norm()) ** 3 for a, b in zip(sphere, other, strict=True)) / 30
    assert alignment(one, two, alpha=3.0).item() == pytest.approx(expected)
    pairs = [math.exp(-1.5 * float((sphere[i] - sphere[j]).norm()) ** 2) for i in range(30) for j in range(i)]
    assert uniformity(one, t=1.5).item() == pytest.approx(math.log(sum(pairs) / len(pairs)))


def test_known_alignment_and_uniformity() -> None:
    features = noise(3000, 64)
    assert alignment(features, 5 * features).item() == pytest.approx(0, abs=1e-12)
    assert alignment(features, -features).item() == pytest.approx(4)
    assert alignment(features, features.flip(0)).item() == pytest.approx(2, rel=0.02)  # unrelated directions
    collapsed = torch.ones(50, 64) * torch.linspace(1, 2, 50)[:, None]
    assert uniformity(collapsed).item() == pytest.approx(0, abs=1e-12)
    # ‖a - b‖² of unrelated directions is 2 with variance 4/D: ln E exp(-2 ‖a - b‖²) is about -4 + 8/D.
    assert uniformity(features).item() == pytest.approx(-4 + 8 / 64, abs=0.02)
    with pytest.raises(ValueError, match="at least two samples"):
        uniformity(noise(1, 4))


def test_a_zeroed_unit_is_dormant() -> None:
    activity = torch.tensor([0.0, 2.0, 0.04, 1.96])
    scores = unit_scores(activity)
    assert scores.tolist() == pytest.approx([0, 2, 0.04, 1.96])
    assert dormant_fraction(scores).item() == 0.25
    assert dormant_fraction(scores, 0.025).item() == 0.25 and dormant_fraction(scores, 0.1).item() == 0.5
    assert dormant_fraction(unit_scores(torch.zeros(3))).item() == 1
