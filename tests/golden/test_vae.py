"""VAE and VAE-T against the released code of ATC, and against loops; what β means; masks and noise."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from compare import tensor
from load import Case, cases, load_case
from objective_case import RUNS, Expected
from small_conv import Places, check_places, fill_places, mirrored, small_conv
from torch import Tensor

from visrep.data.actions import ActionSpec
from visrep.data.batch import Batch
from visrep.encoders import InputContract, build_encoder
from visrep.objectives import OBJECTIVES, build_objective
from visrep.objectives.parts.decoder import Decoder
from visrep.objectives.vae import VAEObjective, active_dims, kl_to_standard_normal, reconstruction_nll

CONTINUOUS = ActionSpec(2)


def build(c: Case, dtype: torch.dtype) -> tuple[VAEObjective, Places]:
    """The objective of a case with its weights, and the place of each of the case's layers."""
    meta, param = {name: array.item() for name, array in c["meta"].items()}, c["param"]
    shape = c["in"]["observation"].shape[2:]
    width = len(param["encoder.head.0.weight"])
    hidden = "vae_head.head.2.weight" in param
    k, classes = meta["delta_t"], meta["num_actions"]
    method = "vae_t" if k else "vae"
    config: dict[str, Any] = {
        "vae_dim": width,
        "vae_hidden_dim": len(param["vae_head.head.0.weight"]) if hidden else 0,
        "vae_beta": meta["kl_coef"] * shape[0],  # against a sum over channels, where the released one is against a mean
    } | ({"vae_k": k} if k else {})
    spec = ActionSpec(1, classes) if classes else ActionSpec(c["in"]["action"].shape[-1])
    cls = OBJECTIVES[method]
    encoder = small_conv(shape, param, ("encoder.conv.0", "encoder.conv.2"))
    objective = build_objective(method, encoder, spec, cls.Config(**config))
    layers = mirrored(param, ("decoder.convt.convt.0", "decoder.convt.convt.2"), (1, 2))
    objective.decoder = Decoder(width, shape, layers, relu_first=False)
    objective.to(dtype), objective.encoder.to(dtype)
    places = {
        "encoder.conv.0": objective.encoder.convs[0],
        "encoder.conv.2": objective.encoder.convs[2],
        "encoder.head.0": objective.compress,
        "vae_head.head.0": objective.head[0],
        "decoder.linear": objective.decoder.linear,
        "decoder.convt.convt.0": objective.decoder.deconvs[0],
        "decoder.convt.convt.2": objective.decoder.deconvs[2],
    } | ({"vae_head.head.2": objective.head[2]} if hidden else {})
    fill_places(places, param)
    return objective, places


def batch_of(c: Case, dtype: torch.dtype) -> Batch:
    """Golden action t is a_t, ours at offset t + 1; done[t] takes the rows behind t out of the episode."""
    observation = tensor(c["in"]["observation"], dtype).transpose(0, 1) * 255.0  # [B, T, C, H, W]
    action = torch.from_numpy(c["in"]["action"]).transpose(0, 1)
    action = action.unsqueeze(-1) if action.ndim == 2 else action.to(dtype)
    done = np.concatenate([np.zeros_like(c["in"]["done"][:1]), c["in"]["done"][:-1]])
    return Batch(
        images=[observation],
        offsets=tuple(range(observation.shape[1])),
        valid=torch.from_numpy(~np.maximum.accumulate(done)).T,
        fields={"action": torch.cat([torch.zeros_like(action[:, :1]), action[:, :-1]], dim=1)},
    )


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", cases("vae_loss"))
def test_against_released_code(case: str, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    c = load_case("vae_loss", case)
    want = Expected(c, run, 5e-6)
    objective, places = build(c, want.dtype)
    monkeypatch.setattr(torch, "randn_like", lambda like: tensor(c["rand"]["noise"], want.dtype))
    loss = objective(batch_of(c, want.dtype))
    loss.total.backward()
    want.check(loss.parts["reconstruction_loss"], "recon_loss")
    want.check(loss.parts["kl_loss"], "kl_loss")
    torch.testing.assert_close(loss.total.detach(), loss.parts["reconstruction_loss"] + loss.parts["kl_loss"])
    check_places(places, want.grad, want.tolerance, gradients=True)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_reconstruction_against_loops(likelihood: Any) -> None:
    logits, target = random(2, 3, 2, 4), random(2, 3, 2, 4, seed=1).sigmoid()
    want = []
    for b in range(2):
        total = 0.0
        for channel in range(3):
            for p, x in zip(logits[b, channel].flatten().tolist(), target[b, channel].flatten().tolist(), strict=True):
                p = 1 / (1 + math.exp(-p))
                bits = -(x * math.log(p) + (1 - x) * math.log(1 - p))
                total += bits if likelihood == "bernoulli" else (x - p) ** 2 / 2
        want.append(total / 3)
    torch.testing.assert_close(reconstruction_nll(logits, target, likelihood), torch.tensor(want, dtype=torch.float64))


def test_kl_against_loops_and_torch() -> None:
    mean, log_variance = random(3, 5), random(3, 5, seed=1)
    want = [
        sum((m * m + math.exp(v) - v - 1) / 2 for m, v in zip(row, variances, strict=True))
        for row, variances in zip(mean.tolist(), log_variance.tolist(), strict=True)
    ]
    got = kl_to_standard_normal(mean, log_variance)
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64))
    normal = torch.distributions.Normal
    known = torch.distributions.kl_divergence(normal(mean, (0.5 * log_variance).exp()), normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(got, known)
    assert kl_to_standard_normal(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0.0


def test_active_dims_counts_what_varies_over_valid_rows() -> None:
    mean = torch.zeros(4, 3)
    mean[:, 0] = torch.tensor([0.0, 1.0, 0.0, 1.0])  # variance 0.25
    mean[:, 1] = torch.tensor([0.0, 0.1, 0.0, 0.1])  # 0.0025
    mean[3, 2] = 9.0  # in a row that does not count
    assert active_dims(mean, torch.tensor([True, True, True, False])).item() == 1
    assert active_dims(mean, torch.ones(4, dtype=torch.bool)).item() == 2
    assert active_dims(mean, torch.zeros(4, dtype=torch.bool)).item() == 0


def make(method: str = "vae", actions: ActionSpec = CONTINUOUS, size: int = 24, **config: Any) -> Any:
    torch.manual_seed(0)
    encoder = build_encoder("proto", InputContract(size, size), channels=4)
    cls = OBJECTIVES[method]
    settings = {"vae_dim": 6, "decoder_channels": 4} | config
    return build_objective(method, encoder, actions, cls.Config(**settings))


def test_beta_one_is_the_elbo_whatever_the_number_of_channels() -> None:
    """C times the loss is the negative ELBO with sums over everything: the literature's β."""
    objective = make(vae_beta=4.0)
    features, valid = torch.randn(3, objective.encoder.feature_dim), torch.ones(3, dtype=torch.bool)
    target, noise = torch.randint(0, 256, (3, 9, 24, 24), dtype=torch.uint8), torch.randn(3, 6)
    loss = objective.loss(features, target, valid, noise=noise)
    mean, log_variance = objective.encode(features)
    picture = torch.distributions.Bernoulli(logits=objective.decoder(mean + (log_variance / 2).exp() * noise))
    x = target.float() / 255
    nll = -(x * picture.logits - torch.nn.functional.softplus(picture.logits)).sum(dim=(1, 2, 3)).mean()
    elbo = nll + 4.0 * kl_to_standard_normal(mean, log_variance).mean()
    torch.testing.assert_close(9 * loss.total, elbo)
    assert objective.diagnostics()["beta"].item() == 4.0
    assert objective.diagnostics()["beta_norm"].item() == pytest.approx(4.0 * 6 / (9 * 24 * 24))


def test_default_beta_is_the_released_coefficient_one() -> None:
    loss = make().loss(torch.randn(3, 100), torch.zeros(3, 9, 24, 24), torch.ones(3, dtype=torch.bool))
    torch.testing.assert_close(loss.parts["kl_loss"], loss.parts["kl"])


@pytest.mark.parametrize("method", ["vae", "vae_t"])
def test_masked_rows_count_for_nothing(method: str) -> None:
    objective = make(method)
    features, target, noise = torch.randn(4, 100), torch.rand(4, 9, 24, 24) * 255, torch.randn(4, 6)
    actions = torch.rand(4, 2) if method == "vae_t" else None
    valid = torch.tensor([True, False, True, False])
    got = objective.loss(features, target, valid, actions, noise)
    rows = [0, 2]
    want = objective.loss(
        features[rows], target[rows], valid[rows], None if actions is None else actions[rows], noise[rows]
    )
    torch.testing.assert_close(got.total, want.total)
    torch.testing.assert_close(got.parts, want.parts)
    nothing = objective.loss(features, target, torch.zeros(4, dtype=torch.bool), actions, noise)
    assert nothing.total.item() == 0.0 and all(part.item() == 0.0 for part in nothing.parts.values())


def test_actions_are_those_between_the_two_observations() -> None:
    """a_t .. a_{t+k-1} in order, from the rows that they led to; each row's own leading action is not looked at."""
    for spec, values in ((ActionSpec(2), torch.arange(16.0).view(2, 4, 2)), (ActionSpec(1, 5), None)):
        if values is None:
            values = torch.tensor([[0, 1, 2, 3], [4, 3, 2, 1]]).unsqueeze(-1)
        objective = make("vae_t", spec, vae_k=2)
        assert objective.needs().offsets == (0, 1, 2) and objective.needs().images_at == (0, 2)
        images = torch.zeros(2, 4, 9, 24, 24, dtype=torch.uint8)
        batch = Batch([images], (0, 1, 2, 3), torch.ones(2, 4, dtype=torch.bool), {"action": values})
        want = torch.cat([spec.encode(values[:, 1]), spec.encode(values[:, 2])], dim=1)
        assert torch.equal(objective._actions(batch), want)


def test_target_and_mask_are_those_k_steps_later() -> None:
    objective = make("vae_t", vae_k=2)
    images = torch.zeros(2, 3, 9, 24, 24, dtype=torch.uint8)
    images[:, 2] = 255
    valid = torch.tensor([[True, True, False], [True, True, True]])
    loss = objective(Batch([images], (0, 1, 2), valid, {"action": torch.zeros(2, 3, 2)}))
    pictures = loss.outputs["reconstruction"]
    torch.testing.assert_close(loss.parts["reconstruction_error"], (pictures[1] - 1.0).square().mean())


def test_noise_is_restored_with_torchs_global_generator() -> None:
    objective = make()
    batch = Batch(
        [torch.randint(0, 256, (4, 1, 9, 24, 24), dtype=torch.uint8)], (0,), torch.ones(4, 1, dtype=torch.bool)
    )
    state = torch.get_rng_state()
    first, second = objective(batch).total, objective(batch).total
    assert first != second
    torch.set_rng_state(state)
    assert torch.equal(objective(batch).total, first) and torch.equal(objective(batch).total, second)
