"""CURL's contrast and step against its public code, its known answer, and where its gradient and momentum go."""

import math
from typing import Any

import pytest
import torch
from compare import Arrays, assert_scaled, below, tensor
from contrast_case import TwoConvs
from load import Case, cases, load_case
from objective_case import RUNS, Expected, objective_on
from torch import Tensor, nn

from visrep.data.actions import ActionSpec
from visrep.data.batch import Batch
from visrep.objectives import build_objective
from visrep.objectives.curl import CURLConfig
from visrep.pace import LearningRate
from visrep.runs.representation import make_representation


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", cases("curl_loss"))
def test_contrast(case: str, run: str) -> None:
    c = load_case("curl_loss", case)
    want = Expected(c, run, 1e-5)
    weight = tensor(c["param"]["W"], want.dtype)
    objective = objective_on("curl", 4, 1, want.dtype, curl_feature_dim=len(weight))
    objective.W.data.copy_(weight)
    query = want.inputs["anchor_code"].requires_grad_()
    loss = objective.contrast(query, want.inputs["positive_code"])
    loss.total.backward()
    want.check(loss.outputs["logits"], "logits")
    want.check(loss.total, "loss")
    assert_scaled(query.grad, want.grad["anchor_code"], want.tolerance, "grad anchor_code")
    assert_scaled(objective.W.grad, want.grad["W"], want.tolerance, "grad W")


def layers(encoder: Any, projection: Any) -> dict[str, nn.Module]:
    """Golden names of the layers of encoder and projection."""
    return {
        "conv1": encoder.convs[0],
        "conv2": encoder.convs[2],
        "fc": projection[0],
        "layernorm": projection[1],
    }


def fill(modules: dict[str, nn.Module], arrays: Arrays) -> None:
    for name, module in modules.items():
        module.load_state_dict({k: tensor(a, module.weight.dtype) for k, a in below(arrays, name).items()})


def curl_of(c: Case, dtype: torch.dtype, compat: str) -> Any:
    param = c["param"]
    filters = (len(param["encoder.conv1.weight"]), len(param["encoder.conv2.weight"]))
    encoder = TwoConvs(c["in"]["anchor"].shape[1:], filters, divide=True)
    config = CURLConfig(curl_feature_dim=len(param["W"]), curl_compat=compat)
    objective: Any = build_objective("curl", encoder, ActionSpec(1), config)
    encoder.to(dtype)
    objective.to(dtype)
    fill(layers(encoder, objective.projection), below(param, "encoder"))
    fill(layers(objective.key_encoder, objective.key_projection), below(param, "encoder_target"))
    objective.W.data.copy_(tensor(param["W"], dtype))
    return objective


@pytest.mark.parametrize("compat", ["released", "fixed", "paper"])
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", cases("curl_update"))
def test_step_from_images(case: str, run: str, compat: str) -> None:
    """The released agent steps the encoder in two Adams; with one it moves half as far and W as far."""
    c = load_case("curl_update", case)
    want = Expected(c, run, 5e-5)
    objective = curl_of(c, want.dtype, compat)
    moving = layers(objective.encoder, objective.projection)
    start = {f"{n}.{k}": p.detach().clone() for n, m in moving.items() for k, p in m.named_parameters()}
    groups = objective.parameter_groups(train_encoder=True)
    optimizers = [torch.optim.Adam(group.parameters, lr=float(c["meta"]["lr"])) for group in groups]
    images = [want.inputs[name][:, None] for name in ("anchor", "positive")]
    batch = Batch(images, (0,), torch.ones(len(images[0]), 1, dtype=torch.bool))
    loss = objective(batch)
    loss.total.backward()
    for optimizer in optimizers:
        optimizer.step()

    want.check(loss.total, "loss")
    want.check(loss.outputs["codes"], "anchor_code")
    want.check(loss.outputs["target_codes"], "positive_code")
    assert_scaled(objective.W.grad, want.grad["W"], want.tolerance, "grad W")
    assert_scaled(objective.W, want.new["W"], want.tolerance, "W")
    share = 1.0 if compat == "released" else 0.5
    for name, module in moving.items():
        for kind, parameter in module.named_parameters():
            key = f"encoder.{name}.{kind}"
            assert_scaled(parameter.grad, want.grad[key], want.tolerance, f"grad {key}")
            before = start[f"{name}.{kind}"].double().numpy()
            expected = before + share * (want.new[key].astype("float64") - before)
            assert_scaled(parameter, expected, want.tolerance, key)


@pytest.mark.parametrize("scale", [0.5, 3.0])
@pytest.mark.parametrize("rows", [2, 6])
def test_orthonormal_codes_have_a_known_loss(rows: int, scale: float) -> None:
    """q = k = rows of I and W = c·I: each logit row is c once and 0 elsewhere, so the loss is -c + log(e^c + N - 1)."""
    objective = objective_on("curl", 4, 1, torch.float64, curl_feature_dim=8)
    objective.W.data.copy_(scale * torch.eye(8))
    codes = torch.eye(8, dtype=torch.float64)[:rows].requires_grad_()
    key = torch.eye(8, dtype=torch.float64)[:rows].requires_grad_()
    loss = objective.contrast(codes, key.detach())
    assert loss.total.item() == pytest.approx(-scale + math.log(math.exp(scale) + rows - 1), rel=1e-12)
    assert loss.parts["accuracy"] == 1
    loss.total.backward()
    assert codes.grad.any() and objective.W.grad.any() and key.grad is None


def small(**config: Any) -> Any:
    torch.manual_seed(0)
    settings = CURLConfig(**({"curl_feature_dim": 5} | config))
    return build_objective("curl", TwoConvs((3, 10, 10), (4, 4)), ActionSpec(1), settings)


def views(seed: int = 0) -> Tensor:
    return torch.rand(2, 6, 1, 3, 10, 10, generator=torch.Generator().manual_seed(seed))


def test_gradient_goes_to_the_query_and_not_to_the_key() -> None:
    objective = small()
    images = views().requires_grad_()
    objective(Batch([images[0], images[1]], (0,), torch.ones(6, 1, dtype=torch.bool))).total.backward()
    assert images.grad[0].any() and not images.grad[1].any()
    keys = [*objective.key_encoder.parameters(), *objective.key_projection.parameters()]
    assert all(p.grad is None and not p.requires_grad for p in keys)
    assert all(p.grad.any() for p in [*objective.encoder.parameters(), objective.W])


def test_projection_is_linear_and_layernorm_and_w_uniform() -> None:
    objective = small(curl_feature_dim=200)
    assert [type(layer) for layer in objective.projection] == [nn.Linear, nn.LayerNorm]
    assert objective.W.min() >= 0 and objective.W.max() < 1
    assert float(objective.W.mean()) == pytest.approx(0.5, abs=0.01)


def key_moves(objective: Any, calls: int) -> list[bool]:
    """After which updates the key has moved towards an encoder that moved before each."""
    moves = []
    for _ in range(calls):
        with torch.no_grad():
            objective.encoder.convs[0].bias.add_(1.0)
        before = objective.key_encoder.convs[0].bias.clone()
        objective.after_update()
        moves.append(not torch.equal(before, objective.key_encoder.convs[0].bias))
    return moves


@pytest.mark.parametrize(
    ("config", "moves"),
    [
        ({}, [False, True, False, True]),
        ({"curl_compat": "fixed"}, [False, True, False, True]),
        ({"curl_compat": "paper"}, [True] * 4),
        ({"curl_compat": "paper", "curl_target_update_frequency": 3}, [False, False, True, False]),
    ],
)
def test_key_moves_at_its_frequency(config: dict[str, Any], moves: list[bool]) -> None:
    assert key_moves(small(**config), 4) == moves


def test_key_moves_by_tau_encoder_and_projection() -> None:
    objective = small(curl_target_update_frequency=1)
    start = {name: p.clone() for name, p in objective.named_parameters() if name.startswith("key_")}
    assert {name.split(".")[0] for name in start} == {"key_encoder", "key_projection"}
    with torch.no_grad():
        for parameter in [*objective.encoder.parameters(), *objective.projection.parameters()]:
            parameter.add_(1.0)
    objective.after_update()
    for name, parameter in objective.named_parameters():
        if name in start:
            torch.testing.assert_close(parameter, start[name] + 0.05)


def test_the_count_of_updates_survives_in_the_state() -> None:
    objective, resumed = small(), small()
    key_moves(objective, 3)
    resumed.load_state_dict(objective.state_dict())
    assert key_moves(resumed, 2) == [True, False]


def test_key_is_a_copy_of_the_projection_in_use() -> None:
    objective = small(curl_target_update_frequency=1, curl_target_tau=1.0)
    torch.manual_seed(1)
    given = nn.Sequential(nn.Linear(objective.encoder.feature_dim, 5), nn.LayerNorm(5))
    objective.share_projection(given)
    assert objective.projection is given
    assert torch.equal(objective.key_projection[0].weight, given[0].weight)
    assert objective.key_projection[0].weight is not given[0].weight
    with torch.no_grad():
        given[0].weight.add_(1.0)
    assert not torch.equal(objective.key_projection[0].weight, given[0].weight)
    objective.after_update()
    assert torch.equal(objective.key_projection[0].weight, given[0].weight)


def test_two_adams_hold_the_encoder_as_released() -> None:
    objective = small()
    encoder = {*objective.encoder.parameters(), *objective.projection.parameters()}
    first, second = (set(group.parameters) for group in objective.parameter_groups(train_encoder=True))
    assert first == encoder and second == encoder | {objective.W}
    (only,) = small(curl_compat="fixed").parameter_groups(train_encoder=True)
    assert len(only.parameters) == len(encoder) + 1


def test_the_gradient_is_bounded_over_all_that_moves_each_counted_once() -> None:
    objective = small()
    representation = make_representation(objective, LearningRate(1e-3), True, clip_norm=1e-3)
    assert representation is not None and len(representation.optimizers) == 2
    metrics = representation.step(Batch(list(views()), (0,), torch.ones(6, 1, dtype=torch.bool)))
    trained = [*objective.encoder.parameters(), *objective.projection.parameters(), objective.W]
    assert metrics["repr_grad_norm"] > 1e-3
    assert float(torch.cat([p.grad.flatten() for p in trained]).norm()) == pytest.approx(1e-3, rel=1e-2)
