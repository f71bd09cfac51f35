"""ATS' loss and gradients against rlpyt's public code, and against loops."""

import math

import pytest
import torch
from compare import assert_gradients, load_weights, tensor
from contrast_case import temporal, valid_from_done, window_batch
from load import cases, load_case
from objective_case import RUNS, Expected, objective_on


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", cases("ats_loss"))
def test_against_public_code(case: str, run: str) -> None:
    c = load_case("ats_loss", case)
    want = Expected(c, run, 2e-5)
    images, shift = tensor(c["in"]["observation"], want.dtype), int(c["meta"]["delta_t"])
    objective = temporal(
        "ats",
        c["param"],
        images.shape[2:],
        want.dtype,
        atc_shift=shift,
        atc_segment=len(images) - shift,
        atc_hidden_dim=len(c["param"]["predictor.0.weight"]),
    )
    load_weights(objective.predictor, c["param"], "predictor")
    spec = objective.needs()
    loss = objective(window_batch(spec, [images] * spec.views, valid_from_done(c["in"]["done"])))
    loss.total.backward()

    want.check(loss.total, "loss")
    assert_gradients(objective.encoder.convs, want.grad, "encoder.conv", want.tolerance)
    assert_gradients(objective.compressor, want.grad, "encoder.head.0", want.tolerance)
    assert_gradients(objective.predictor, want.grad, "predictor", want.tolerance)
    assert all(p.grad is None for p in objective.target_encoder.parameters())


def test_against_loops() -> None:
    objective = objective_on("ats", 4, 1, torch.float64, atc_code_dim=3, atc_hidden_dim=5)
    codes, targets = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    valid = [True, True, False, True, False, True]
    loss = objective.compare(codes, targets, torch.tensor(valid))
    rows = []
    for code, target, counts in zip(objective.predictor(codes).tolist(), targets.tolist(), valid, strict=True):
        dot = sum(x * y for x, y in zip(code, target, strict=True))
        cosine = dot / math.sqrt(sum(x * x for x in code) * sum(y * y for y in target))
        if counts:
            rows.append(2 - 2 * cosine)
    assert loss.total.item() == pytest.approx(sum(rows) / len(rows), rel=1e-12)
    assert float(loss.parts["cosine"]) == pytest.approx(1 - loss.total.item() / 2, rel=1e-12)


def test_predictor_is_not_residual() -> None:
    """Trap T2's other half: a predictor that says nothing leaves no direction, and the loss is 2 whatever the codes."""
    objective = objective_on("ats", 4, 1, torch.float32, atc_code_dim=3, atc_hidden_dim=5)
    for layer in (objective.predictor[0], objective.predictor[2]):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    codes = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert objective.compare(codes, codes, torch.ones(4, dtype=torch.bool)).total == 2
