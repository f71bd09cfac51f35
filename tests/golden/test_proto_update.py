"""Whole Proto-RL updates in both phases, through the same ``update`` that runs use."""

from functools import partial
from typing import Any

import pytest
import torch
from compare import assert_scaled, assert_weights, below, digest, load_weights, precision_of, tensor
from load import Case, cases, load_case
from torch import nn

from visrep.data.actions import ActionSpec
from visrep.data.batch import Batch
from visrep.encoders.contract import InputContract
from visrep.encoders.conv import ConvEncoder
from visrep.objectives.proto import ProtoConfig, ProtoObjective
from visrep.pace import LearningRate
from visrep.policies.contract import PolicyNoise
from visrep.policies.sac import SAC, SACConfig
from visrep.runs.representation import make_representation
from visrep.runs.update import Learner, update


def load_encoder(encoder: ConvEncoder, param: dict[str, Any], dtype: torch.dtype) -> None:
    """Golden convolutions conv1..4 are layers 0, 2, 4, 6 of ours."""
    names = {f"convs.{2 * i}.{kind}": f"conv{i + 1}.{kind}" for i in range(4) for kind in ("weight", "bias")}
    encoder.load_state_dict({ours: tensor(param[theirs], dtype) for ours, theirs in names.items()})


def assert_encoder(encoder: nn.Module, new: dict[str, Any], tolerance: float, name: str) -> None:
    for i in range(4):
        layer = encoder.convs[2 * i]
        for kind in ("weight", "bias"):
            got = digest(getattr(layer, kind))
            assert_scaled(got, new[f"conv{i + 1}.{kind}.digest"], tolerance, f"{name}.conv{i + 1}.{kind}")


def build(c: Case, dtype: torch.dtype) -> Learner:
    """The exploration agent with the golden weights."""
    meta, param = {name: a.item() for name, a in c["meta"].items()}, c["param"]
    channels, height, width = c["in"]["obs"].shape[2:]
    action_dim = c["in"]["action"].shape[-1]
    encoder = ConvEncoder(InputContract(height, width, channels=channels, stack=1))
    config = ProtoConfig(
        proj_dim=param["prototypes"].shape[1],
        pred_dim=param["predictor.fc1.weight"].shape[0],
        T=meta["temperature"],
        num_protos=int(meta["num_prototypes"]),
        topk=int(meta["topk"]),
        queue_size=int(meta["queue_size"]),
        encoder_target_tau=meta["encoder_target_tau"],
    )
    objective = ProtoObjective(encoder, ActionSpec(action_dim), config)
    policy = SAC(
        encoder.feature_dim,
        action_dim,
        SACConfig(
            init_temperature=meta["init_alpha"],
            actor_update_frequency=int(meta["actor_every"]),
            critic_target_tau=meta["critic_target_tau"],
            critic_target_update_frequency=int(meta["critic_target_every"]),
            feature_dim=param["actor.trunk.linear.weight"].shape[0],
            hidden_dim=param["actor.mlp.fc1.weight"].shape[0],
        ),
        meta["lr"],
    )
    for module in (encoder, objective, policy):
        module.to(dtype)
    load_encoder(encoder, below(param, "encoder"), dtype)
    objective.projector.load_state_dict({k: tensor(a, dtype) for k, a in below(param, "encoder.projector").items()})
    for ours, theirs in zip((objective.predictor[0], objective.predictor[2]), ("fc1", "fc2"), strict=True):
        ours.load_state_dict({k: tensor(a, dtype) for k, a in below(param, f"predictor.{theirs}").items()})
    objective.prototypes.data.copy_(tensor(param["prototypes"], dtype))
    objective.target_encoder.load_state_dict(encoder.state_dict())
    objective.target_projector.load_state_dict(objective.projector.state_dict())
    load_weights(policy.actor, param, "actor")
    load_weights(policy.critic, param, "critic_phase1")
    load_weights(policy.critic_target, param, "critic_phase1")
    with torch.no_grad():
        policy.log_alpha.fill_(torch.tensor(meta["init_alpha"], dtype=torch.float64).log())
    return Learner(
        encoder=encoder,
        policy=policy,
        generator=None,
        objective=objective,
        representation=make_representation(objective, LearningRate(meta["lr"]), train_encoder=True),
        intrinsic="only",
        intr_coef=meta["intrinsic_coef_phase2"],
    )


def switch_phase(learner: Learner, c: Case) -> None:
    """What the task agent starts with: everything kept but critic, temperature and optimiser states."""
    learner.encoder_gradient, learner.representation, learner.intrinsic = "none", None, "bonus"
    learner.policy.fresh(frozenset({"actor"}))
    with torch.no_grad():  # the golden temperature is rounded to the dtype of the run, like ours
        learner.policy.log_alpha.fill_(torch.tensor(c["meta"]["init_alpha"].item(), dtype=torch.float64).log())
    load_weights(learner.policy.critic, c["param"], "critic_phase2")
    load_weights(learner.policy.critic_target, c["param"], "critic_phase2")


def batch_of(c: Case, n: int, dtype: torch.dtype) -> Batch:
    obs, next_obs = (torch.from_numpy(c["in"][name][n]) for name in ("obs", "next_obs"))
    action, reward = (tensor(c["in"][name][n], dtype) for name in ("action", "reward"))
    return Batch(
        images=[torch.stack([obs, next_obs], dim=1)],
        offsets=(0, 1),
        valid=torch.ones(len(obs), 2, dtype=torch.bool),
        fields={"action": torch.stack([torch.zeros_like(action), action], dim=1)},
        n_step_return=reward,
        n_step_discount=torch.full_like(reward, c["meta"]["discount"].item()),
    )


def assert_state(learner: Learner, new: dict[str, Any], tolerance: float) -> None:
    objective, policy = learner.objective, learner.policy
    assert_encoder(learner.encoder, below(new, "encoder"), tolerance, "encoder")
    assert_encoder(objective.target_encoder, below(new, "encoder_target"), tolerance, "encoder_target")
    assert_weights(objective.projector, new, "encoder.projector", tolerance)
    assert_weights(objective.target_projector, new, "encoder_target.projector", tolerance)
    assert_weights(objective.predictor[0], new, "predictor.fc1", tolerance)
    assert_weights(objective.predictor[2], new, "predictor.fc2", tolerance)
    assert_scaled(objective.prototypes, new["prototypes"], tolerance, "prototypes")
    assert_weights(policy.actor, new, "actor", tolerance)
    assert_weights(policy.critic, new, "critic", tolerance)
    assert_weights(policy.critic_target, new, "critic_target", tolerance)
    assert_scaled(policy.log_alpha, new["log_alpha"], tolerance, "log_alpha")


@pytest.mark.parametrize("run", ("float32", "float64"))
@pytest.mark.parametrize("case", cases("proto_update"))
def test_both_phases(case: str, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    c = load_case("proto_update", case)
    dtype, tolerance = precision_of(run, 5e-5)
    out, new = c["out64"], c["new64"]
    learner = build(c, dtype)
    rewards: list[torch.Tensor] = []
    original = ProtoObjective.novelty

    def recording(self: ProtoObjective, embedding: torch.Tensor) -> torch.Tensor:
        rewards.append(original(self, embedding))
        return rewards[-1]

    monkeypatch.setattr(ProtoObjective, "novelty", recording)
    compared = 0
    for n in range(len(c["in"]["obs"])):
        if n == int(c["meta"]["phase1_steps"]):
            switch_phase(learner, c)
        candidates = torch.from_numpy(c["rand"]["candidate_index"][n])
        monkeypatch.setattr(
            learner.objective, "remember", partial(_remember_given, learner.objective, candidates), raising=True
        )
        noise = PolicyNoise(*(tensor(c["rand"][name][n], dtype) for name in ("critic_noise", "actor_noise")))
        due = n % int(c["meta"]["encoder_every"]) == 0
        metrics = update(learner, batch_of(c, n, dtype), n, n, noise=noise, train_representation=due)

        assert ("repr_loss" in metrics) == bool(torch.isfinite(torch.tensor(out["repr_loss"][n])))
        assert ("actor_loss" in metrics) == bool(torch.isfinite(torch.tensor(out["actor_loss"][n])))
        for name in {"repr_loss", "critic_loss", "actor_loss", "alpha"} & metrics.keys():
            assert_scaled(metrics[name], out[name][n], tolerance, f"update {n} {name}")
        assert_scaled(rewards[-1], out["intrinsic_reward"][n], tolerance, f"update {n} intrinsic reward")
        assert_scaled(learner.objective.queue, out["queue"][n], tolerance, f"update {n} queue")
        assert int(learner.objective.queue_ptr) == int(c["out"]["queue_ptr"][n])
        after = below(new, f"after_step{n}")
        if after:
            assert_state(learner, after, tolerance)
            compared += 1
    assert compared, "no golden weights were compared"


def _remember_given(objective: ProtoObjective, candidates: torch.Tensor, embedding: torch.Tensor, _: object) -> None:
    ProtoObjective.remember(objective, embedding, candidates=candidates)
