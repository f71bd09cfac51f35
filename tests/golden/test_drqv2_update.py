"""Whole DrQ-v2 updates from pixels, through the same ``update`` that runs use."""

import pytest
import torch
from compare import assert_scaled, assert_weights, below, load_weights, precision_of, tensor
from load import cases, load_case
from test_proto_update import assert_encoder, load_encoder

from visrep.augment.shift import random_shift
from visrep.data.batch import Batch
from visrep.encoders.contract import InputContract
from visrep.encoders.conv import ConvEncoder
from visrep.policies.contract import PolicyNoise
from visrep.policies.drqv2 import DrQv2, DrQv2Config
from visrep.policies.nets import adam
from visrep.runs.update import Learner, augmented, encode, update


@pytest.mark.parametrize("run", ("float32", "float64"))
@pytest.mark.parametrize("case", cases("drqv2_update"))
def test_drqv2_updates(case: str, run: str) -> None:
    c = load_case("drqv2_update", case)
    dtype, tolerance = precision_of(run, 2e-5)
    meta, param, out, new = c["meta"], c["param"], c["out64"], c["new64"]
    count, batch_size, channels, height, width = c["in"]["obs"].shape
    action_dim = c["in"]["action"].shape[-1]
    encoder = ConvEncoder(InputContract(height, width, channels=channels, stack=1), offset=0.5).to(dtype)
    config = DrQv2Config(
        std_schedule=str(meta["std_schedule"]),
        stddev_clip=float(meta["clip"]),
        critic_target_tau=float(meta["critic_target_tau"]),
        feature_dim=param["actor.trunk.linear.weight"].shape[0],
        hidden_dim=param["actor.mlp.fc1.weight"].shape[0],
    )
    policy = DrQv2(encoder.feature_dim, action_dim, config, float(meta["lr"])).to(dtype)
    load_encoder(encoder, below(param, "encoder"), dtype)
    load_weights(policy.actor, param, "actor")
    load_weights(policy.critic, param, "critic")
    load_weights(policy.critic_target, param, "critic")
    learner = Learner(
        encoder=encoder,
        policy=policy,
        generator=None,
        encoder_optimizer=adam(encoder.parameters(), float(meta["lr"])),
        encoder_gradient="critic",
    )
    metric_names = {
        "batch_reward": "batch_reward",
        "critic_target_q": "target_q",
        "critic_q1": "q1",
        "critic_q2": "q2",
        "critic_loss": "critic_loss",
        "actor_loss": "actor_loss",
        "actor_logprob": "actor_log_prob",
        "actor_ent": "entropy",
    }
    for n in range(count):
        shifts = torch.stack(
            [torch.from_numpy(c["rand"][name][n]) for name in ("shift_obs", "shift_next_obs")], dim=1
        ).flatten(0, 1)  # [B * 2, 2]
        learner.augment = lambda images, generator, shifts=shifts: random_shift(images, pad=4, shift=shifts)
        obs, next_obs = (torch.from_numpy(c["in"][name][n]) for name in ("obs", "next_obs"))
        action = tensor(c["in"]["action"][n], dtype)
        batch = Batch(
            images=[torch.stack([obs, next_obs], dim=1)],
            offsets=(0, 1),  # the n-step return and discount are given, so n itself does not matter here
            valid=torch.ones(batch_size, 2, dtype=torch.bool),
            fields={"action": torch.stack([torch.zeros_like(action), action], dim=1)},
            n_step_return=tensor(c["in"]["reward"][n], dtype),
            n_step_discount=tensor(c["in"]["discount"][n], dtype),
        )
        with torch.no_grad():
            shifted = augmented(batch, learner.augment, None)
            for offset, name in ((0, "features"), (1, "next_features")):
                assert_scaled(encode(learner, shifted.image(offset)), out[name][n], tolerance, f"update {n} {name}")
        noise = PolicyNoise(*(tensor(c["rand"][name][n], dtype) for name in ("critic_noise", "actor_noise")))
        metrics = update(learner, batch, tick=n, agent_step=int(meta["step"][n]), noise=noise)
        for theirs, ours in metric_names.items():
            assert_scaled(metrics[ours], out[theirs][n], tolerance, f"update {n} {theirs}")
        after = below(new, f"after_update{n}")
        if after:
            assert_encoder(encoder, below(after, "encoder"), tolerance, "encoder")
    final = below(new, "final")
    assert_encoder(encoder, below(final, "encoder"), tolerance, "encoder")
    assert_weights(policy.actor, final, "actor", tolerance)
    assert_weights(policy.critic, final, "critic", tolerance)
    assert_weights(policy.critic_target, final, "critic_target", tolerance)
