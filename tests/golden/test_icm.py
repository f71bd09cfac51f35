"""ICM's losses, gradients and reward against URLB's public code, and against loops."""

import math

import pytest
import torch
from load import cases, load_case
from objective_case import RUNS, Expected, fill, objective_on

from visrep.objectives import Transition
from visrep.objectives.parts.heads import residual_norm


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", cases("icm"))
def test_against_public_code(case: str, run: str) -> None:
    c = load_case("icm", case)
    want = Expected(c, run, 5e-6)
    hidden = len(c["param"]["forward.fc1.weight"])
    obs, action, next_obs = (want.inputs[name] for name in ("obs", "action", "next_obs"))
    objective = objective_on(
        "icm", obs.shape[1], action.shape[1], want.dtype, icm_hidden_dim=hidden, icm_scale=float(c["meta"]["scale"])
    )
    fill(objective.models.forward_net, c["param"], "forward")
    fill(objective.models.inverse_net, c["param"], "inverse")
    loss = objective.loss(obs, action, next_obs)
    loss.total.backward()
    want.check(loss.total, "loss")
    want.check(loss.outputs["forward_error"], "forward_error")
    want.check(loss.outputs["inverse_error"], "inverse_error")
    want.check_gradients(objective.models.forward_net, "forward")
    want.check_gradients(objective.models.inverse_net, "inverse")
    embedding = objective.embed(Transition(obs, action, next_obs))
    objective.remember(embedding)
    want.check(objective.novelty(embedding), "reward")


def test_residual_norm_against_loops() -> None:
    a, b = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    want = [[math.dist(x, y)] for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    torch.testing.assert_close(residual_norm(a, b), torch.tensor(want, dtype=torch.float64))


def test_perfect_prediction_has_a_finite_gradient() -> None:
    prediction = torch.ones(2, 3, requires_grad=True)
    residual_norm(torch.ones(2, 3), prediction).mean().backward()
    assert prediction.grad is not None and (prediction.grad == 0).all()
