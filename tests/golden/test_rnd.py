"""RND over consecutive updates against URLB's public code, and against loops."""

import pytest
import torch
from load import cases, load_case
from objective_case import RUNS, Expected, fill, objective_on

from visrep.objectives import Transition


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", cases("rnd"))
def test_against_public_code(case: str, run: str) -> None:
    c = load_case("rnd", case)
    want = Expected(c, run, 5e-6)
    rep_dim, hidden = c["param"]["predictor.fc3.weight"].shape
    batches = want.inputs["obs"]
    objective = objective_on(
        "rnd",
        batches.shape[2],
        1,
        want.dtype,
        rnd_rep_dim=rep_dim,
        rnd_hidden_dim=hidden,
        rnd_clip=float(c["meta"]["clip"]),
    )
    fill(objective.predictor, c["param"], "predictor")
    fill(objective.target, c["param"], "target")
    for call, obs in enumerate(batches):
        loss = objective.loss(obs)
        want.check(loss.total, "loss", call)
        if call == 0:
            loss.total.backward()
            want.check_gradients(objective.predictor, "predictor")
        embedding = objective.embed(Transition(obs, obs, obs))
        objective.remember(embedding)
        want.check(objective.novelty(embedding), "reward", call)
        # The public code's reward pass tracks the input's moments a second time; ours is pure, so the test does it.
        objective.normaliser(obs)
        want.check(objective.normaliser.running_mean, "obs_mean", call)
        want.check(objective.normaliser.running_var, "obs_var", call)
        moments = objective.error_moments
        for name, value in {"rms_mean": moments.mean, "rms_var": moments.var, "rms_count": moments.count}.items():
            want.check(value, name, call)
    assert all(parameter.grad is None for parameter in objective.target.parameters())


def test_error_against_loops() -> None:
    objective = objective_on("rnd", 3, 1, torch.float64, rnd_rep_dim=2, rnd_hidden_dim=4)
    obs = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got = objective.embed(Transition(obs, obs, obs))
    for b in range(5):
        row = []
        for d in range(3):
            column = obs[:, d].tolist()
            mean = sum(column) / 5
            variance = sum((x - mean) ** 2 for x in column) / 5
            row.append(min(max((column[b] - mean) / (variance + 1e-5) ** 0.5, -5.0), 5.0))
        vector = torch.tensor(row, dtype=torch.float64)
        difference = (objective.predictor(vector) - objective.target(vector)).tolist()
        assert float(got[b]) == pytest.approx(sum(x * x for x in difference) / 2, rel=1e-9)


def test_evaluation_mode_judges_single_observations_by_the_tracked_moments() -> None:
    objective = objective_on("rnd", 3, 1, torch.float32, rnd_rep_dim=2, rnd_hidden_dim=4)
    batch = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    for _ in range(100):
        objective.loss(batch)
    objective.eval()
    alone = objective.embed(Transition(batch[:1], batch[:1], batch[:1]))
    torch.testing.assert_close(alone, objective.embed(Transition(batch, batch, batch))[:1])
