"""The ensemble's loss, gradients and variance against URLB's public code, and against loops."""

import statistics

import pytest
import torch
from load import cases, load_case
from objective_case import RUNS, Expected, fill, objective_on

from visrep.objectives import Transition


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", cases("disagreement"))
def test_against_public_code(case: str, run: str) -> None:
    c = load_case("disagreement", case)
    want = Expected(c, run, 5e-6)
    obs, action, next_obs = (want.inputs[name] for name in ("obs", "action", "next_obs"))
    models = len({name.split(".")[0] for name in c["param"]})
    objective = objective_on(
        "disagreement",
        obs.shape[1],
        action.shape[1],
        want.dtype,
        disagreement_models=models,
        disagreement_hidden_dim=len(c["param"]["model0.fc1.weight"]),
    )
    for index, model in enumerate(objective.ensemble):
        fill(model, c["param"], f"model{index}")
    loss = objective.loss(obs, action, next_obs)
    loss.total.backward()
    want.check(loss.total, "loss")
    want.check(loss.outputs["errors"], "errors")
    for index, model in enumerate(objective.ensemble):
        want.check_gradients(model, f"model{index}")
    embedding = objective.embed(Transition(obs, action, next_obs))
    objective.remember(embedding)
    want.check(objective.novelty(embedding), "reward")


def test_variance_against_loops() -> None:
    objective = objective_on("disagreement", 3, 2, torch.float64, disagreement_models=4, disagreement_hidden_dim=5)
    obs, action = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    got = objective.embed(Transition(obs, action, obs))
    for b in range(6):
        outputs = [model(torch.cat([obs[b], action[b]])).tolist() for model in objective.ensemble]
        variances = [statistics.variance(output[d] for output in outputs) for d in range(3)]
        assert float(got[b]) == pytest.approx(statistics.fmean(variances), rel=1e-9)
