"""What every registered objective must do; a new file in visrep/objectives is covered without an edit here."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from visrep.data.actions import ActionSpec
from visrep.data.batch import Batch, BatchSpec
from visrep.encoders import InputContract, build_encoder
from visrep.errors import UserError
from visrep.objectives import OBJECTIVES, Novelty, Objective, Transition, build_objective
from visrep.objectives.contract import UsesProjection
from visrep.objectives.fitting import needs_of

BATCH = 16
CONTINUOUS, DISCRETE = ActionSpec(3), ActionSpec(1, classes=4)
NAMES = sorted(OBJECTIVES)
NOVEL = [name for name in NAMES if issubclass(OBJECTIVES[name], Novelty)]
PROJECTED = [name for name in NAMES if issubclass(OBJECTIVES[name], UsesProjection)]
MASKED = [name for name in NAMES if needs_of(name).crossing == "mask"]
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
    "atc_code_dim": 8,
    "atc_hidden_dim": 16,
    "curl_feature_dim": 8,
    "vae_dim": 8,
    "vae_hidden_dim": 16,
    "sac_ae_dim": 8,
    "decoder_channels": 8,
    "inverse_hidden_dim": 16,
}
# What `fake_batch` can fill in besides images and actions.
FIELDS = {"image", "action", "reward", "terminal"}


def make(name: str, seed: int = 0, size: int = 24, stack: int = 3, actions: ActionSpec = CONTINUOUS) -> Any:
    torch.manual_seed(seed)
    encoder = build_encoder("proto", InputContract(size, size, stack=stack), channels=4)
    cls = OBJECTIVES[name]
    config = cls.Config(**{key: value for key, value in SMALL.items() if key in cls.Config.model_fields})
    return build_objective(name, encoder, actions, config)


def fake_actions(actions: ActionSpec, times: int, generator: torch.Generator) -> Tensor:
    if actions.discrete:
        return torch.randint(0, actions.classes, (BATCH, times, 1), generator=generator)
    return torch.rand(BATCH, times, actions.dim, generator=generator) * 2 - 1


def fake_images(times: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Dark pictures of 4x4 patches, some of them bright: what they have in common is soon learned, what differs too."""
    channels, height, width = shape
    bright = torch.rand(BATCH, times, channels, 4, 4, generator=generator) > 0.85
    patches = bright.repeat_interleave(height // 4, dim=-2).repeat_interleave(width // 4, dim=-1)
    noise = torch.randint(0, 32, patches.shape, dtype=torch.uint8, generator=generator)
    return patches.to(torch.uint8) * 200 + noise


def fake_batch(spec: BatchSpec, shape: tuple[int, int, int], seed: int = 0, actions: ActionSpec = CONTINUOUS) -> Batch:
    """Random rows as a sampler would cut them, every view of an image another one; the first rows lose their ends."""
    generator = torch.Generator().manual_seed(seed)
    unknown = spec.fields - FIELDS
    assert not unknown, f"this test cannot make the fields {sorted(unknown)}: teach fake_batch"
    times = len(spec.offsets)
    valid = torch.ones(BATCH, times, dtype=torch.bool)
    if spec.crossing == "mask":
        # Row r < T ends after r + 1 of its window's observations; the others are whole.
        ends = torch.arange(1, times)[:BATCH]
        valid[: len(ends)] = torch.arange(times) < ends[:, None]
    given = {
        "action": fake_actions(actions, times, generator),
        "reward": torch.rand(BATCH, times, 1, generator=generator),
        "terminal": torch.zeros(BATCH, times, 1),
    }
    images_at = spec.images_at
    return Batch(
        images=[fake_images(len(images_at), shape, generator) for _ in range(spec.views)],
        offsets=spec.offsets,
        valid=valid,
        fields={name: value for name, value in given.items() if name in spec.fields},
        image_offsets=images_at,
    )


def batch_for(objective: Objective, seed: int = 0) -> Batch:
    return fake_batch(objective.needs(), objective.encoder.contract.shape, seed, objective.actions)


def transition_for(objective: Objective, seed: int = 5) -> Transition:
    spec = BatchSpec((0, 1), frozenset({"image", "action"}))
    pair = fake_batch(spec, objective.encoder.contract.shape, seed, objective.actions)
    action = objective.actions.encode(pair.at("action", 1))
    with torch.no_grad():
        return Transition(objective.encoder(pair.image(0)), action, objective.encoder(pair.image(1)))


def loss_on(objective: Objective, batch: Batch) -> Tensor:
    """Under one draw of whatever noise a method takes from torch's global generator."""
    torch.manual_seed(7)
    total: Tensor = objective(batch).total
    return total


def loss_of(objective: Objective) -> Tensor:
    return loss_on(objective, batch_for(objective))


def snapshot(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), f"{name} changed"


def train(objective: Objective, updates: int, lr: float = 1e-3) -> list[float]:
    groups = objective.parameter_groups(train_encoder=True)
    optimizers = [torch.optim.Adam(group.parameters, lr=lr, weight_decay=group.weight_decay) for group in groups]
    losses = []
    for _ in range(updates):
        loss = objective(batch_for(objective)).total
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        objective.after_update()
        losses.append(float(loss.detach()))
    return losses


def test_the_shipped_methods_are_registered() -> None:
    assert {"ac", "atc", "ats", "curl", "inverse", "sac_ae", "vae", "vae_t"} <= set(NAMES)
    assert {"apt", "disagreement", "icm", "proto", "rnd"} <= set(NOVEL)
    assert {"curl", "sac_ae"} <= set(PROJECTED)
    assert {"ac", "atc", "ats", "inverse", "vae_t"} <= set(MASKED)


@pytest.mark.parametrize("name", NAMES)
def test_class_attributes(name: str) -> None:
    cls = OBJECTIVES[name]
    assert cls.turn in ("before policy", "after policy")
    assert isinstance(cls.augmented, bool) and isinstance(cls.trains_encoder, bool)


def test_whose_step_follows_the_policys() -> None:
    """As in the released codes."""
    assert OBJECTIVES["proto"].turn == "before policy"
    assert {OBJECTIVES[name].turn for name in ("ac", "atc", "ats", "curl", "sac_ae")} == {"after policy"}


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_described_and_frozen(name: str) -> None:
    config = OBJECTIVES[name].Config
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
    assert_finite_gradients(objective)
    moved = [p.grad is not None and bool(p.grad.any()) for p in objective.encoder.parameters()]
    assert all(moved) if objective.trains_encoder else not any(moved)


def assert_finite_gradients(objective: Objective) -> None:
    """Whatever is trained has a gradient; targets have none."""
    for key, parameter in objective.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
        assert parameter.grad is None or parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", NAMES)
def test_discrete_actions(name: str) -> None:
    objective = make(name, actions=DISCRETE)
    loss = objective(batch_for(objective))
    assert loss.total.isfinite()
    loss.total.backward()
    assert_finite_gradients(objective)
    losses = train(objective, 2)
    assert all(math.isfinite(value) for value in losses)


@pytest.mark.parametrize("actions", [CONTINUOUS, DISCRETE], ids=["continuous", "discrete"])
@pytest.mark.parametrize("name", NAMES)
def test_no_valid_row_gives_no_nan(name: str, actions: ActionSpec) -> None:
    """A method that takes masked windows then learns nothing; one that is never given any has nothing to look at."""
    objective = make(name, actions=actions)
    batch = batch_for(objective)
    before = loss_on(objective, batch).detach()
    batch.valid = torch.zeros_like(batch.valid)
    torch.manual_seed(7)
    loss = objective(batch)
    assert loss.total.isfinite() and all(part.isfinite() for part in loss.parts.values())
    assert all(output.isfinite().all() for output in loss.outputs.values() if output.is_floating_point())
    loss.total.backward()
    assert_finite_gradients(objective)
    if objective.needs().crossing != "mask":
        assert loss.total == 0 or torch.isclose(loss.total, before)
        return
    assert loss.total == 0
    moved = [p for p in [*objective.parameters(), *objective.encoder.parameters()] if p.grad is not None]
    assert moved and not any(p.grad.any() for p in moved)


@pytest.mark.parametrize("actions", [CONTINUOUS, DISCRETE], ids=["continuous", "discrete"])
@pytest.mark.parametrize("name", MASKED)
def test_masked_rows_teach_nothing(name: str, actions: ActionSpec) -> None:
    """What a row shows whose window leaves its episode, and which actions it carries, changes neither loss nor step."""
    objective = make(name, actions=actions)
    results = []
    for other in (False, True):
        batch = batch_for(objective)
        batch.valid[3:6] = False
        out = ~batch.valid.all(dim=1)
        assert 3 <= out.sum() < BATCH
        if other:
            batch.images[0][out, 0] = 255 - batch.images[0][out, 0]  # the observation that the row starts from
            for name_of, value in batch.fields.items():
                batch.fields[name_of] = value.clone()
                batch.fields[name_of][out] = value[out].flip(0)
        total = loss_on(objective, batch)
        objective.zero_grad(), objective.encoder.zero_grad()
        total.backward()
        trained = [*objective.encoder.parameters(), *(p for p in objective.parameters() if p.requires_grad)]
        results.append([total.detach(), *(p.grad.clone() for p in trained)])
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_parameter_groups_hold_what_is_trained(name: str) -> None:
    objective = make(name)
    heads = {p for p in objective.parameters() if p.requires_grad}
    for train_encoder in (True, False):
        groups = objective.parameter_groups(train_encoder)
        assert len({group.name for group in groups}) == len(groups), "two optimisers of one name"
        for group in groups:
            assert len(set(group.parameters)) == len(group.parameters), f"{group.name} holds a parameter twice"
            assert all(p.requires_grad for p in group.parameters), f"{group.name} holds a target"
        held = {p for group in groups for p in group.parameters}
        assert held == heads | (set(objective.encoder.parameters()) if train_encoder else set())


@pytest.mark.parametrize("name", PROJECTED)
def test_shares_the_critics_projection(name: str) -> None:
    objective = make(name)
    assert isinstance(objective, UsesProjection)
    dim = objective.encoder.feature_dim
    torch.manual_seed(3)
    given = torch.nn.Sequential(torch.nn.Linear(dim, 8), torch.nn.LayerNorm(8))
    objective.share_projection(given)
    assert not {id(p) for p in objective.parameters()} & {id(p) for p in given.parameters()}
    assert not any("own_projection" in key for key in objective.state_dict()), "the own projection is still kept"
    train(objective, 1)
    before = snapshot(given)
    train(objective, 1)
    assert all((p.grad is not None and p.grad.any()) for p in given.parameters())
    assert all(not torch.equal(value, before[key]) for key, value in given.state_dict().items())
    watched = {p for group in objective.parameter_groups(train_encoder=False) for p in group.parameters}
    assert not watched & set(given.parameters()), "a loss that is only watched would move the critic"


@pytest.mark.parametrize("name", PROJECTED)
def test_projection_of_another_width_is_refused(name: str) -> None:
    objective = make(name)
    narrow = torch.nn.Linear(objective.encoder.feature_dim, 3)
    with pytest.raises(UserError, match=f"method={name}.*3 outputs.*8.*feature_dim"):
        objective.share_projection(narrow)


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
    losses = train(make(name), 60, lr=2e-3)
    assert min(losses) < 0.9 * losses[0], losses


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_autocast(name: str) -> None:
    objective = make(name)
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(objective)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, loss_of(objective), rtol=0.05, atol=0.02)
    loss.backward()


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
    assert torch.equal(*(loss_of(each) for each in (objective, other)))
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
    with pytest.raises(ValueError, match=", ".join(NAMES)):
        build_objective("protto", objective.encoder, CONTINUOUS, objective.config)
