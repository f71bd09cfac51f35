"""URLB's DDPG on vector observations: the same losses on networks whose critic trunk sees [observation, action]."""

import pytest
import torch
from compare import assert_gradients, assert_scaled, load_weights, precision_of, tensor
from load import cases, load_case
from test_sac import sizes
from torch import Tensor, nn

from visrep.policies.distributions import TruncatedNormal
from visrep.policies.drqv2 import deterministic_actor_loss, td_target
from visrep.policies.nets import TrunkMLP, mlp, trunk
from visrep.policies.steps import twin_loss


class StateCritic(nn.Module):
    """Twin heads on trunk([observation, action])."""

    def __init__(self, input_dim: int, action_dim: int, feature_dim: int, hidden_dim: int, hidden_depth: int) -> None:
        super().__init__()
        self.trunk = trunk(input_dim + action_dim, feature_dim, tanh=True)
        self.q1 = mlp(feature_dim, hidden_dim, 1, hidden_depth)
        self.q2 = mlp(feature_dim, hidden_dim, 1, hidden_depth)

    def forward(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.trunk(torch.cat([obs, action], dim=1))
        return self.q1(hidden), self.q2(hidden)


@pytest.mark.parametrize("run", ("float32", "float64"))
@pytest.mark.parametrize("case", cases("urlb_ddpg"))
def test_urlb_ddpg(case: str, run: str) -> None:
    c = load_case("urlb_ddpg", case)
    param = c["param"]
    dtype, tolerance = precision_of(run, 5e-6)
    out, grad = c["out64"], c["grad64"]
    inputs = {name: tensor(a, dtype) for name, a in (c["in"] | c["rand"]).items()}
    std, clip = torch.tensor(float(c["meta"]["std"]), dtype=dtype), float(c["meta"]["clip"])
    action_dim = inputs["action"].shape[1]

    actor = TrunkMLP(output_dim=action_dim, tanh=True, **sizes(param)).to(dtype)
    critic, target = (StateCritic(action_dim=action_dim, **sizes(param)).to(dtype) for _ in range(2))
    load_weights(actor, param, "actor")
    load_weights(critic, param, "critic")
    load_weights(target, param, "critic_target")

    with torch.no_grad():
        next_action = TruncatedNormal(torch.tanh(actor(inputs["next_obs"])), std).sample(inputs["critic_noise"], clip)
        target_q = td_target(inputs["reward"], inputs["discount"], target(inputs["next_obs"], next_action))
    critic_loss = twin_loss(critic(inputs["obs"], inputs["action"]), target_q)
    critic_loss.backward()
    assert_gradients(critic, grad, "critic", tolerance)
    action = TruncatedNormal(torch.tanh(actor(inputs["obs"])), std).sample(inputs["actor_noise"], clip)
    actor_loss = deterministic_actor_loss(critic(inputs["obs"], action))
    actor_loss.backward(inputs=list(actor.parameters()))
    assert_gradients(actor, grad, "actor", tolerance)

    got = {"critic_loss": critic_loss, "target_q_mean": target_q.mean(), "actor_loss": actor_loss}
    assert got.keys() == out.keys()
    for name, value in got.items():
        assert_scaled(value, out[name], tolerance, name)
