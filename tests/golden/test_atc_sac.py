"""Masked SAC losses and gradients of rlpyt's agent, through ``SAC.update`` with a learning rate of 0."""

from __future__ import annotations

import math

import pytest
import torch
from compare import Arrays, assert_gradients, assert_scaled, below, load_weights, precision_of, references, tensor
from load import cases, load_case

from visrep.policies.contract import PolicyBatch, PolicyNoise
from visrep.policies.sac import SAC, SACConfig

HEADS = {"mlp1": "q1", "mlp2": "q2"}


def renamed(arrays: Arrays) -> dict[str, object]:
    """rlpyt's parameters under our names: projections are trunks, layers 0, 2, 4 of an MLP are fc1, fc2, fc3."""
    trunks = {"q_fc1": "critic.trunk", "pi_fc1": "actor.trunk", "target_q_fc1": "critic_target.trunk"}
    mlps = {"q_mlps": "critic", "target_q_mlps": "critic_target"}
    ours = {}
    for name, array in arrays.items():
        part, *rest = name.split(".")
        if part in trunks:
            layer, kind = rest
            ours[f"{trunks[part]}.{layer.replace('_', '')}.{kind}"] = array
        elif part in mlps or part == "pi_mlp":
            mlp, layer, kind = rest
            owner = "actor.mlp" if part == "pi_mlp" else f"{mlps[part]}.{HEADS[mlp]}"
            ours[f"{owner}.fc{int(layer) // 2 + 1}.{kind}"] = array
    return ours


def agent(param: Arrays, meta: dict[str, float], action_dim: int, dtype: torch.dtype) -> SAC:
    """rlpyt's settings on the golden weights; nothing moves."""
    config = SACConfig(
        init_temperature=meta["alpha"],
        alpha_loss="log_alpha",
        critic_loss_scale=0.5,
        target_action_features="target",
        log_density="rlpyt",
        feature_dim=param["actor.trunk.linear.weight"].shape[0],
        hidden_dim=param["actor.mlp.fc1.weight"].shape[0],
    )
    policy = SAC(param["actor.trunk.linear.weight"].shape[1], action_dim, config, lr=0.0).to(dtype)
    for part in ("actor", "critic", "critic_target"):
        load_weights(getattr(policy, part), param, part)
    with torch.no_grad():
        policy.log_alpha.fill_(math.log(meta["alpha"]))
    policy.target_entropy = meta["target_entropy"]
    return policy


@pytest.mark.parametrize("run", ("float32", "float64"))
@pytest.mark.parametrize("case", cases("atc_sac"))
def test_atc_sac(case: str, run: str) -> None:
    c = load_case("atc_sac", case)
    dtype, tolerance = precision_of(run, 5e-4)
    meta = {name: a.item() for name, a in c["meta"].items()}
    given = {name: tensor(a, dtype) for name, a in (c["in"] | c["rand"]).items()}
    policy = agent(renamed(c["param"]), meta, given["action"].shape[1], dtype)

    conv = given["conv"].requires_grad_()
    features = torch.relu(conv.flatten(1))  # the golden maps are signed; the encoder's are not
    weight = 1.0 - given["timeout_n"].to(dtype)
    batch = PolicyBatch(
        features=features,
        action=given["action"],
        reward=meta["reward_scale"] * given["return"][:, None],
        discount=(1.0 - given["done_n"].to(dtype))[:, None] * meta["gamma"] ** meta["n_step"],
        next_features=torch.full_like(features, float("nan")),  # not read
        target_next_features=torch.relu(given["target_conv"].flatten(1)),
        weight=weight[:, None],
    )
    with torch.no_grad():
        q1, q2 = policy.critic(features, batch.action)
        _, log_prob = policy.distribution(features).sample(given["actor_noise"], "rlpyt")
    metrics = policy.update(batch, 0, 0, PolicyNoise(given["target_noise"], given["actor_noise"]))

    got = {
        "q1": q1[:, 0],
        "q2": q2[:, 0],
        "log_pi_check": log_prob[:, 0],
        "valid": weight,
        "q_loss": metrics["critic_loss"],
        "pi_loss": metrics["actor_loss"],
        "alpha_loss": metrics["alpha_loss"],
    }
    assert conv.grad is not None and policy.log_alpha.grad is not None
    for out, grad in references(c, run):
        expected = {name: a for name, a in out.items() if name not in ("q1_loss", "q2_loss")}
        expected["q_loss"] = out["q1_loss"] + out["q2_loss"]
        assert got.keys() == expected.keys()
        for name, value in got.items():
            assert_scaled(value, expected[name], tolerance, name)
        gradients = renamed(grad)
        assert below(gradients, "critic_target") == {}
        assert_gradients(policy.critic, gradients, "critic", tolerance)
        assert_gradients(policy.actor, gradients, "actor", tolerance)
        assert_scaled(conv.grad, grad["conv"], tolerance, "grad conv")  # the critic's alone
        assert_scaled(policy.log_alpha.grad, grad["log_alpha"], tolerance, "grad log_alpha")
