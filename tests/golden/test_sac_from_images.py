"""SAC losses and gradients of CURL's and SAC-AE's code from images, through ``SAC.update`` at a learning rate of 0."""

from __future__ import annotations

import pytest
import torch
from compare import Arrays, assert_gradients, assert_scaled, below, load_weights, precision_of, references, tensor
from load import cases, load_case
from torch import Tensor, nn

from visrep.policies.contract import PolicyBatch, PolicyNoise
from visrep.policies.sac import SAC, SACConfig

FILES = {"curl_sac": (False, 1e-5), "sac_ae_sac": (True, 2e-5)}  # whether the trunks end with a Tanh; float32 tolerance
CASES = [(file, case) for file in FILES for case in cases(file)]


class Convolutions(nn.Module):
    """The golden encoder up to its projection."""

    def __init__(self, arrays: Arrays, dtype: torch.dtype) -> None:
        super().__init__()
        for name, stride in (("conv1", 2), ("conv2", 1)):
            outputs, inputs, size, _ = arrays[f"{name}.weight"].shape
            self.add_module(name, nn.Conv2d(inputs, outputs, size, stride))
        self.to(dtype)
        self.load_state_dict({name: tensor(arrays[name], dtype) for name in self.state_dict()})

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(self.conv2(torch.relu(self.conv1(images / 255.0)))).flatten(1)


def renamed(arrays: Arrays) -> dict[str, object]:
    """Policy parameters under our names: the encoder's Linear and LayerNorm are our trunk."""

    def ours(name: str) -> str:
        return name.replace(".encoder.fc.", ".trunk.linear.").replace(".encoder.", ".trunk.")

    return {ours(name): a for name, a in arrays.items() if ".conv" not in name}


def agent(param: Arrays, log_alpha: float, action_dim: int, tanh: bool, dtype: torch.dtype) -> SAC:
    """Both codes' settings on the golden weights; nothing moves."""
    feature_dim, input_dim = param["actor.trunk.linear.weight"].shape
    config = SACConfig(
        trunk_target_tau=0.05,
        conv_target_tau=0.05,
        trunk_tanh=tanh,
        log_density="sac_ae",
        feature_dim=feature_dim,
        hidden_dim=param["actor.mlp.fc1.weight"].shape[0],
    )
    policy = SAC(input_dim, action_dim, config, lr=0.0).to(dtype)
    for part in ("actor", "critic", "critic_target"):
        load_weights(getattr(policy, part), param, part)
    with torch.no_grad():
        policy.log_alpha.fill_(log_alpha)
    return policy


@pytest.mark.parametrize("run", ("float32", "float64"))
@pytest.mark.parametrize(("file", "case"), CASES)
def test_losses_from_images(file: str, case: str, run: str) -> None:
    c = load_case(file, case)
    tanh, float32_tolerance = FILES[file]
    dtype, tolerance = precision_of(run, float32_tolerance)
    param, meta = c["param"], {name: a.item() for name, a in c["meta"].items()}
    given = {name: tensor(a, dtype) for name, a in (c["in"] | c["rand"]).items()}
    encoder = Convolutions(below(param, "critic.encoder"), dtype)
    target_encoder = Convolutions(below(param, "critic_target.encoder"), dtype)
    policy = agent(renamed(param), meta["log_alpha"], given["action"].shape[1], tanh, dtype)
    with torch.no_grad():
        next_features = encoder(given["next_obs"])
        target_next_features = target_encoder(given["next_obs"])
    features = encoder(given["obs"])

    got = {}
    with torch.no_grad():
        got["next_action"], got["next_log_prob"] = policy.distribution(next_features).sample(
            given["critic_noise"], "sac_ae"
        )
        current = policy.distribution(features)
        got["mean_action"], got["actor_log_std"] = current.mode, current.log_std
        got["actor_action"], got["actor_log_prob"] = current.sample(given["actor_noise"], "sac_ae")
    batch = PolicyBatch(
        features,
        given["action"],
        given["reward"],
        given["not_done"] * meta["gamma"],
        next_features,
        target_next_features,
    )
    metrics = policy.update(batch, 0, 0, PolicyNoise(given["critic_noise"], given["actor_noise"]))
    got |= {name: metrics[name] for name in ("critic_loss", "actor_loss", "alpha_loss")}

    assert policy.log_alpha.grad is not None
    for out, grad in references(c, run):
        assert got.keys() == out.keys()
        for name, value in got.items():
            assert_scaled(value, out[name], tolerance, name)
        gradients = renamed(grad)
        assert_gradients(policy.critic, gradients, "critic", tolerance)
        assert_gradients(policy.actor, gradients, "actor", tolerance)
        convolutions = {name: a for name, a in below(grad, "critic.encoder").items() if name.startswith("conv")}
        assert_gradients(encoder, {f"encoder.{name}": a for name, a in convolutions.items()}, "encoder", tolerance)
        assert_scaled(policy.log_alpha.grad, grad["log_alpha"], tolerance, "grad log_alpha")
