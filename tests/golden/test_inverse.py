"""The inverse model against the released code of ATC, and against loops; continuous actions; masks."""

import math
from typing import Any

import pytest
import torch
from load import Case, cases, load_case
from objective_case import RUNS, Expected
from small_conv import Places, check_places, fill_places, small_conv
from test_vae import batch_of

from visrep.data.actions import ActionSpec
from visrep.data.batch import Batch
from visrep.encoders import InputContract, build_encoder
from visrep.objectives import build_objective
from visrep.objectives.inverse import InverseConfig, InverseObjective


def build(c: Case, dtype: torch.dtype) -> tuple[InverseObjective, Places]:
    meta, param = {name: array.item() for name, array in c["meta"].items()}, c["param"]
    encoder = small_conv(c["in"]["observation"].shape[2:], param, ("encoder.conv.0", "encoder.conv.2"))
    config = InverseConfig(
        inverse_k=meta["delta_t"],
        inverse_hidden_dim=len(param["inverse.mlp.0.weight"]),
        inverse_subtract=bool(meta["subtract"]),
        inverse_entropy_coef=meta["entropy_coef"],
    )
    objective = InverseObjective(encoder, ActionSpec(1, meta["num_actions"]), config).to(dtype)
    encoder.to(dtype)
    places: Places = {
        "encoder.conv.0": encoder.convs[0],
        "encoder.conv.2": encoder.convs[2],
        "inverse.mlp.0": objective.model[0],
        "inverse.mlp.2": objective.model[2],
    }
    fill_places(places, param)
    return objective, places


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", cases("inverse_loss"))
def test_against_released_code(case: str, run: str) -> None:
    c = load_case("inverse_loss", case)
    want = Expected(c, run, 1e-5)
    objective, places = build(c, want.dtype)
    loss = objective(batch_of(c, want.dtype))
    loss.total.backward()
    want.check(loss.parts["cross_entropy"], "loss")
    for name in ("entropy_loss", "accuracy", "perplexity"):
        want.check(loss.parts[name], name)
    torch.testing.assert_close(loss.total.detach(), loss.parts["cross_entropy"] + loss.parts["entropy_loss"])
    # The head of the case's encoder is not used.
    gradients = {name: array for name, array in want.grad.items() if not name.startswith("encoder.head")}
    check_places(places, gradients, want.tolerance, gradients=True)


def make(actions: ActionSpec, **config: Any) -> Any:
    torch.manual_seed(0)
    encoder = build_encoder("proto", InputContract(24, 24), channels=4)
    return build_objective("inverse", encoder, actions, InverseConfig(inverse_hidden_dim=8, **config)).double()


def features(rows: int = 4, seed: int = 0) -> Any:
    return torch.randn(2, rows, 100, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_discrete_loss_against_loops() -> None:
    objective = make(ActionSpec(1, 3), inverse_k=2, inverse_entropy_coef=0.5)
    first, last = features()
    action = torch.tensor([[0, 1], [2, 2], [1, 0], [0, 0]]).unsqueeze(-1)
    valid = torch.tensor([True, False, True, True])
    logits = objective.model(torch.cat([first, last], dim=1)).view(4, 2, 3).tolist()
    errors, entropies, hits, perplexities = [], [], [], []
    for row in (0, 2, 3):
        for step in range(2):
            weights = [math.exp(value) for value in logits[row][step]]
            p = [weight / sum(weights) for weight in weights]
            label = int(action[row, step])
            errors.append(-math.log(p[label]))
            entropies.append(-sum(q * math.log(q + 1e-8) for q in p))
            hits.append(float(max(range(3), key=p.__getitem__) == label))
            perplexities.append(math.exp(entropies[-1]))
    loss = objective.loss(first, last, action, valid)
    mean = lambda values: sum(values) / 6
    assert loss.parts["cross_entropy"].item() == pytest.approx(mean(errors))
    assert loss.parts["entropy_loss"].item() == pytest.approx(-0.5 * mean(entropies))
    assert loss.parts["accuracy"].item() == pytest.approx(mean(hits))
    assert loss.parts["perplexity"].item() == pytest.approx(mean(perplexities))
    assert loss.total.item() == pytest.approx(mean(errors) - 0.5 * mean(entropies))


@pytest.mark.parametrize("subtract", [False, True])
def test_continuous_loss_against_loops(subtract: bool) -> None:
    objective = make(ActionSpec(2), inverse_k=3, inverse_subtract=subtract)
    first, last = features()
    action = torch.rand(4, 3, 2, dtype=torch.float64) * 2 - 1
    valid = torch.tensor([True, True, False, True])
    second = last - first if subtract else last
    prediction = objective.model(torch.cat([first, second], dim=1)).tolist()
    errors = [
        (prediction[row][2 * step + value] - float(action[row, step, value])) ** 2
        for row in (0, 1, 3)
        for step in range(3)
        for value in range(2)
    ]
    loss = objective.loss(first, last, action, valid)
    assert loss.total.item() == pytest.approx(sum(errors) / len(errors))
    assert loss.parts["inverse_error"].item() == pytest.approx(loss.total.item())


@pytest.mark.parametrize("actions", [ActionSpec(2), ActionSpec(1, 3)])
def test_no_valid_row_is_zero_without_gradient(actions: ActionSpec) -> None:
    objective = make(actions)
    first, last = features()
    action = torch.zeros(4, 1, actions.dim, dtype=torch.float64)
    loss = objective.loss(first, last, action, torch.zeros(4, dtype=torch.bool))
    loss.total.backward()
    assert loss.total.item() == 0.0
    assert all(not p.grad.any() for p in objective.parameters())


def test_takes_first_and_last_observation_and_the_actions_between() -> None:
    objective = make(ActionSpec(2), inverse_k=2)
    spec = objective.needs()
    assert spec.offsets == (0, 1, 2) and spec.images_at == (0, 2) and spec.crossing == "mask"
    assert objective.augmented
    objective.encoder.double()
    images = torch.randint(0, 256, (3, 2, 9, 24, 24), dtype=torch.uint8)
    action = torch.rand(3, 3, 2, dtype=torch.float64)
    valid = torch.tensor([[True, True, True], [True, True, False], [True, True, True]])
    batch = Batch([images], (0, 1, 2), valid, {"action": action}, image_offsets=(0, 2))
    want = objective.loss(objective.encoder(images[:, 0]), objective.encoder(images[:, 1]), action[:, 1:], valid[:, 2])
    torch.testing.assert_close(objective(batch).total, want.total)
