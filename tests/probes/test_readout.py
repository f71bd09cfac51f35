"""Readouts against slow references written from the definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from probe_tools import random_normal
from torch import Tensor

from visrep.probes import readout
from visrep.probes.data import Split
from visrep.probes.readout import LAMBDAS, WIDE_LAMBDAS, Standardised, classify, neighbours, network, ridge

SPLIT = Split(60, 15, 25)


def problem(width: int, targets: int = 3) -> tuple[Tensor, Tensor]:
    features = random_normal(100, width, seed=1) * torch.linspace(0.1, 30, width) + 7
    weights = random_normal(width, targets, seed=2, dtype=torch.float64) * torch.tensor([1.0, 1e-3, 50.0])
    return features, features.double() @ weights + random_normal(100, targets, seed=3, dtype=torch.float64)


def slow_ridge(features: Tensor, targets: Tensor, split: Split) -> tuple[np.ndarray, list[float]]:
    """Standardise, then least squares of the system stacked on sqrt(lambda) I, for each target and lambda by itself."""
    x, y = features.double().numpy(), targets.numpy()
    n, tests = split.train, slice(split.train, split.train + split.val)
    x = (x - x[:n].mean(0)) / x[:n].std(0)
    out, chosen = np.zeros_like(y), []
    for target in range(y.shape[1]):
        best = np.inf
        for penalty in WIDE_LAMBDAS if x.shape[1] > n else LAMBDAS:
            top = np.concatenate([x[:n], np.sqrt(penalty) * np.eye(x.shape[1])])
            right = np.concatenate([y[:n, target] - y[:n, target].mean(), np.zeros(x.shape[1])])
            weight = np.linalg.lstsq(top, right, rcond=None)[0]
            predicted = x @ weight + y[:n, target].mean()
            error = ((predicted - y[:, target])[tests] ** 2).mean()
            if error < best:
                best, out[:, target], penalty_of = error, predicted, penalty
        chosen.append(penalty_of)
    return out, chosen


@pytest.mark.parametrize("width", [8, 59, 61, 150], ids=["primal", "primal wide", "dual", "dual wide"])
def test_ridge_is_the_least_squares_solution(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readout, "_COLUMNS", 16)  # several pieces, the last one narrower
    monkeypatch.setattr(readout, "_ROWS", 7)
    features, targets = problem(width)
    fit = ridge([Standardised(features, SPLIT.train)], targets, SPLIT)
    expected, chosen = slow_ridge(features, targets, SPLIT)
    np.testing.assert_allclose(fit.predictions.numpy(), expected, rtol=1e-6, atol=1e-6)
    assert fit.penalties.tolist() == pytest.approx(chosen)


@pytest.mark.parametrize("width", [10, 45])
def test_two_blocks_are_their_features_side_by_side(width: int) -> None:
    features, targets = problem(2 * width)
    parts = [Standardised(part, SPLIT.train) for part in features.split(width, dim=1)]
    expected, _ = slow_ridge(features, targets, SPLIT)
    np.testing.assert_allclose(ridge(parts, targets, SPLIT).predictions.numpy(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("rows", "train"), [(30, 20), (30, 14), (21, 21), (5, 2)])
def test_the_gram_matrix_in_pieces_is_the_product(rows: int, train: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readout, "_ROWS", 7)
    monkeypatch.setattr(readout, "_COLUMNS", 4)
    inputs = Standardised(random_normal(rows, 11), train)
    dense = inputs.dense()
    torch.testing.assert_close(inputs.gram, dense @ dense[:train].T)


def test_penalties_are_chosen_on_val_alone() -> None:
    """Other test targets change neither the fit nor the choice; other val targets change the choice."""
    features, targets = problem(150)
    inputs = Standardised(features, SPLIT.train)
    fit, changed = ridge([inputs], targets, SPLIT), targets.clone()
    changed[SPLIT.tests] += 1e3 * random_normal(25, 3, seed=9, dtype=torch.float64)
    again = ridge([inputs], changed, SPLIT)
    assert torch.equal(again.predictions, fit.predictions) and torch.equal(again.penalties, fit.penalties)
    changed = targets.clone()
    changed[SPLIT.vals] = targets[: SPLIT.train].mean(0)
    assert bool((ridge([inputs], changed, SPLIT).penalties == WIDE_LAMBDAS[-1]).all())


def test_features_that_hardly_vary_are_dropped() -> None:
    features = random_normal(100, 4)
    features[:, 1] = 5.0
    features[:60, 2] = 1.0  # varies outside of the train rows only
    features[:, 3] = 1e4 + 1e-4 * features[:, 3]  # within the rounding of its own mean
    inputs = Standardised(features, 60)
    assert inputs.kept.tolist() == [0]
    dense = inputs.dense()
    assert dense[:60].mean().abs() < 1e-12 and dense[:60].std(correction=0).item() == pytest.approx(1)
    nothing = Standardised(torch.ones(100, 3), 60)
    targets = random_normal(100, 2, dtype=torch.float64)
    for predicted in (
        ridge([nothing], targets, SPLIT).predictions,
        network(nothing.compact(0), targets, SPLIT, 0),
    ):
        assert predicted.std(0).max() < 1e-6 and bool(predicted.isfinite().all())
    torch.testing.assert_close(ridge([nothing], targets, SPLIT).predictions[0], targets[:60].mean(0))


def test_a_random_projection_keeps_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = Standardised(random_normal(20, 5_000), 15)
    compact = inputs.compact(0)
    assert compact.shape == (20, readout.COMPACT) and torch.equal(compact, inputs.compact(0))
    before, after = torch.pdist(inputs.dense().float()), torch.pdist(compact)
    assert float((after / before - 1).abs().max()) < 0.1
    assert Standardised(random_normal(20, 30), 15).compact(0).shape == (20, 30)


def test_neighbours_are_those_of_the_loop() -> None:
    code, targets = random_normal(100, 5), random_normal(100, 2, seed=1, dtype=torch.float64)
    found = neighbours(code, targets, SPLIT, k=4)
    for row in range(100):
        near = sorted(range(60), key=lambda other: float((code[row].double() - code[other].double()).norm()))[:4]
        torch.testing.assert_close(found[row], sum(targets[i] for i in near) / 4)


def test_the_network_fits_what_ridge_cannot_and_leaves_the_random_stream_alone() -> None:
    split = Split(600, 100, 300)
    code = random_normal(1_000, 2)
    targets = (code[:, :1] * code[:, 1:] * 100 + 3).double()
    torch.manual_seed(4)
    before = torch.get_rng_state()
    predicted = network(code, targets, split, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(predicted, network(code, targets, split, seed=1))
    linear = ridge([Standardised(code, 600)], targets, split).predictions

    def r2(values: Tensor) -> float:
        rest, spread = ((part - targets)[split.tests].square().sum() for part in (values, targets[split.tests].mean()))
        return float(1 - rest / spread)

    assert r2(predicted) > 0.9 and r2(linear) < 0.1


def test_logistic_regression_stands_at_its_optimum() -> None:
    inputs, labels = random_normal(200, 3, dtype=torch.float64), torch.arange(200) % 3
    inputs[torch.arange(200), labels] += 1
    weight, bias = readout._logistic(inputs, labels, 3, 0.01)
    slope = torch.zeros(3, 3, dtype=torch.float64)
    for x, label in zip(inputs, labels, strict=True):
        share = torch.softmax(x @ weight + bias, dim=0)
        share[label] -= 1
        slope += x[:, None] * share / 200
    torch.testing.assert_close(slope, -0.01 * weight, atol=1e-5, rtol=0)
    predicted = classify(inputs.float(), labels, 3, Split(140, 20, 40))
    assert float((predicted == labels)[160:].double().mean()) > 0.6


@pytest.mark.parametrize("width", [5, 80])
def test_a_unit_that_hardly_ever_fires_does_not_decide_a_prediction(width: int) -> None:
    features, targets = random_normal(100, width), random_normal(100, 1, dtype=torch.float64)
    features[:, 2] = 0.0
    features[7, 2] = 1e-2
    features[90, 2] = 1e3  # a test row: a million train deviations
    inputs = Standardised(features, SPLIT.train)
    assert 2 in inputs.kept and float(inputs.dense().abs().max()) < 2 * readout.LARGEST
    dense = inputs.dense()
    torch.testing.assert_close(dense[:60].mean(0), torch.zeros(width, dtype=torch.float64), atol=1e-12, rtol=0)
    assert float(ridge([inputs], targets, SPLIT).predictions[90].abs()) < 10 * float(targets.abs().max())
