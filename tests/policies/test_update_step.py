"""The one optimisation step: order, who trains the encoder, rewards, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from visrep.augment.shift import random_shift
from visrep.data.actions import ActionSpec
from visrep.data.batch import Batch
from visrep.encoders.contract import InputContract
from visrep.encoders.conv import ConvEncoder
from visrep.objectives.parts.ema import frozen_copy
from visrep.objectives.proto import ProtoConfig, ProtoObjective
from visrep.pace import LearningRate
from visrep.policies.contract import PolicyBatch, PolicyNoise
from visrep.policies.drqv2 import DrQv2, DrQv2Config
from visrep.policies.nets import adam
from visrep.policies.sac import SAC, SACConfig
from visrep.runs.finite import first_nonfinite
from visrep.runs.representation import make_representation
from visrep.runs.update import Learner, RunningMean, augmented, representation_update, update

BATCH, ACTIONS, SIZE = 8, 2, 20


def batch(offsets: tuple[int, ...] = (0, 1), reward: float = 2.0) -> Batch:
    g = torch.Generator().manual_seed(1)
    count = len(offsets)
    return Batch(
        images=[torch.randint(0, 256, (BATCH, count, 3, SIZE, SIZE), generator=g, dtype=torch.uint8)],
        offsets=offsets,
        valid=torch.ones(BATCH, count, dtype=torch.bool),
        fields={"action": torch.rand(BATCH, count, ACTIONS, generator=g) * 2 - 1},
        n_step_return=torch.full((BATCH, 1), reward),
        n_step_discount=torch.full((BATCH, 1), 0.9),
    )


def learner(
    encoder_gradient: str = "objective", policy: str = "sac", conv_target_tau: float | None = None, **settings: Any
) -> Learner:
    torch.manual_seed(0)
    encoder = ConvEncoder(InputContract(SIZE, SIZE, stack=1), channels=4)
    objective = ProtoObjective(
        encoder, ActionSpec(ACTIONS), ProtoConfig(proj_dim=6, pred_dim=8, num_protos=8, queue_size=16)
    )
    small = {"feature_dim": 6, "hidden_dim": 16}
    if policy == "sac":
        config = SACConfig(**small, conv_target_tau=conv_target_tau)
        actor_critic: Any = SAC(encoder.feature_dim, ACTIONS, config, 1e-2)
    else:
        actor_critic = DrQv2(encoder.feature_dim, ACTIONS, DrQv2Config(**small), 1e-2)
    trains = encoder_gradient in ("objective", "both")
    follows = encoder_gradient == "critic" and settings.get("intrinsic", "none") != "none"
    rate = LearningRate(1e-2)
    return Learner(
        encoder=encoder,
        policy=actor_critic,
        generator=torch.Generator().manual_seed(3),
        objective=objective,
        representation=make_representation(objective, rate, trains) if trains or follows else None,
        encoder_optimizer=adam(encoder.parameters(), 1e-2) if encoder_gradient in ("critic", "both") else None,
        encoder_gradient=encoder_gradient,  # type: ignore[arg-type]
        **settings,
    )


@pytest.fixture
def policy_batches(monkeypatch: pytest.MonkeyPatch) -> list[PolicyBatch]:
    """What the policy is given, update by update."""
    seen: list[PolicyBatch] = []
    step = SAC.update

    def recording(self: SAC, policy_batch: PolicyBatch, *args: Any, **kwargs: Any) -> Any:
        seen.append(policy_batch)
        return step(self, policy_batch, *args, **kwargs)

    monkeypatch.setattr(SAC, "update", recording)
    return seen


def snapshot(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def moved(module: nn.Module, before: list[Tensor]) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(module.parameters(), before, strict=True))


@pytest.mark.parametrize("policy", ["sac", "drqv2"])
@pytest.mark.parametrize(
    ("gradient", "even", "odd"),
    [("objective", True, False), ("critic", True, True), ("both", True, True), ("none", False, False)],
)
def test_who_trains_the_encoder(gradient: str, even: bool, odd: bool, policy: str) -> None:
    one = learner(gradient, policy)
    for tick, expected in ((0, even), (1, odd)):
        before = snapshot(one.encoder)
        metrics = update(one, batch(), tick, tick, train_representation=tick == 0)
        assert moved(one.encoder, before) == expected
        assert ("repr_loss" in metrics) == (gradient in ("objective", "both") and tick == 0)


def test_heads_follow_an_encoder_that_the_critic_trains() -> None:
    one = learner("critic", intrinsic="bonus")
    assert one.representation is not None and one.objective is not None
    owned = {id(p) for group in one.representation.optimizers["objective"].param_groups for p in group["params"]}
    assert not owned & {id(p) for p in one.encoder.parameters()}
    before = snapshot(one.objective)
    assert "repr_loss" in update(one, batch(), 0, 0) and moved(one.objective, before)


def test_features_come_from_the_encoder_after_its_step(policy_batches: list[PolicyBatch]) -> None:
    one = learner(intrinsic="only")
    given = batch()
    update(one, given, 0, 0)
    (seen,) = policy_batches
    with torch.no_grad():
        torch.testing.assert_close(seen.features, one.encoder(given.image(0)))
        torch.testing.assert_close(seen.next_features, one.encoder(given.image(1)))
    assert not seen.features.requires_grad
    assert torch.equal(seen.action, given.at("action", 1))


def test_the_target_encoder_follows_with_the_target_critic(policy_batches: list[PolicyBatch]) -> None:
    """It moves at every second update, from the encoder after its step, and its features are the target critic's."""
    one, given = learner("critic", conv_target_tau=0.25), batch()
    one.target_encoder = frozen_copy(one.encoder)
    with torch.no_grad():
        for parameter in one.target_encoder.parameters():
            parameter.mul_(0.5)
    for tick in range(4):
        before = snapshot(one.target_encoder)
        with torch.no_grad():
            features, target_features = one.encoder(given.image(1)), one.target_encoder(given.image(1))
        update(one, given, tick, tick)
        torch.testing.assert_close(policy_batches[tick].next_features, features)
        torch.testing.assert_close(policy_batches[tick].target_next_features, target_features)
        tau = 0.25 if tick % 2 == 0 else 0.0
        expected = [torch.lerp(old, new, tau) for old, new in zip(before, one.encoder.parameters(), strict=True)]
        torch.testing.assert_close(snapshot(one.target_encoder), expected)


def test_the_objective_may_see_images_of_its_own(policy_batches: list[PolicyBatch]) -> None:
    one, given = learner(shares_images=False), batch()
    one.augment, one.repr_augment = lambda images, _: images.clamp(max=9), lambda images, _: images.clamp(min=200)
    seen: list[Batch] = []
    assert one.objective is not None
    one.objective.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    update(one, given, 0, 0)
    with torch.no_grad():
        torch.testing.assert_close(policy_batches[0].features, one.encoder(given.image(0).clamp(max=9)))
    representation_update(one, given)
    assert [int(images.images[0].min()) for images in seen] == [200, 200]


@pytest.mark.parametrize("frozen", [True, False])
def test_each_image_is_encoded_once_for_reward_and_policy(frozen: bool) -> None:
    one = learner("none" if frozen else "objective", intrinsic="bonus")
    passes = []
    one.encoder.register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    update(one, batch(), 1, 1, train_representation=False)
    assert passes == [False, False]


def test_n_step_bootstraps_from_row_n() -> None:
    one, three = learner("none"), learner("none", n_step=3)
    long = batch((0, 1, 3))
    noise = PolicyNoise.draw(long.at("action", 1), torch.Generator().manual_seed(4))
    cut = Batch(
        [long.images[0][:, [0, 2]]],
        (0, 1),
        long.valid[:, :2],
        {"action": long.fields["action"][:, [0, 1]]},
        long.n_step_return,
        long.n_step_discount,
    )
    got, expected = update(three, long, 0, 0, noise=noise), update(one, cut, 0, 0, noise=noise)
    assert torch.equal(got["target_q"], expected["target_q"])


@pytest.mark.parametrize(("intrinsic", "scale"), [("none", (1.0, 0.0)), ("only", (0.0, 1.0)), ("bonus", (1.0, 0.2))])
def test_rewards(
    intrinsic: str,
    scale: tuple[float, float],
    policy_batches: list[PolicyBatch],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = learner("none", intrinsic=intrinsic, intr_coef=0.2)
    calls: list[str] = []
    seen = {}
    novelty, remember = ProtoObjective.novelty, ProtoObjective.remember

    def remembering(self: Any, embedding: Tensor, generator: Any = None) -> None:
        calls.append("remember")
        remember(self, embedding, generator)

    def measuring(self: Any, embedding: Tensor) -> Tensor:
        calls.append("novelty")
        seen["intrinsic"] = novelty(self, embedding)
        return seen["intrinsic"]

    monkeypatch.setattr(ProtoObjective, "remember", remembering)
    monkeypatch.setattr(ProtoObjective, "novelty", measuring)
    metrics = update(one, batch(reward=2.0), 0, 0)
    assert calls == ([] if intrinsic == "none" else ["remember", "novelty"])
    expected = torch.full((BATCH, 1), 2.0 * scale[0])
    if intrinsic != "none":
        expected = expected + scale[1] * seen["intrinsic"]
        assert metrics["intr_reward_mean"] == seen["intrinsic"].mean()
        assert metrics["intr_reward_zeros"] == (seen["intrinsic"] == 0).float().mean()
    torch.testing.assert_close(policy_batches[0].reward, expected)
    assert metrics["batch_reward"] == 2.0


def test_running_mean_brings_the_mean_to_one() -> None:
    norm = RunningMean()
    torch.testing.assert_close(norm.normalise(torch.tensor([2.0, 4.0])), torch.tensor([2.0 / 3, 4.0 / 3]))
    for _ in range(2000):
        last = norm.normalise(torch.tensor([0.1, 0.3]))
    torch.testing.assert_close(last.mean(), torch.tensor(1.0), rtol=1e-3, atol=0)
    assert torch.isfinite(RunningMean().normalise(torch.zeros(3))).all()
    other = RunningMean()
    other.load_state_dict(norm.state_dict())
    assert torch.equal(other.normalise(torch.ones(2)), norm.normalise(torch.ones(2)))


def test_augmentation_draws_for_every_image() -> None:
    one = batch()
    one.images = [one.images[0][:1].repeat(BATCH, 1, 1, 1, 1)[:, :1].repeat(1, 2, 1, 1, 1)]  # all images equal
    shifted = augmented(one, lambda images, g: random_shift(images, generator=g), torch.Generator().manual_seed(0))
    images = shifted.images[0].flatten(0, 1)
    assert images.dtype == torch.uint8 and shifted.images[0].shape == one.images[0].shape
    assert len(torch.unique(images, dim=0)) > BATCH
    same = augmented(one, lambda images, _: images, None)
    assert torch.equal(same.images[0], one.images[0])


def test_same_seed_same_update() -> None:
    first, second = learner(intrinsic="only"), learner(intrinsic="only")
    for one in (first, second):
        one.augment = lambda images, g: random_shift(images, generator=g)
        for tick in range(3):
            update(one, batch(), tick, tick, train_representation=tick % 2 == 0)
    assert not moved(first.policy, snapshot(second.policy))
    assert not moved(first.encoder, snapshot(second.encoder))


@pytest.mark.parametrize("policy", ["sac", "drqv2"])
@pytest.mark.parametrize("gradient", ["objective", "critic", "both"])
def test_bfloat16_losses_stay_close(gradient: str, policy: str) -> None:
    exact, fast = (learner(gradient, policy, intrinsic="only", precision=p) for p in ("fp32", "bf16"))
    expected, got = (update(one, batch(), 0, 0) for one in (exact, fast))
    for name in ("repr_loss", "critic_loss", "intr_reward_mean", "q1"):
        assert got[name].dtype == torch.float32
        torch.testing.assert_close(got[name], expected[name], rtol=0.05, atol=0.05, msg=name)


def test_first_nonfinite() -> None:
    assert first_nonfinite({}) is None
    assert first_nonfinite({"a": torch.tensor(1.0), "b": torch.tensor(2)}) is None
    assert (
        first_nonfinite({"a": torch.tensor(1.0), "b": torch.tensor(float("inf")), "c": torch.tensor(float("nan"))})
        == "b"
    )


def test_what_it_refuses() -> None:
    without = batch()
    without.n_step_return = None
    with pytest.raises(ValueError, match="n_step"):
        update(learner(), without, 0, 0)
    good = learner()
    parts = {"encoder": good.encoder, "policy": good.policy, "generator": None}
    with pytest.raises(ValueError, match="needs an objective and its optimiser"):
        Learner(**parts)
    with pytest.raises(ValueError, match="encoder optimiser"):
        Learner(**parts, encoder_gradient="critic")
    with pytest.raises(ValueError, match="belongs to another objective"):
        Learner(**parts, encoder_gradient="none", representation=good.representation)
    with pytest.raises(ValueError, match="no method pays none"):
        Learner(**parts, encoder_gradient="none", intrinsic="only")
