"""SAC-AE's reconstruction step against the published code, and against loops."""

import math

import pytest
import torch
from compare import tensor
from contrast_case import TwoConvs
from load import Case, cases, load_case
from objective_case import RUNS, Expected
from small_conv import Places, check_places, fill_places, mirrored, small_conv

from visrep.data.actions import ActionSpec
from visrep.objectives.parts.decoder import Decoder
from visrep.objectives.sac_ae import SACAEConfig, SACAEObjective, quantised


def build(c: Case, dtype: torch.dtype) -> tuple[SACAEObjective, Places]:
    meta, param = {name: array.item() for name, array in c["meta"].items()}, c["param"]
    shape = c["in"]["obs"].shape[1:]
    width = len(param["encoder.fc.weight"])
    config = SACAEConfig(
        sac_ae_dim=width, latent_penalty=meta["latent_lambda"], decoder_weight_decay=meta["weight_lambda"]
    )
    encoder = small_conv(shape, param, ("encoder.conv1", "encoder.conv2"))
    objective = SACAEObjective(encoder, ActionSpec(2), config)
    layers = mirrored(param, ("decoder.deconv1", "decoder.deconv2"), (2, 1))
    objective.decoder = Decoder(width, shape, layers, relu_first=True)
    objective.to(dtype), encoder.to(dtype)
    places: Places = {
        "encoder.conv1": encoder.convs[0],
        "encoder.conv2": encoder.convs[2],
        "encoder.fc": objective.projection[0],
        "encoder.layernorm": objective.projection[1],
        "decoder.fc": objective.decoder.linear,
        "decoder.deconv1": objective.decoder.deconvs[1],
        "decoder.deconv2": objective.decoder.deconvs[3],
    }
    fill_places(places, param)
    return objective, places


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", cases("sac_ae_loss"))
def test_one_step_against_published_code(case: str, run: str) -> None:
    c = load_case("sac_ae_loss", case)
    want = Expected(c, run, 2e-5)
    objective, places = build(c, want.dtype)
    obs = want.inputs["obs"]
    uniform = tensor(c["rand"]["dequantisation"], want.dtype)
    loss = objective.loss(objective.encoder(obs), obs, uniform)
    for ours, theirs in (("target", "target"), ("reconstruction", "reconstruction"), ("latent", "latent")):
        want.check(loss.outputs[ours], theirs)
    want.check(loss.parts["reconstruction_error"], "rec_loss")
    want.check(loss.parts["latent_penalty"], "latent_loss")
    want.check(loss.total, "loss")
    loss.total.backward()
    check_places(places, want.grad, want.tolerance, gradients=True)
    groups = objective.parameter_groups(train_encoder=True)
    assert [group.name for group in groups] == ["encoder", "decoder"]
    for group in groups:
        torch.optim.Adam(group.parameters, lr=float(c["meta"]["lr"]), weight_decay=group.weight_decay).step()
    check_places(places, want.new, want.tolerance, gradients=False)


def test_target_against_loops() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    uniform = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got = quantised(images, uniform)
    want = [math.floor(x / 8) / 32 + u / 32 - 0.5 for x, u in zip(range(256), uniform.flatten().tolist(), strict=True)]
    torch.testing.assert_close(got.flatten(), torch.tensor(want, dtype=torch.float64))
    assert torch.equal(got, quantised(images.double(), uniform)), "bytes and floats mean the same"
    assert got.min() >= -0.5 and got.max() < 0.5


def small() -> SACAEObjective:
    torch.manual_seed(0)
    encoder = TwoConvs((3, 16, 16), (4, 4), divide=True)
    return SACAEObjective(encoder, ActionSpec(2), SACAEConfig(sac_ae_dim=5, decoder_channels=4))


def test_loss_against_loops() -> None:
    objective = small()
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    loss = objective.loss(objective.encoder(images), images)
    pictures, target = (loss.outputs[name].flatten().tolist() for name in ("reconstruction", "target"))
    error = sum((a - b) ** 2 for a, b in zip(pictures, target, strict=True)) / len(pictures)
    latent = sum(value * value for value in loss.outputs["latent"].flatten().tolist()) / 2 / 3
    assert loss.total.item() == pytest.approx(error + 1e-6 * latent, rel=1e-5)
    assert loss.outputs["latent"].abs().max() < 1


def test_groups_without_encoder_and_the_decays() -> None:
    objective = small()
    groups = {group.name: group for group in objective.parameter_groups(train_encoder=False)}
    assert not set(groups["encoder"].parameters) & set(objective.encoder.parameters())
    assert set(groups["decoder"].parameters) == set(objective.decoder.parameters())
    assert (groups["encoder"].weight_decay, groups["decoder"].weight_decay) == (0.0, 1e-7)


@pytest.mark.parametrize("with_tanh", [False, True])
def test_a_shared_projection_is_bounded_once(with_tanh: bool) -> None:
    objective = small()
    trunk = torch.nn.Sequential(torch.nn.Linear(objective.encoder.feature_dim, 5), torch.nn.LayerNorm(5))
    given = torch.nn.Sequential(*trunk, torch.nn.Tanh()) if with_tanh else trunk
    objective.share_projection(given)
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    features = objective.encoder(images)
    torch.testing.assert_close(objective.loss(features, images).outputs["latent"], trunk(features).detach().tanh())


def test_takes_plain_images_after_the_policy() -> None:
    assert SACAEObjective.turn == "after policy" and not SACAEObjective.augmented
    assert small().needs().fields == {"image"} and small().needs().offsets == (0,)
