"""What every registered objective must do; a new file in visrep/objectives is covered without an edit here."""

from typing import Any

import pytest
import torch
from torch import Tensor

from visrep.data.actions import ActionSpec
from visrep.data.batch import Batch, BatchSpec
from visrep.encoders import InputContract, build_encoder
from visrep.objectives import OBJECTIVES, Novelty, Objective, Transition

BATCH, ACTION_DIM = 16, 3
NAMES = sorted(OBJECTIVES.classes)
NOVEL = [name for name in NAMES if issubclass(OBJECTIVES.classes[name], Novelty)]
# Smaller networks where a method has these keys; everything else stays at its default.
SMALL = {
    "icm_hidden_dim": 16,
    "icm_rep_dim": 8,
    "disagreement_hidden_dim": 16,
    "rnd_hidden_dim": 16,
    "rnd_rep_dim": 8,
    "proj_dim": 8,
    "pred_dim": 16,
    "num_protos": 8,
    "queue_size": 32,
}


def make(name: str, seed: int = 0, size: int = 24, stack: int = 3) -> Any:
    torch.manual_seed(seed)
    encoder = build_encoder("proto", InputContract(size, size, stack=stack), channels=4)
    cls = OBJECTIVES.classes[name]
    config = cls.Config(**{key: value for key, value in SMALL.items() if key in cls.Config.model_fields})
    return OBJECTIVES.build(name, encoder, ActionSpec(ACTION_DIM), config)


def fake_batch(spec: BatchSpec, shape: tuple[int, int, int], seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    times = len(spec.offsets)
    given = {
        "action": torch.rand(BATCH, times, ACTION_DIM, generator=generator) * 2 - 1,
        "reward": torch.rand(BATCH, times, 1, generator=generator),
        "terminal": torch.zeros(BATCH, times, 1),
    }
    unknown = spec.fields - given.keys() - {"image"}
    assert not unknown, f"this test cannot make the fields {sorted(unknown)}: teach fake_batch"
    return Batch(
        images=[
            torch.randint(0, 256, (BATCH, times, *shape), dtype=torch.uint8, generator=generator)
            for _ in range(spec.views)
        ],
        offsets=spec.offsets,
        valid=torch.ones(BATCH, times, dtype=torch.bool),
        fields={name: value for name, value in given.items() if name in spec.fields},
    )


def batch_for(objective: Objective, seed: int = 0) -> Batch:
    return fake_batch(objective.needs(), objective.encoder.contract.shape, seed)


def transition_for(objective: Objective, seed: int = 5) -> Transition:
    pair = fake_batch(BatchSpec((0, 1), frozenset({"image", "action"})), objective.encoder.contract.shape, seed)
    with torch.no_grad():
        return Transition(objective.encoder(pair.image(0)), pair.at("action", 1), objective.encoder(pair.image(1)))


def snapshot(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), f"{name} changed"


def train(objective: Objective, updates: int) -> list[float]:
    parameters = [p for p in [*objective.encoder.parameters(), *objective.parameters()] if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    losses = []
    for _ in range(updates):
        loss = objective(batch_for(objective)).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.after_update()
        losses.append(float(loss.detach()))
    return losses


def test_the_shipped_methods_are_registered() -> None:
    assert {"apt", "disagreement", "icm", "proto", "rnd"} <= set(NAMES)
    assert {"apt", "disagreement", "icm", "proto", "rnd"} <= set(NOVEL)


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_described_and_frozen(name: str) -> None:
    config = OBJECTIVES.classes[name].Config
    for key, field in config.model_fields.items():
        assert field.description, f"{name}: the key {key} has no description for --help"
        assert not field.is_required(), f"{name}: the key {key} has no default"
    assert config.model_config["frozen"] and config.model_config["extra"] == "forbid"


@pytest.mark.parametrize("stack", [1, 3])
@pytest.mark.parametrize("size", [24, 84])
@pytest.mark.parametrize("name", NAMES)
def test_loss_reaches_encoder_and_heads(name: str, size: int, stack: int) -> None:
    objective = make(name, size=size, stack=stack)
    spec = objective.needs()
    assert "image" in spec.fields
    loss = objective(batch_for(objective))
    assert loss.total.shape == () and loss.total.isfinite()
    for key, part in loss.parts.items():
        assert part.shape == () and not part.requires_grad and part.isfinite(), key
    assert not any(output.requires_grad for output in loss.outputs.values())
    loss.total.backward()
    for key, parameter in objective.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
        assert parameter.grad is None or parameter.grad.isfinite().all(), key
    moved = [p.grad is not None and bool(p.grad.any()) for p in objective.encoder.parameters()]
    assert all(moved) if objective.trains_encoder else not any(moved)


@pytest.mark.parametrize("name", NAMES)
def test_encoder_is_shared_not_owned(name: str) -> None:
    objective = make(name)
    owned = {id(p) for p in objective.parameters()} | {id(m) for m in objective.modules()}
    assert not owned & ({id(p) for p in objective.encoder.parameters()} | {id(objective.encoder)})


@pytest.mark.parametrize("name", NAMES)
def test_after_update_moves_only_targets(name: str) -> None:
    objective = make(name)
    train(objective, 1)
    trained = {key for key, p in objective.named_parameters() if p.requires_grad}
    encoder, before = snapshot(objective.encoder), snapshot(objective)
    objective.after_update()
    assert_same(encoder, snapshot(objective.encoder))
    after = snapshot(objective)
    assert_same({k: v for k, v in before.items() if k in trained}, {k: v for k, v in after.items() if k in trained})


@pytest.mark.parametrize("name", NAMES)
def test_learns_a_batch_by_heart(name: str) -> None:
    losses = train(make(name), 30)
    assert losses[-1] < 0.9 * losses[0], losses


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_autocast(name: str) -> None:
    objective = make(name)
    with torch.autocast("cpu", torch.bfloat16):
        loss = objective(batch_for(objective))
    assert loss.total.dtype == torch.float32
    torch.testing.assert_close(loss.total, objective(batch_for(objective)).total, rtol=0.05, atol=0.02)
    loss.total.backward()


@pytest.mark.parametrize("name", NAMES)
def test_diagnostics_are_scalars(name: str) -> None:
    objective = make(name)
    train(objective, 1)
    for key, value in objective.diagnostics().items():
        assert value.shape == () and value.isfinite() and not value.requires_grad, key


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_round_trip(name: str) -> None:
    objective, other = make(name, seed=0), make(name, seed=1)
    train(objective, 3)
    if isinstance(objective, Novelty):
        objective.remember(objective.embed(transition_for(objective)), torch.Generator().manual_seed(0))
    other.encoder.load_state_dict(objective.encoder.state_dict())
    other.load_state_dict(objective.state_dict())
    assert_same(snapshot(objective), snapshot(other))
    assert torch.equal(objective(batch_for(objective)).total, other(batch_for(other)).total)
    if isinstance(objective, Novelty):
        transition = transition_for(objective)
        rewards = [each.novelty(each.embed(transition)) for each in (objective, other)]
        assert torch.equal(*rewards)


@pytest.mark.parametrize("name", NOVEL)
def test_novelty_is_pure_and_remember_explicit(name: str) -> None:
    objective = make(name)
    train(objective, 2)
    transition = transition_for(objective)
    before = snapshot(objective)
    embedding = objective.embed(transition)
    assert embedding.ndim == 2 and len(embedding) == BATCH and not embedding.requires_grad
    assert torch.equal(embedding, objective.embed(transition))
    reward = objective.novelty(embedding)
    assert torch.equal(reward, objective.novelty(embedding))
    assert_same(before, snapshot(objective))
    objective.remember(embedding, torch.Generator().manual_seed(0))
    reward = objective.novelty(embedding)
    assert reward.shape == (BATCH, 1) and reward.dtype == torch.float32
    assert reward.isfinite().all() and (reward >= 0).all() and not reward.requires_grad


@pytest.mark.parametrize("name", NOVEL)
def test_remember_is_decided_by_its_generator(name: str) -> None:
    results = []
    for _ in range(2):
        objective = make(name)
        generator = torch.Generator().manual_seed(11)
        for seed in range(3):
            objective.remember(objective.embed(transition_for(objective, seed)), generator)
        results.append(snapshot(objective))
    assert_same(*results)


@pytest.mark.parametrize("name", NOVEL)
def test_novelty_under_autocast(name: str) -> None:
    objective = make(name)
    with torch.autocast("cpu", torch.bfloat16):
        transition = transition_for(objective)
        assert transition.features.dtype == torch.bfloat16
        embedding = objective.embed(transition)
        objective.remember(embedding, torch.Generator().manual_seed(0))
        reward = objective.novelty(embedding)
    assert reward.dtype == torch.float32 and reward.isfinite().all()


def test_unknown_method_lists_the_known() -> None:
    objective = make("proto")
    with pytest.raises(ValueError, match="apt, disagreement, icm, proto, rnd"):
        OBJECTIVES.build("protto", objective.encoder, ActionSpec(ACTION_DIM), objective.config)
