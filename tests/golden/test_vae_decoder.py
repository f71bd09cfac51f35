"""Decoders fit any image: published shapes, sizes and stacks, and the convolutions that they mirror."""

import pytest
import torch
from torch import nn

from visrep.errors import UserError
from visrep.objectives.parts.decoder import SMALLEST_MAP, ConvShape, Decoder, map_sizes, strided
from visrep.objectives.vae import decoder_layers

SIZES = [(24, 24), (36, 36), (48, 48), (64, 64), (84, 84), (72, 96), (85, 100), (10, 11)]
KINDS = {
    "vae": decoder_layers("dmcontrol", 4),
    "atari": decoder_layers("atari", 4),
    "sac_ae": strided(4, (2, 1, 1, 1)),
}


def deconvs(decoder: Decoder) -> list[nn.ConvTranspose2d]:
    return [layer for layer in decoder.deconvs if isinstance(layer, nn.ConvTranspose2d)]


@pytest.mark.parametrize("stack", [1, 3, 4])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_output_has_the_images_shape(kind: str, size: tuple[int, int], stack: int) -> None:
    shape = (3 * stack, *size)
    try:
        decoder = Decoder(5, shape, KINDS[kind], relu_first=False)
    except UserError:
        assert kind == "atari" and min(size) < 16, "only 8x8 convolutions of stride 4 need more than 10 pixels"
        return
    assert decoder(torch.randn(2, 5)).shape == (2, *shape)
    assert min(decoder.map_shape[1:]) >= SMALLEST_MAP
    # Every layer really is the convolution of its kernel and stride turned round.
    maps = [torch.zeros(1, *decoder.map_shape)]
    for layer in deconvs(decoder):
        maps.append(layer(maps[-1]))
        conv = nn.Conv2d(layer.out_channels, layer.in_channels, layer.kernel_size, layer.stride)
        assert conv(maps[-1]).shape == maps[-2].shape


def test_published_shapes() -> None:
    dmcontrol = Decoder(128, (9, 84, 84), decoder_layers("dmcontrol", 32), relu_first=False)
    assert dmcontrol.map_shape == (32, 9, 9)
    assert [layer.stride[0] for layer in deconvs(dmcontrol)] == [2, 2, 2, 1]
    assert [layer.output_padding for layer in deconvs(dmcontrol)] == [(0, 0), (1, 1), (1, 1), (0, 0)]
    assert [layer.out_channels for layer in deconvs(dmcontrol)] == [32, 32, 32, 9]
    assert map_sizes(84, 84, decoder_layers("dmcontrol", 32)) == [(s, s) for s in (84, 82, 40, 19, 9)]

    atari = Decoder(256, (4, 84, 84), decoder_layers("atari", 32), relu_first=False)
    assert atari.map_shape == (64, 7, 7)
    assert [(layer.out_channels, layer.kernel_size[0], layer.stride[0]) for layer in deconvs(atari)] == [
        (64, 3, 1),
        (32, 4, 2),
        (4, 8, 4),
    ]

    sac_ae = Decoder(50, (9, 84, 84), strided(32, (2, 1, 1, 1)), relu_first=True)
    assert sac_ae.linear.out_features == 35 * 35 * 32
    assert [layer.stride[0] for layer in deconvs(sac_ae)] == [1, 1, 1, 2]
    assert [layer.output_padding for layer in deconvs(sac_ae)] == [(0, 0), (0, 0), (0, 0), (1, 1)]


def test_layers_that_do_not_fit_are_left_out() -> None:
    assert map_sizes(24, 24, strided(8, (1, 2, 2, 2))) == [(24, 24), (22, 22), (10, 10), (4, 4)]
    assert map_sizes(24, 40, strided(8, (1, 2, 2, 2)))[-1] == (4, 8)


def test_last_layer_is_unbounded_and_the_first_relu_optional() -> None:
    torch.manual_seed(0)
    plain, rectified = (Decoder(3, (1, 12, 12), strided(2, (2,)), relu_first=first) for first in (False, True))
    rectified.load_state_dict(
        {name.replace("deconvs.0", "deconvs.1"): value for name, value in plain.state_dict().items()}
    )
    code = torch.randn(4, 3)
    hidden = plain.linear(code).view(4, *plain.map_shape)
    torch.testing.assert_close(plain(code), deconvs(plain)[0](hidden))
    torch.testing.assert_close(rectified(code), deconvs(plain)[0](hidden.relu()))
    assert (plain(code) < 0).any() and (rectified(code) < 0).any()


def test_too_small_images_are_refused() -> None:
    with pytest.raises(UserError, match=r"6x30 pixels are too small.*3x3.*raise image_size"):
        Decoder(3, (3, 6, 30), [ConvShape(2, 3, 2)], relu_first=False)
