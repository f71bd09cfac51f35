"""The DMLab encoder against ATC's public code; the published shapes and parameter counts of all of them."""

import pytest
import torch
from compare import below, tensor
from load import cases, load_case
from objective_case import RUNS, Expected

from visrep.encoders import InputContract, build_encoder


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", cases("atc_dmlab_encoder"))
def test_dmlab_encoder_against_public_code(case: str, run: str) -> None:
    c = load_case("atc_dmlab_encoder", case)
    want = Expected(c, run, 1e-5)
    images = want.inputs["observation"] * 255  # the public module was given 0..1
    encoder = build_encoder("dmlab", InputContract(*images.shape[2:], channels=images.shape[1], stack=1)).to(want.dtype)
    names = {f"conv{n + 1}": f"convs.{2 * n}" for n in range(4)}
    encoder.load_state_dict(
        {
            f"{names[name.split('.')[0]]}.{name.split('.')[1]}": tensor(array, want.dtype)
            for name, array in below(c["param"], "conv").items()
        }
    )
    want.check(encoder.latents(images), "conv_output")
    weight, bias = (tensor(c["param"][f"head.0.{kind}"], want.dtype) for kind in ("weight", "bias"))
    want.check(encoder(images) @ weight.T + bias, "code")


@pytest.mark.parametrize(
    ("kind", "contract", "latent_shape", "features", "parameters"),
    [
        ("proto", InputContract(84, 84), (32, 35, 35), 39_200, 30_368),
        ("atc", InputContract(84, 84), (32, 7, 7), 1_568, 30_368),
        ("atari", InputContract(84, 84, channels=1, stack=4), (64, 7, 7), 3_136, 77_984),
        ("dmlab", InputContract(72, 96, stack=1), (64, 7, 10), 4_480, 112_864),
    ],
)
def test_published_shapes(
    kind: str, contract: InputContract, latent_shape: tuple[int, ...], features: int, parameters: int
) -> None:
    encoder = build_encoder(kind, contract)
    assert (encoder.latent_shape, encoder.feature_dim) == (latent_shape, features)
    assert sum(p.numel() for p in encoder.parameters()) == parameters
    assert encoder.latents(torch.zeros(2, *contract.shape)).shape == (2, *latent_shape)
