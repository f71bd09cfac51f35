"""What every registered encoder must do, and what the convolutional one does in particular."""

import pytest
import torch

from visrep.encoders import ENCODERS, InputContract, build_encoder


def images(contract: InputContract, count: int = 3) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, *contract.shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("stack", [1, 3])
@pytest.mark.parametrize("size", [24, 84])
@pytest.mark.parametrize("kind", sorted(ENCODERS))
def test_features_of_uint8_and_float_agree(kind: str, size: int, stack: int) -> None:
    contract = InputContract(size, size, stack=stack)
    encoder = build_encoder(kind, contract)
    batch = images(contract)
    floats = batch.float()
    features = encoder(batch)
    assert features.shape == (3, encoder.feature_dim) and features.isfinite().all()
    torch.testing.assert_close(features, encoder(floats))
    assert torch.equal(floats, batch.float()), "the encoder changed its caller's images"
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(encoder(batch).float(), features, rtol=0.1, atol=0.02)


@pytest.mark.parametrize("kind", sorted(ENCODERS))
def test_config_builds_the_same_encoder(kind: str) -> None:
    contract = InputContract(24, 24)
    encoder = build_encoder(kind, contract)
    twin = build_encoder(kind, contract, **encoder.config())
    twin.load_state_dict(encoder.state_dict())
    assert torch.equal(twin(images(contract)), encoder(images(contract)))


@pytest.mark.parametrize("kind", sorted(ENCODERS))
def test_wrong_images_are_explained(kind: str) -> None:
    encoder = build_encoder(kind, InputContract(24, 24))
    with pytest.raises(ValueError, match="this encoder takes images"):
        encoder(torch.zeros(2, 3, 24, 24))


def test_conv_encoder_of_the_paper() -> None:
    encoder = build_encoder("proto", InputContract(84, 84))
    assert encoder.feature_dim == 39_200
    assert sum(p.numel() for p in encoder.parameters()) == 30_368


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_conv_encoder_against_plain_layers(offset: float) -> None:
    """Scaling, layers and the (F, H, W) order of the features, which published weights rely on."""
    contract = InputContract(20, 26, stack=2)
    encoder = build_encoder("proto", contract, channels=5, offset=offset).double()
    hidden = images(contract).double() / 255 - offset
    for layer, stride in zip(range(0, 8, 2), (2, 1, 1, 1), strict=True):
        weight, bias = encoder.convs[layer].weight, encoder.convs[layer].bias
        hidden = torch.nn.functional.conv2d(hidden, weight, bias, stride).relu()
    torch.testing.assert_close(encoder(images(contract)), hidden.contiguous().view(3, -1))
    last = encoder.to(memory_format=torch.channels_last)
    torch.testing.assert_close(last(images(contract)), hidden.contiguous().view(3, -1))


def test_conv_encoder_starts_orthogonal() -> None:
    encoder = build_encoder("proto", InputContract(24, 24))
    for layer in (encoder.convs[index] for index in (0, 2, 4, 6)):
        rows = layer.weight.flatten(1)
        torch.testing.assert_close(rows @ rows.T, 2 * torch.eye(32), rtol=0, atol=1e-5)
        assert not layer.bias.any()


def test_images_too_small_are_refused() -> None:
    assert build_encoder("proto", InputContract(15, 15)).feature_dim == 32
    with pytest.raises(ValueError, match="at least 15x15 pixels, got 14x84"):
        build_encoder("proto", InputContract(14, 84))
