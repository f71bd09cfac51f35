"""DrQ-v2 critic and actor losses and gradients against its public code."""

import pytest
import torch
from compare import assert_gradients, assert_scaled, load_weights, precision_of, tensor
from load import cases, load_case
from test_sac import sizes

from visrep.policies.distributions import TruncatedNormal
from visrep.policies.drqv2 import deterministic_actor_loss, td_target
from visrep.policies.nets import TrunkMLP, TwinCritic
from visrep.policies.steps import twin_loss


@pytest.mark.parametrize("run", ("float32", "float64"))
@pytest.mark.parametrize("case", cases("drqv2_losses"))
def test_drqv2_losses(case: str, run: str) -> None:
    c = load_case("drqv2_losses", case)
    param = c["param"]
    dtype, tolerance = precision_of(run, 5e-5)
    out, grad = c["out64"], c["grad64"]
    inputs = {name: tensor(a, dtype) for name, a in (c["in"] | c["rand"]).items()}
    std, clip = torch.tensor(float(c["meta"]["std"]), dtype=dtype), float(c["meta"]["clip"])
    action_dim = inputs["action"].shape[1]

    actor = TrunkMLP(output_dim=action_dim, tanh=True, **sizes(param)).to(dtype)
    critic = TwinCritic(action_dim=action_dim, tanh=True, **sizes(param)).to(dtype)
    target = TwinCritic(action_dim=action_dim, tanh=True, **sizes(param)).to(dtype)
    load_weights(actor, param, "actor")
    load_weights(critic, param, "critic")
    load_weights(target, param, "critic_target")
    got: dict[str, torch.Tensor] = {}

    with torch.no_grad():
        policy = TruncatedNormal(torch.tanh(actor(inputs["next_features"])), std)
        got["next_action"] = policy.sample(inputs["critic_noise"], clip)
        next_q = target(inputs["next_features"], got["next_action"])
        got["target_q"] = td_target(inputs["reward"], inputs["discount"], next_q)
    features = inputs["features"].requires_grad_()
    got["q1"], got["q2"] = q = critic(features, inputs["action"])
    got["critic_loss"] = twin_loss(q, got["target_q"])
    got["critic_loss"].backward()
    assert_gradients(critic, grad, "critic", tolerance)
    assert features.grad is not None
    assert_scaled(features.grad, grad["features"], tolerance, "grad features")

    detached = features.detach()
    policy = TruncatedNormal(torch.tanh(actor(detached)), std)
    got["actor_action"] = policy.sample(inputs["actor_noise"], clip)
    got["actor_loss"] = deterministic_actor_loss(critic(detached, got["actor_action"]))
    got["actor_log_prob_mean"] = policy.log_prob(got["actor_action"]).sum(dim=1).mean()
    got["actor_entropy_mean"] = policy.entropy().sum(dim=1).mean()
    got["actor_loss"].backward(inputs=list(actor.parameters()))
    assert_gradients(actor, grad, "actor", tolerance)

    assert got.keys() == out.keys()
    for name, value in got.items():
        assert_scaled(value, out[name], tolerance, name)
