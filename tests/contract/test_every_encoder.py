"""What every registered encoder must do, and what the convolutional ones do in particular."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from visrep.encoders import ENCODERS, Encoder, InputContract, build_encoder, encoder_config
from visrep.encoders.stack import ConvStack
from visrep.errors import UserError
from visrep.initialisation import INITIALISATIONS, initialise
from visrep.network_files import encoder_metadata, load_encoder, save_encoder

CONVOLUTIONAL = sorted(kind for kind, cls in ENCODERS.items() if issubclass(cls, ConvStack))
GIVEN = sorted(ENCODERS.keys() - set(CONVOLUTIONAL))


def contract_of(kind: str, height: int = 40, width: int = 46, stack: int = 2) -> InputContract:
    """A small input that the kind takes: not a square where it may be none."""
    return InputContract(1, 1, channels=17, stack=stack) if kind == "vector" else InputContract(height, width, 3, stack)


def images(contract: InputContract, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *contract.shape), dtype=torch.uint8, generator=generator)


def observations(encoder: Encoder, count: int = 3) -> Tensor:
    """What the encoder takes: images, or floats of any size."""
    values = images(encoder.contract, count)
    return values if encoder.contract.low is not None else values.float() * 3 - 500


@pytest.mark.parametrize("kind", sorted(ENCODERS))
def test_features_are_the_flattened_latents(kind: str) -> None:
    encoder = build_encoder(kind, contract_of(kind))
    seen = observations(encoder)
    before = seen.clone()
    latents, features = encoder.latents(seen), encoder(seen)
    assert latents.shape == (3, *encoder.latent_shape)
    assert features.shape == (3, encoder.feature_dim) == (3, math.prod(encoder.latent_shape))
    assert features.isfinite().all() and features.dtype == torch.float32
    assert torch.equal(features, latents.contiguous().view(3, -1)), "not in (F, H', W') order"
    assert torch.equal(seen, before), "the encoder changed its caller's images"


@pytest.mark.parametrize("kind", sorted(ENCODERS))
def test_memory_format_changes_nothing_but_speed(kind: str) -> None:
    encoder = build_encoder(kind, contract_of(kind))
    seen = observations(encoder)
    features = encoder(seen)
    strided = torch.stack([seen, seen], dim=1)[:, 1]
    for other in (seen.contiguous(memory_format=torch.channels_last), strided):
        torch.testing.assert_close(encoder(other), features)
    torch.testing.assert_close(encoder.to(memory_format=torch.channels_last)(seen), features)


@pytest.mark.parametrize("kind", CONVOLUTIONAL)
@pytest.mark.parametrize("count", [31, 32, 33, 65])
def test_a_pass_without_gradient_gives_the_same(kind: str, count: int) -> None:
    encoder = build_encoder(kind, contract_of(kind))
    seen = images(encoder.contract, count)
    with torch.no_grad():
        features, latents = encoder(seen), encoder.latents(seen)
    assert not features.requires_grad
    torch.testing.assert_close(features, encoder(seen).detach())
    torch.testing.assert_close(latents, encoder.latents(seen).detach())


@pytest.mark.parametrize("kind", CONVOLUTIONAL)
@pytest.mark.parametrize("stack", [1, 3])
@pytest.mark.parametrize("size", [40, 84])
def test_features_of_uint8_and_float_agree(kind: str, size: int, stack: int) -> None:
    contract = InputContract(size, size, stack=stack)
    encoder = build_encoder(kind, contract)
    batch = images(contract)
    floats = batch.float()
    features = encoder(batch)
    torch.testing.assert_close(features, encoder(floats))
    assert torch.equal(floats, batch.float()), "the encoder changed its caller's images"
    with torch.autocast("cpu", torch.bfloat16):
        rounding = 0.02 * float(features.abs().max())  # of half precision: errors of large terms that cancel
        torch.testing.assert_close(encoder(batch).float(), features, rtol=0.1, atol=rounding)


@pytest.mark.parametrize("kind", sorted(ENCODERS))
def test_file_holds_the_encoder_bit_for_bit(kind: str, tmp_path: Path) -> None:
    settings = encoder_config(kind, channels=5, offset=0.5, init="delta_orthogonal")
    encoder = build_encoder(kind, contract_of(kind), **settings)
    assert encoder.config() == settings
    path = tmp_path / "encoder.safetensors"
    save_encoder(encoder, path, {"objective": "none"})
    loaded = load_encoder(path)
    assert loaded.contract == encoder.contract and loaded.config() == encoder.config()
    assert json.loads(json.dumps(encoder_metadata(path)["input"], allow_nan=False)) == encoder.contract.to_dict()
    seen = observations(encoder)
    assert torch.equal(loaded(seen), encoder.eval()(seen))


def test_files_from_before_init_was_a_setting_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build_encoder("proto", InputContract(24, 24), channels=4)
    old = {"channels": 4, "offset": 0.0}
    monkeypatch.setattr(type(encoder), "config", lambda self: old)
    save_encoder(encoder, tmp_path / "encoder.safetensors", {})
    monkeypatch.undo()
    assert encoder_metadata(tmp_path / "encoder.safetensors")["config"] == old
    loaded = load_encoder(tmp_path / "encoder.safetensors")
    assert torch.equal(loaded(images(encoder.contract)), encoder(images(encoder.contract)))


@pytest.mark.parametrize("kind", sorted(ENCODERS))
def test_wrong_images_are_explained(kind: str) -> None:
    encoder = build_encoder(kind, contract_of(kind))
    with pytest.raises(ValueError, match="this encoder takes images") as caught:
        encoder(torch.zeros(2, 3, 41, 46))
    assert str(list(encoder.contract.shape))[1:-1] in str(caught.value) and "[2, 3, 41, 46]" in str(caught.value)


@pytest.mark.parametrize("kind", GIVEN)
def test_given_features_are_not_scaled_and_not_bytes(kind: str) -> None:
    encoder = build_encoder(kind, contract_of(kind))
    seen = torch.randn(4, *encoder.contract.shape) * 1e4
    assert torch.equal(encoder(seen), seen.flatten(1))
    assert torch.equal(encoder(seen.half()), seen.half().float().flatten(1)), "half precision is not kept in features"
    assert not list(encoder.parameters())
    with pytest.raises(ValueError, match=r"floats of any size.*got .* of uint8"):
        encoder(seen.byte())


def test_vectors_are_no_images() -> None:
    with pytest.raises(UserError, match=r"takes vectors \(1x1 pixels\), got 8x8"):
        build_encoder("vector", InputContract(8, 8))


# -- the convolutional ones --------------------------------------------------------------------------------------------


def reference(encoder: ConvStack, batch: Tensor, strides: tuple[int, ...]) -> Tensor:
    hidden = batch.double() / 255 - encoder.offset
    for place, stride in enumerate(strides):
        layer = encoder.convs[2 * place]
        hidden = torch.nn.functional.conv2d(hidden, layer.weight, layer.bias, stride).relu()
    return hidden.contiguous().view(len(batch), -1)


@pytest.mark.parametrize("offset", [0.0, 0.5])
@pytest.mark.parametrize(("kind", "strides"), [("proto", (2, 1, 1, 1)), ("atc", (2, 2, 2, 1)), ("atari", (4, 2, 1))])
def test_against_plain_layers(kind: str, strides: tuple[int, ...], offset: float) -> None:
    """Scaling, layers and the (F, H', W') order of the features, which published weights rely on."""
    contract = contract_of(kind)
    encoder = build_encoder(kind, contract, channels=5, offset=offset).double()
    torch.testing.assert_close(encoder(images(contract)), reference(encoder, images(contract), strides))


def test_skips_of_the_dmlab_encoder() -> None:
    """The second skip adds the third layer before its ReLU."""
    contract = contract_of("dmlab")
    encoder = build_encoder("dmlab", contract, channels=4).double()
    conv = [encoder.convs[place] for place in (0, 2, 4, 6)]
    a2 = conv[1](conv[0](images(contract).double() / 255).relu()).relu()
    u3 = conv[2](a2) + a2
    want = (conv[3](u3.relu()) + u3).relu()
    assert (u3 < 0).any(), "before and after its ReLU are the same here, so this test cannot tell"
    torch.testing.assert_close(encoder.latents(images(contract)), want)


@pytest.mark.parametrize("kind", CONVOLUTIONAL)
def test_gradients_do_not_depend_on_memory_format(kind: str) -> None:
    contract = contract_of(kind)
    encoder = build_encoder(kind, contract, channels=4, init="kaiming").double()
    gradients = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        encoder.zero_grad()
        weights = torch.randn(3, encoder.feature_dim, generator=torch.Generator().manual_seed(1)).double()
        (encoder.to(memory_format=memory_format)(images(contract)) * weights).sum().backward()
        gradients.append([p.grad.clone() for p in encoder.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(list(encoder.parameters())) and gradients[0][0].any()
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("kind", "smallest"), [("proto", 15), ("atc", 31), ("atari", 36), ("dmlab", 20)])
def test_images_too_small_are_refused(kind: str, smallest: int) -> None:
    encoder = build_encoder(kind, InputContract(smallest, smallest))
    assert encoder.latent_shape[1:] == (1, 1)
    for height, width in ((smallest - 1, 84), (84, smallest - 1)):
        with pytest.raises(UserError, match=f"at least {smallest}x{smallest} pixels, got {height}x{width}"):
            build_encoder(kind, InputContract(height, width))


def test_channels_scale_every_layer() -> None:
    widths = {
        kind: [layer.out_channels for layer in build_encoder(kind, contract_of(kind), channels=6).convs[::2]]
        for kind in CONVOLUTIONAL
    }
    assert widths == {"proto": [6] * 4, "atc": [6] * 4, "atari": [6, 12, 12], "dmlab": [6, 12, 12, 12]}


# -- initialisation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "how"), [("proto", "orthogonal"), ("atc", "torch"), ("atari", "kaiming"), ("dmlab", "kaiming")]
)
def test_default_initialisation(kind: str, how: str) -> None:
    torch.manual_seed(7)
    default = build_encoder(kind, contract_of(kind))
    torch.manual_seed(7)
    named = build_encoder(kind, contract_of(kind), init=how)
    assert default.config()["init"] == how
    for mine, other in zip(default.parameters(), named.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_orthogonal() -> None:
    encoder = build_encoder("proto", InputContract(24, 24), init="orthogonal")
    for layer in encoder.convs[::2]:
        rows = layer.weight.flatten(1)
        torch.testing.assert_close(rows @ rows.T, 2 * torch.eye(32), rtol=0, atol=1e-5)
        assert not layer.bias.any()


def test_delta_orthogonal() -> None:
    encoder = build_encoder("atari", InputContract(40, 40), init="delta_orthogonal")
    for layer in encoder.convs[::2]:
        middle = layer.kernel_size[0] // 2
        tap = layer.weight[:, :, middle, middle]
        square = tap.T @ tap if tap.shape[0] > tap.shape[1] else tap @ tap.T
        torch.testing.assert_close(square, 2 * torch.eye(len(square)), rtol=0, atol=1e-5)
        assert layer.weight.count_nonzero() == tap.count_nonzero() and not layer.bias.any()
    head = nn.Linear(8, 4)
    initialise(head, "delta_orthogonal")
    torch.testing.assert_close(head.weight @ head.weight.T, torch.eye(4), rtol=0, atol=1e-5)
    assert not head.bias.any()


def test_kaiming() -> None:
    encoder = build_encoder("atari", InputContract(40, 40), init="kaiming")
    layers = [*encoder.convs[::2], nn.Linear(500, 300)]
    initialise(layers[-1], "kaiming")
    for layer in layers:
        fan_in = layer.weight[0].numel()
        assert abs(float(layer.weight.detach().std()) / math.sqrt(2 / fan_in) - 1) < 0.05 and not layer.bias.any()


def test_torch() -> None:
    torch.manual_seed(3)
    layer = nn.Conv2d(9, 32, 3, stride=2)
    torch.manual_seed(3)
    first = build_encoder("atc", InputContract(84, 84), init="torch").convs[0]
    assert torch.equal(first.weight, layer.weight) and torch.equal(first.bias, layer.bias)


def test_unknown_names_are_explained() -> None:
    with pytest.raises(UserError, match=r"unknown initialisation 'orthogonl': did you mean orthogonal\?"):
        build_encoder("proto", InputContract(24, 24), init="orthogonl")
    with pytest.raises(UserError, match=r"unknown encoder kind 'atarii': did you mean atari\?"):
        build_encoder("atarii", InputContract(84, 84))
    assert set(INITIALISATIONS) == {"orthogonal", "delta_orthogonal", "kaiming", "torch"}


def test_settings_that_a_kind_takes() -> None:
    offered = {"channels": 16, "offset": 0.5, "init": None}
    assert encoder_config("atc", **offered) == {"channels": 16, "offset": 0.5}
    assert encoder_config("vector", **offered) == encoder_config("latent", **offered) == {}
