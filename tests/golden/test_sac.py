"""SAC target, losses and gradients against Proto-RL's public code."""

import numpy as np
import pytest
import torch
from compare import assert_gradients, assert_scaled, load_weights, precision_of, tensor
from load import cases, load_case

from visrep.policies.distributions import SquashedGaussian
from visrep.policies.nets import TrunkMLP, TwinCritic
from visrep.policies.sac import soft_actor_loss, soft_target, temperature_loss
from visrep.policies.steps import twin_loss

RUNS = ("float32", "float64")


def sizes(param: dict[str, np.ndarray]) -> dict[str, int]:
    feature_dim, input_dim = param["actor.trunk.linear.weight"].shape
    return {
        "input_dim": input_dim,
        "feature_dim": feature_dim,
        "hidden_dim": param["actor.mlp.fc1.weight"].shape[0],
        "hidden_depth": sum(name.startswith("actor.mlp.") and name.endswith(".weight") for name in param) - 1,
    }


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", cases("proto_sac"))
def test_sac_losses(case: str, run: str) -> None:
    c = load_case("proto_sac", case)
    param, meta = c["param"], c["meta"]
    dtype, tolerance = precision_of(run, 5e-3 if case == "saturated" else 1e-5)
    out, grad = c["out64"], c["grad64"]
    inputs = {name: tensor(a, dtype) for name, a in (c["in"] | c["rand"]).items()}
    action_dim = inputs["action"].shape[1]

    actor = TrunkMLP(output_dim=2 * action_dim, tanh=False, **sizes(param)).to(dtype)
    critic = TwinCritic(action_dim=action_dim, tanh=False, **sizes(param)).to(dtype)
    target = TwinCritic(action_dim=action_dim, tanh=False, **sizes(param)).to(dtype)
    load_weights(actor, param, "actor")
    load_weights(critic, param, "critic")
    load_weights(target, param, "critic_target")
    log_alpha = torch.tensor(float(meta["log_alpha"]), dtype=dtype, requires_grad=True)
    bounds = (float(meta["log_std_min"]), float(meta["log_std_max"]))
    got: dict[str, torch.Tensor] = {}

    with torch.no_grad():
        policy = SquashedGaussian.from_raw(actor(inputs["next_features"]), bounds)
        got["next_mean"], got["next_std"] = policy.mean, policy.log_std.exp()
        got["next_action"], got["next_log_prob"] = policy.sample(inputs["critic_noise"])
        got["target_q1"], got["target_q2"] = next_q = target(inputs["next_features"], got["next_action"])
        got["target_q"] = soft_target(
            inputs["reward"], inputs["discount"], next_q, got["next_log_prob"], log_alpha.exp()
        )
    got["q1"], got["q2"] = q = critic(inputs["features"], inputs["action"])
    got["critic_loss"] = twin_loss(q, got["target_q"])
    got["critic_loss"].backward()
    assert_gradients(critic, grad, "critic", tolerance)

    policy = SquashedGaussian.from_raw(actor(inputs["features"]), bounds)
    got["actor_action"], got["actor_log_prob"] = policy.sample(inputs["actor_noise"])
    q = critic(inputs["features"], got["actor_action"])
    got["actor_loss"] = soft_actor_loss(q, got["actor_log_prob"], log_alpha.detach().exp())
    got["actor_loss"].backward(inputs=list(actor.parameters()))
    assert_gradients(actor, grad, "actor", tolerance)

    got["alpha_loss"] = temperature_loss(log_alpha.exp(), got["actor_log_prob"], float(meta["target_entropy"]))
    got["alpha_loss"].backward()
    assert log_alpha.grad is not None
    assert_scaled(log_alpha.grad, grad["log_alpha"], tolerance, "grad log_alpha")

    assert got.keys() == out.keys()
    for name, value in got.items():
        assert_scaled(value, out[name], tolerance, name)
