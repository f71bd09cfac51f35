"""ICM-APT's loss, gradients, representation and reward against URLB's public code, and its reward against loops."""

import math

import pytest
import torch
from load import cases, load_case
from objective_case import RUNS, Expected, fill, objective_on

from visrep.objectives import Transition


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", cases("icm_apt"))
def test_against_public_code(case: str, run: str) -> None:
    c = load_case("icm_apt", case)
    want = Expected(c, run, 5e-6)
    obs, action, next_obs = (want.inputs[name] for name in ("obs", "action", "next_obs"))
    objective = objective_on(
        "apt",
        obs.shape[1],
        action.shape[1],
        want.dtype,
        knn_k=int(c["meta"]["k"]),
        icm_rep_dim=len(c["param"]["trunk.linear.weight"]),
        icm_hidden_dim=len(c["param"]["forward.fc1.weight"]),
    )
    networks = {
        "trunk": objective.trunk,
        "forward": objective.models.forward_net,
        "inverse": objective.models.inverse_net,
    }
    for prefix, network in networks.items():
        fill(network, c["param"], prefix)
    loss = objective.loss(obs, action, next_obs)
    loss.total.backward()
    want.check(loss.total, "loss")
    for prefix, network in networks.items():
        want.check_gradients(network, prefix)
    embedding = objective.embed(Transition(obs, action, next_obs))
    want.check(embedding, "rep")
    objective.remember(embedding)
    want.check(objective.novelty(embedding), "reward")


def test_reward_against_loops() -> None:
    points = torch.randn(10, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    objective = objective_on("apt", 4, 1, torch.float64, knn_k=3, knn_clip=0.5)
    want = []
    for point in points.tolist():
        nearest = sorted(math.dist(point, other) for other in points.tolist())[:3]
        want.append([math.log(1 + sum(max(d - 0.5, 0.0) for d in nearest) / 3)])
    torch.testing.assert_close(objective.novelty(points), torch.tensor(want, dtype=torch.float64))


@pytest.mark.parametrize("average", [True, False])
def test_running_mean_moves_in_remember_only(average: bool) -> None:
    points = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    objective = objective_on("apt", 4, 1, torch.float32, knn_k=3, knn_rms=True, knn_avg=average)
    objective.remember(points)
    first = objective.novelty(points)
    assert torch.equal(first, objective.novelty(points))
    objective.remember(points * 100)
    assert (objective.novelty(points) < first).any()
