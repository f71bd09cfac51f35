"""What SAC's settings for rlpyt's, CURL's, SAC-AE's and DrQ's agents change, against references written as loops."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from visrep.policies.contract import PolicyBatch, PolicyNoise
from visrep.policies.sac import SAC, SACConfig

FEATURES, ACTIONS, BATCH = 10, 2, 6
CRITIC_PARTS = ("trunk", "q1", "q2")


def make(lr: float = 1e-2, **settings: object) -> SAC:
    torch.manual_seed(0)
    policy = SAC(FEATURES, ACTIONS, SACConfig(feature_dim=5, hidden_dim=16, **settings), lr).double()
    with torch.no_grad():  # a target that differs from the critic
        for parameter in policy.critic_target.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return policy


def batch(views: int = 1, **fields: Tensor | None) -> PolicyBatch:
    g = torch.Generator().manual_seed(1)
    normal = lambda rows, width: torch.randn(rows, width, generator=g, dtype=torch.float64)
    discount = torch.full((BATCH, 1), 0.9, dtype=torch.float64)
    discount[2] = 0.0
    action = torch.tanh(normal(BATCH, ACTIONS))
    given = PolicyBatch(
        normal(views * BATCH, FEATURES), action, normal(BATCH, 1), discount, normal(views * BATCH, FEATURES)
    )
    return replace(given, **fields)


def noise(views: int = 1) -> PolicyNoise:
    return PolicyNoise.draw(torch.zeros(BATCH, ACTIONS, dtype=torch.float64), torch.Generator().manual_seed(2), views)


def parts(policy: SAC, module: nn.Module) -> dict[str, list[Tensor]]:
    return {name: [p.detach().clone() for p in module.get_submodule(name).parameters()] for name in CRITIC_PARTS}


def weights(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@torch.no_grad()
def losses_by_loop(policy: SAC, given: PolicyBatch, draws: PolicyNoise) -> dict[str, float]:
    """Critic, actor and temperature losses, row by row and view by view; the actor's on the critic as it is."""
    c, alpha = policy.config, policy.log_alpha.exp().item()
    views = len(given.features) // BATCH
    seen = given.next_features if given.target_next_features is None else given.target_next_features
    acting = seen if c.target_action_features == "target" else given.next_features
    critic, actor, temperature, kept = 0.0, 0.0, 0.0, 0
    for b in range(BATCH):
        if given.weight is not None and given.weight[b].item() == 0:
            continue
        kept += 1
        y = 0.0
        for k in range(views):
            row = slice(k * BATCH + b, k * BATCH + b + 1)
            action, log_prob = policy.distribution(acting[row]).sample(draws.critic[row], c.log_density)
            q1, q2 = policy.critic_target(seen[row], action)
            soft = min(q1.item(), q2.item()) - alpha * log_prob.item()
            y += (given.reward[b].item() + given.discount[b].item() * soft) / views
        for m in range(views):
            row = slice(m * BATCH + b, m * BATCH + b + 1)
            critic += sum((q.item() - y) ** 2 for q in policy.critic(given.features[row], given.action[b : b + 1]))
        row = slice(b, b + 1)
        action, log_prob = policy.distribution(given.features[row]).sample(draws.actor[row], c.log_density)
        actor += alpha * log_prob.item() - min(q.item() for q in policy.critic(given.features[row], action))
        multiplier = alpha if c.alpha_loss == "alpha" else math.log(alpha)
        temperature -= multiplier * (log_prob.item() - ACTIONS)
    count = max(kept, 1)
    return {
        "critic_loss": c.critic_loss_scale * critic / count,
        "actor_loss": actor / count,
        "alpha_loss": temperature / count,
    }


FAMILY: dict[str, dict[str, object]] = {
    "proto": {},
    "rlpyt": {
        "critic_loss_scale": 0.5,
        "alpha_loss": "log_alpha",
        "log_density": "rlpyt",
        "target_action_features": "target",
        "trunk_init": "torch",
    },
    "curl": {"log_density": "sac_ae"},
    "sac_ae": {"log_density": "sac_ae", "trunk_tanh": True},
    "drq": {"augmentations": 2, "trunk_tanh": True},
    "three views": {"augmentations": 3, "critic_loss_scale": 0.5},
}


@pytest.mark.parametrize("masked", [None, "some", "all but one", "all"])
@pytest.mark.parametrize("target_encoder", [False, True])
@pytest.mark.parametrize("member", FAMILY)
def test_losses_equal_the_loop(member: str, target_encoder: bool, masked: str | None) -> None:
    policy = make(lr=0.0, **FAMILY[member])
    views = policy.views
    weight = None
    if masked:
        weight = torch.zeros(BATCH, 1, dtype=torch.float64)
        weight[: {"some": 4, "all but one": 1, "all": 0}[masked]] = 1.0
    extra = torch.randn(views * BATCH, FEATURES, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    given = batch(views, weight=weight, target_next_features=extra if target_encoder else None)
    expected = losses_by_loop(policy, given, noise(views))
    got = policy.update(given, 0, 0, noise(views))
    for name, value in expected.items():
        torch.testing.assert_close(got[name].item(), value, rtol=1e-10, atol=1e-12, msg=name)
        assert masked != "all" or got[name] == 0


@pytest.mark.parametrize("member", FAMILY)
def test_masked_rows_leave_no_trace(member: str) -> None:
    first, second = make(**FAMILY[member]), make(**FAMILY[member])
    views = first.views
    weight = torch.ones(BATCH, 1, dtype=torch.float64)
    weight[1] = weight[4] = 0.0
    given = batch(views, weight=weight)
    spoilt = replace(given, reward=torch.where(weight > 0, given.reward, 1e3))
    rows = weight.repeat(views, 1) > 0
    spoilt = replace(spoilt, features=torch.where(rows, given.features, 3.0))
    metrics = [policy.update(one, 0, 0, noise(views)) for policy, one in ((first, given), (second, spoilt))]
    for name in ("critic_loss", "actor_loss", "alpha_loss"):
        assert torch.equal(metrics[0][name], metrics[1][name]), name
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_an_all_masked_batch_moves_nothing() -> None:
    policy = make()
    before = {part: weights(getattr(policy, part)) for part in ("actor", "critic")}
    policy.update(batch(weight=torch.zeros(BATCH, 1, dtype=torch.float64)), 0, 0, noise())
    assert all(same(weights(getattr(policy, part)), old) for part, old in before.items())
    assert math.isclose(policy.log_alpha.item(), math.log(0.1), rel_tol=1e-6)


@pytest.mark.parametrize("views", [1, 2])
def test_only_the_critic_reaches_the_features(views: int) -> None:
    with_actor, without = make(augmentations=views), make(augmentations=views, actor_update_frequency=2)
    gradients = []
    for policy, tick in ((with_actor, 0), (without, 1)):
        features = batch(views).features.requires_grad_()
        policy.update(replace(batch(views), features=features), tick, 0, noise(views))
        gradients.append(features.grad)
    assert gradients[0] is not None and gradients[0].abs().min() > 0
    assert torch.equal(gradients[0], gradients[1])


def test_actor_and_critic_have_a_trunk_each() -> None:
    policy = make()
    shared = {id(p) for p in policy.actor.parameters()} & {id(p) for p in policy.critic.parameters()}
    assert not shared
    before = weights(policy.critic)
    policy._update_actor(batch(), noise().actor)
    assert same(weights(policy.critic), before), "the actor's step moved the critic"


def test_trunk_keeps_its_identity() -> None:
    policy = make(trunk_init="torch")
    trunk, target = policy.critic.trunk, policy.critic_target.trunk
    held = list(trunk.parameters())
    before = weights(trunk)
    policy.fresh(frozenset())
    assert policy.critic.trunk is trunk and policy.critic_target.trunk is target
    assert all(a is b for a, b in zip(held, policy.critic.trunk.parameters(), strict=True))
    assert not same(weights(trunk), before)


def test_each_part_moves_at_its_own_rate() -> None:
    policy = make(critic_target_tau=0.01, trunk_target_tau=0.05, critic_target_update_frequency=3)
    for tick in range(4):
        before = parts(policy, policy.critic_target)
        policy.update(batch(), tick, 0, noise())
        assert policy.moves_targets(tick) == (tick in (0, 3))
        for name in CRITIC_PARTS:
            tau = (0.05 if name == "trunk" else 0.01) if policy.moves_targets(tick) else 0.0
            online = policy.critic.get_submodule(name).parameters()
            target = policy.critic_target.get_submodule(name).parameters()
            for new, old, now in zip(target, before[name], online, strict=True):
                torch.testing.assert_close(new.detach(), tau * now.detach() + (1 - tau) * old, rtol=1e-12, atol=1e-15)


def test_one_rate_serves_all_parts_by_default() -> None:
    first, second = make(critic_target_tau=0.2), make(critic_target_tau=0.2, trunk_target_tau=0.2)
    for policy in (first, second):
        policy.update(batch(), 0, 0, noise())
    assert same(weights(first.critic_target), weights(second.critic_target))


def test_what_the_run_asks_a_policy() -> None:
    plain, rad = make(), make(conv_target_tau=0.05, target_action_features="target")
    assert (plain.target_encoder_tau, plain.online_next, plain.views) == (None, True, 1)
    assert (rad.target_encoder_tau, rad.online_next) == (0.05, False)
    assert make(augmentations=2).views == 2


def test_features_of_the_next_action() -> None:
    target_next = torch.randn(BATCH, FEATURES, dtype=torch.float64)
    unread = torch.full_like(target_next, math.nan)
    given = batch(target_next_features=target_next)
    rad = make(target_action_features="target")
    got = rad.update(replace(given, next_features=unread), 0, 0, noise())["target_q"]
    assert torch.equal(got, make().update(batch(next_features=target_next), 0, 0, noise())["target_q"])
    assert not torch.equal(got, make().update(given, 0, 0, noise())["target_q"])


def test_equal_views_double_the_critic_loss() -> None:
    one, two = make(lr=0.0), make(lr=0.0, augmentations=2)
    single, draws = batch(), noise()
    twice = lambda values: values.repeat(2, 1)
    double = replace(single, features=twice(single.features), next_features=twice(single.next_features))
    first = one.update(single, 0, 0, draws)
    second = two.update(double, 0, 0, PolicyNoise(twice(draws.critic), draws.actor))
    torch.testing.assert_close(second["critic_loss"], 2 * first["critic_loss"])
    for name in ("target_q", "q1", "q2", "actor_loss", "alpha_loss"):
        torch.testing.assert_close(second[name], first[name], msg=name)


def test_noise_is_drawn_for_every_view() -> None:
    draws = noise(3)
    assert draws.critic.shape == (3 * BATCH, ACTIONS) and draws.actor.shape == (BATCH, ACTIONS)


def test_a_batch_of_other_views_is_refused() -> None:
    with pytest.raises(ValueError, match=r"2 views .* augmentations=1"):
        make().update(batch(2), 0, 0, noise(2))


def test_temperature_has_its_own_adam() -> None:
    plain, own = make(lr=3e-3), make(lr=3e-3, alpha_lr=1e-4, alpha_beta1=0.5)
    settings = [(p.alpha_optimizer.defaults["lr"], p.alpha_optimizer.defaults["betas"]) for p in (plain, own)]
    assert settings == [(3e-3, (0.9, 0.999)), (1e-4, (0.5, 0.999))]
    assert {own.actor_optimizer.defaults["lr"], own.critic_optimizer.defaults["lr"]} == {3e-3}


@pytest.mark.parametrize("how", ["orthogonal", "torch"])
def test_trunk_init(how: str) -> None:
    policy = make(trunk_init=how)
    for network in (policy.actor, policy.critic):
        linear = network.trunk.linear
        gram = linear.weight @ linear.weight.T
        assert torch.allclose(gram, torch.eye(len(gram)).double(), atol=1e-5) == (how == "orthogonal")
        assert bool((linear.bias == 0).all()) == (how == "orthogonal")
    for mlp in (policy.actor.mlp, policy.critic.q1, policy.critic.q2):
        gram = mlp.fc2.weight @ mlp.fc2.weight.T
        torch.testing.assert_close(gram, torch.eye(16).double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("tanh", [False, True])
def test_trunk_tanh(tanh: bool) -> None:
    policy = make(trunk_tanh=tanh)
    for network in (policy.actor, policy.critic):
        assert isinstance(network.trunk[-1], nn.Tanh) == tanh


def test_exploration_around_the_mean() -> None:
    policy = make()
    features = batch().features[:1].expand(4096, -1)
    draw = lambda seed: policy.explore(features, 0.75, torch.Generator().manual_seed(seed))
    action = draw(0)
    assert torch.equal(action, draw(0)) and not torch.equal(action, draw(1)) and not action.requires_grad
    pre_tanh = torch.atanh(action)
    mean = policy.distribution(features[:1]).mean.detach()
    torch.testing.assert_close(pre_tanh.mean(dim=0, keepdim=True), mean, rtol=0, atol=0.05)
    torch.testing.assert_close(pre_tanh.std(dim=0), torch.full((ACTIONS,), 0.75).double(), rtol=0.05, atol=0)
    assert torch.equal(policy.explore(features, 0.0), policy.distribution(features).mode)
