"""What every registered policy keeps to."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import visrep.policies  # noqa: F401  (fills the registry)
from visrep.policies.contract import POLICIES, Policy, PolicyBatch, PolicyNoise, build_policy

FEATURES, ACTIONS, BATCH = 12, 3, 8
SMALL = {"feature_dim": 6, "hidden_dim": 16}


def make(name: str, lr: float = 1e-2, **settings: object) -> Policy:
    torch.manual_seed(0)
    return build_policy(name, FEATURES, ACTIONS, POLICIES[name].Config(**SMALL, **settings), lr=lr)


def batch(features: Tensor | None = None) -> PolicyBatch:
    g = torch.Generator().manual_seed(1)
    normal = lambda *shape: torch.randn(*shape, generator=g)
    drawn = normal(BATCH, FEATURES)
    given = drawn if features is None else features
    return PolicyBatch(
        given,
        torch.tanh(normal(BATCH, ACTIONS)),
        normal(BATCH, 1),
        torch.full((BATCH, 1), 0.9),
        normal(BATCH, FEATURES),
    )


def noise() -> PolicyNoise:
    return PolicyNoise.draw(torch.zeros(BATCH, ACTIONS), torch.Generator().manual_seed(2))


def weights(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def moved(module: nn.Module, before: list[Tensor]) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(module.parameters(), before, strict=True))


@pytest.fixture(params=sorted(POLICIES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_registry_holds_both() -> None:
    assert {"sac", "drqv2"} <= POLICIES.keys()


def test_settings_are_described(name: str) -> None:
    assert all(field.description for field in POLICIES[name].Config.model_fields.values())


def test_actions(name: str) -> None:
    policy, features = make(name), torch.randn(BATCH, FEATURES)
    draw = lambda seed: policy.act(features, 0, sample=True, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))
    mean = policy.act(features, 0, sample=False)
    assert torch.equal(mean, policy.act(features, 10**9, sample=False))
    for action in (draw(3), mean):
        assert action.shape == (BATCH, ACTIONS) and action.abs().max() <= 1 and not action.requires_grad


def test_update_is_a_pure_function_of_its_noise(name: str) -> None:
    first, second = make(name), make(name)
    metrics = [policy.update(batch(), 0, 0, noise()) for policy in (first, second)]
    assert metrics[0].keys() == metrics[1].keys()
    assert {"critic_loss", "actor_loss", "q1", "q2", "target_q", "entropy"} <= metrics[0].keys()
    assert all(torch.equal(metrics[0][key], metrics[1][key]) for key in metrics[0])
    assert all(value.ndim == 0 and not value.requires_grad for value in metrics[0].values())
    assert not moved(first, weights(second))


def test_frequencies_look_at_the_tick(name: str) -> None:
    policy = make(name, actor_update_frequency=2, critic_target_update_frequency=3)
    for tick in range(6):
        before = {part: weights(getattr(policy, part)) for part in ("actor", "critic", "critic_target")}
        metrics = policy.update(batch(), tick, 0, noise())
        assert moved(policy.critic, before["critic"])
        assert moved(policy.actor, before["actor"]) == (tick % 2 == 0) == ("actor_loss" in metrics)
        assert moved(policy.critic_target, before["critic_target"]) == (tick % 3 == 0) == policy.moves_targets(tick)


def test_the_critic_trains_the_features_and_the_actor_does_not(name: str) -> None:
    policy = make(name)
    layer = nn.Linear(FEATURES, FEATURES)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    inputs, given = torch.randn(BATCH, FEATURES), batch()
    before = weights(layer)
    critic_gradient = torch.autograd.grad(
        sum(((q - _target(name, policy, given)) ** 2).mean() for q in policy.critic(layer(inputs), given.action)),
        list(layer.parameters()),
    )
    policy.update(batch(layer(inputs)), 0, 0, noise(), encoder_optimizer=optimizer)
    for parameter, old, gradient in zip(layer.parameters(), before, critic_gradient, strict=True):
        torch.testing.assert_close(parameter.detach(), old - gradient, rtol=1e-4, atol=1e-6)


def _target(name: str, policy: Policy, given: PolicyBatch) -> Tensor:
    """The regression target, written out once more."""
    with torch.no_grad():
        if name == "sac":
            action, log_prob = policy.distribution(given.next_features).sample(noise().critic)
            value = torch.min(*policy.critic_target(given.next_features, action)) - policy.log_alpha.exp() * log_prob
        else:
            action = policy.distribution(given.next_features, 0).sample(noise().critic, policy.config.stddev_clip)
            value = torch.min(*policy.critic_target(given.next_features, action))
        return given.reward + given.discount * value


def test_rows_of_weight_zero_leave_no_trace(name: str) -> None:
    given, weight = batch(), torch.ones(BATCH, 1)
    weight[3] = 0.0
    spoilt = replace(given, features=given.features * weight, reward=given.reward + 100.0 * (1.0 - weight))
    kept, other, short = make(name), make(name), make(name)
    metrics = [one.update(replace(b, weight=weight), 0, 0, noise()) for one, b in ((kept, given), (other, spoilt))]
    rows = weight[:, 0] > 0
    cut = PolicyBatch(*(getattr(given, f)[rows] for f in ("features", "action", "reward", "discount", "next_features")))
    metrics.append(short.update(cut, 0, 0, PolicyNoise(noise().critic[rows], noise().actor[rows])))
    for key in ("critic_loss", "actor_loss"):
        torch.testing.assert_close(metrics[0][key], metrics[1][key], msg=key)
        torch.testing.assert_close(metrics[0][key], metrics[2][key], msg=key)
    assert metrics[0]["target_q"] != metrics[1]["target_q"], "the spoilt row was not spoilt"


def test_target_features_are_for_the_target_critic(name: str) -> None:
    """The next action comes from one encoder's features, its value from the other's."""
    policy, given = make(name), batch()
    seen = replace(given, target_next_features=torch.randn(BATCH, FEATURES))
    inputs: list[Tensor] = []
    policy.critic_target.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    policy.actor.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    policy.update(seen, 1, 0, noise())
    assert inputs[0] is seen.next_features and inputs[1] is seen.target_next_features


def test_exploration_has_the_given_spread(name: str) -> None:
    policy = make(name)
    features = torch.randn(1, FEATURES).expand(2048, -1)
    draw = lambda std, seed: policy.explore(features, std, torch.Generator().manual_seed(seed))
    assert torch.equal(draw(0.75, 0), draw(0.75, 0)) and not torch.equal(draw(0.75, 0), draw(0.75, 1))
    assert draw(0.75, 0).abs().max() <= 1 and not draw(0.75, 0).requires_grad
    torch.testing.assert_close(draw(0.0, 0), policy.act(features, 0, sample=False))
    spreads = [draw(std, 0).std(dim=0).mean().item() for std in (0.1, 0.3, 0.75)]
    assert 0.05 < spreads[0] < 0.12 and spreads == sorted(spreads)


@pytest.mark.parametrize("keep", [set(), {"actor"}, {"critic"}, {"actor", "critic"}])
def test_fresh_keeps_what_it_is_told(name: str, keep: set[str]) -> None:
    policy = make(name)
    optimizers = policy.optimizers()
    policy.update(batch(), 0, 0, noise())
    before = {part: weights(getattr(policy, part)) for part in ("actor", "critic", "critic_target")}
    policy.fresh(frozenset(keep))
    assert moved(policy.actor, before["actor"]) == ("actor" not in keep)
    assert moved(policy.critic, before["critic"]) == ("critic" not in keep)
    assert moved(policy.critic_target, before["critic_target"]) == ("critic" not in keep)
    if "critic" not in keep:
        assert not moved(policy.critic, weights(policy.critic_target))
    for key, optimizer in policy.optimizers().items():
        assert optimizer is optimizers[key] and not optimizer.state
    again = make(name)
    policy.load_state_dict(again.state_dict())
    policy.update(batch(), 0, 0, noise())
    again.update(batch(), 0, 0, noise())
    assert not moved(policy, weights(again)), "left-over optimiser state changed the next update"


def test_fresh_refuses_unknown_parts(name: str) -> None:
    with pytest.raises(ValueError, match="cannot keep brain"):
        make(name).fresh(frozenset({"brain"}))


def test_state_survives_saving(name: str) -> None:
    policy, other = make(name), make(name)
    policy.update(batch(), 0, 0, noise())
    other.load_state_dict(policy.state_dict())
    for key, optimizer in other.optimizers().items():
        optimizer.load_state_dict(copy.deepcopy(policy.optimizers()[key].state_dict()))
    for each in (policy, other):
        each.update(batch(), 1, 1, noise())
    assert not moved(policy, weights(other))


def test_bfloat16_autocast_stays_close(name: str) -> None:
    exact, fast = make(name), make(name)
    expected = exact.update(batch(), 0, 0, noise())
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        got = fast.update(batch(), 0, 0, noise())
    for key, value in got.items():
        assert value.dtype == torch.float32, key
        torch.testing.assert_close(value, expected[key], rtol=0.05, atol=0.05, msg=key)


def test_learns_a_bandit(name: str) -> None:
    """With discount 0 and reward 5 (a0 - a1) the evaluation action goes to (1, -1) from wherever it starts."""
    policy = make(name)
    g = torch.Generator().manual_seed(5)
    features = torch.randn(64, FEATURES, generator=g)
    for tick in range(200):
        action = torch.rand(64, ACTIONS, generator=g) * 2 - 1
        reward = 5.0 * (action[:, :1] - action[:, 1:2])
        given = PolicyBatch(features, action, reward, torch.zeros(64, 1), features)
        policy.update(given, tick, tick, PolicyNoise.draw(action, g))
    first, second, _ = policy.act(features, 0, sample=False).mean(dim=0)
    assert first > 0.7 and second < -0.7
