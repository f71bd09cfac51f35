"""What other libraries do to modules, done to a reused encoder."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from export_tools import encoder_of, weights_equal
from torch import nn

from visrep.encoders import Encoder
from visrep.export.reuse import ReusedEncoder


def orthogonal(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.orthogonal_(module.weight, gain=2**0.5)


@pytest.mark.parametrize("frozen", [True, False])
def test_initialisation_leaves_the_encoder_alone(encoder: Encoder, frozen: bool) -> None:
    network = nn.Sequential(ReusedEncoder(encoder, frozen), nn.Linear(encoder.feature_dim, 3))
    head = network[1].weight.detach().clone()
    network.apply(orthogonal)
    assert weights_equal(network[0].encoder, encoder)
    assert not torch.equal(network[1].weight, head), "the function did nothing at all"


def test_the_same_initialisation_destroys_a_plain_encoder(encoder: Encoder) -> None:
    assert not weights_equal(copy.deepcopy(encoder).apply(orthogonal), encoder)


def average(target: nn.Module, source: nn.Module, tau: float) -> None:
    with torch.no_grad():
        for ours, theirs in zip(target.parameters(), source.parameters(), strict=True):
            ours.mul_(1 - tau).add_(theirs, alpha=tau)


def test_averaging_changes_even_equal_weights_but_not_frozen_ones(encoder: Encoder) -> None:
    """The reason why frozen weights are no parameters: w(1 − τ) + wτ is not w in floating point."""
    plain, target = copy.deepcopy(encoder), copy.deepcopy(encoder)
    frozen, frozen_target = ReusedEncoder(encoder, True), ReusedEncoder(encoder, True)
    for _ in range(50):
        average(target, plain, 0.005)
        average(frozen_target, frozen, 0.005)
    assert not weights_equal(target, encoder)
    assert weights_equal(frozen_target.encoder, encoder)


def test_frozen_has_nothing_to_optimise_and_fine_tuning_learns(encoder: Encoder, images: torch.Tensor) -> None:
    frozen, learning = ReusedEncoder(encoder, True), ReusedEncoder(encoder, False)
    assert list(frozen.parameters()) == [] and not frozen(images).requires_grad
    frozen.train().requires_grad_(True)
    assert not frozen.encoder.training and not frozen(images).requires_grad
    optimiser = torch.optim.Adam(learning.parameters(), 1e-2)
    learning(images).square().mean().backward()
    optimiser.step()
    assert not weights_equal(learning.encoder, encoder)
    assert weights_equal(encoder, encoder_of("proto")), "the encoder handed over was not copied"


@pytest.mark.parametrize("frozen", [True, False])
def test_state_dict_copies_and_moves_hold_the_weights(encoder: Encoder, images: torch.Tensor, frozen: bool) -> None:
    network = nn.Sequential(ReusedEncoder(encoder, frozen), nn.Linear(encoder.feature_dim, 3))
    state = network.state_dict()
    assert {f"0.encoder.{name}" for name in encoder.state_dict()} == {name for name in state if name.startswith("0.")}
    other = nn.Sequential(ReusedEncoder(encoder_of("proto", offset=0.0), frozen), nn.Linear(encoder.feature_dim, 3))
    with torch.no_grad():
        for weight in other[0].encoder.parameters():
            weight.zero_()
    other.load_state_dict(state)
    assert weights_equal(other[0].encoder, encoder)
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(twin(images), network(images))
        assert twin[0].encoder is not network[0].encoder
    double = copy.deepcopy(network).double()
    assert {value.dtype for value in double[0].encoder.state_dict().values()} == {torch.float64}
    assert double(images).dtype == torch.float64


@pytest.mark.parametrize("frozen", [True, False])
def test_a_state_that_does_not_fit_is_refused(encoder: Encoder, frozen: bool) -> None:
    network = nn.Sequential(ReusedEncoder(encoder, frozen))
    state = network.state_dict()
    with pytest.raises(RuntimeError, match=r"convs\.0\.weight"):
        network.load_state_dict({name: value for name, value in state.items() if not name.endswith("convs.0.weight")})
    with pytest.raises(RuntimeError, match="size mismatch"):
        network.load_state_dict({name: value[..., :1] for name, value in state.items()})
    with pytest.raises(RuntimeError, match="Unexpected"):
        network.load_state_dict({**state, "0.encoder.more": torch.zeros(1)})
