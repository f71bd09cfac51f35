"""The live probe: the same every time, no random number drawn, and a warning that tells collapse from health."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from probe_tools import Through, random_normal
from torch import Tensor

from visrep.encoders import Encoder, InputContract, build_encoder
from visrep.probes.live import LiveProbe, collapse_warning
from visrep.probes.ranks import effective_rank
from visrep.probes.sphere import uniformity

SIZE = 24


def scene(count: int = 160) -> tuple[Tensor, Tensor, np.ndarray]:
    """Images of a bright square at a place, the place, and ten episodes."""
    places = torch.randint(0, SIZE - 6, (count, 2), generator=torch.Generator().manual_seed(0))
    images = torch.full((count, 9, SIZE, SIZE), 40, dtype=torch.uint8)
    for image, (y, x) in zip(images, places.tolist(), strict=True):
        image[:, y : y + 6, x : x + 6] = 220
    return images, places.float(), np.arange(count) // (count // 10)


def encoder() -> Encoder:
    torch.manual_seed(3)
    return build_encoder("proto", InputContract(SIZE, SIZE), channels=8)


def collapsed() -> Encoder:
    dead = encoder()
    with torch.no_grad():
        for name, weight in dead.named_parameters():
            weight.fill_(0.1 if name.endswith("bias") else 0.0)
    return dead


def test_it_measures_what_the_functions_measure_and_draws_nothing() -> None:
    probe, net = LiveProbe(*scene()), encoder().train()
    torch.manual_seed(1)
    np.random.seed(1)
    before, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()
    values = probe(net)
    assert torch.equal(torch.get_rng_state(), before) and np.array_equal(np.random.get_state()[1], numpys)
    assert values == probe(net) == LiveProbe(*scene())(net)
    assert net.training and all(weight.grad is None for weight in net.parameters())
    features = net(probe.images).detach()
    assert values["probe_rankme"] == pytest.approx(float(effective_rank(features)), rel=1e-4)
    assert values["probe_uniformity"] == pytest.approx(float(uniformity(features)), rel=1e-4)
    assert 0 <= values["probe_dormant"] < 1 and values["probe_state_r2"] > 0.7


def test_the_readout_needs_state_and_five_episodes() -> None:
    images, state, episodes = scene()
    for given in ((images,), (images, state), (images, state, episodes % 4), (images, torch.ones(160, 2), episodes)):
        assert "probe_state_r2" not in LiveProbe(*given)(encoder())
    chance = LiveProbe(images, random_normal(160, 2), episodes)(encoder())
    assert chance["probe_state_r2"] < 0.1


def test_wide_features_take_half_of_the_images() -> None:
    wide = Through(3, 9_000, function=lambda v: v.float().repeat(1, 3_000))
    probe = LiveProbe(random_normal(80, 3, 1, 1), random_normal(80, 1), np.arange(80) // 8)
    seen: list[int] = []
    wide.register_forward_hook(lambda _, __, output: seen.append(len(output)))
    assert probe(wide)["probe_rankme"] < 3.01 and sum(seen) == 40


def test_a_collapsed_encoder_is_reported_and_a_healthy_one_is_not() -> None:
    probe = LiveProbe(*scene())
    start, end = probe(encoder()), probe(collapsed())
    assert collapse_warning([]) is None
    assert collapse_warning([start]) is None and collapse_warning([start, start]) is None
    said = collapse_warning([start, start, end])
    assert said is not None and "RankMe fell" in said and "uniformity rose" in said
    assert collapse_warning([start, end, start]) is None  # it recovered
    assert collapse_warning([end]) is not None  # collapsed from the beginning


def test_each_sign_of_collapse_is_enough() -> None:
    good = {"probe_rankme": 20.0, "probe_uniformity": -1.5, "probe_dormant": 0.2}
    assert collapse_warning([good, {**good, "probe_rankme": 4.0, "probe_uniformity": -0.2}]) is None
    assert "RankMe fell from 20 to 2.5" in str(collapse_warning([good, {**good, "probe_rankme": 2.5}]))
    assert "uniformity rose" in str(collapse_warning([good, {**good, "probe_uniformity": -0.1}]))
    assert "95 % of the units are dormant" in str(collapse_warning([good, {**good, "probe_dormant": 0.95}]))
    assert "not finite" in str(collapse_warning([good, {**good, "probe_rankme": math.nan}]))


def test_features_that_are_not_finite_are_measured_as_such() -> None:
    broken = encoder()
    with torch.no_grad():
        next(broken.parameters()).fill_(math.nan)
    values = LiveProbe(*scene())(broken)
    assert math.isnan(values["probe_rankme"]) and math.isnan(values["probe_state_r2"])
    assert "not finite" in str(collapse_warning([values]))


def test_features_that_were_alike_from_the_start_are_told_as_such() -> None:
    probe = LiveProbe(*scene())
    flat = probe(collapsed())
    for history in ([flat], [flat, flat]):
        said = str(collapse_warning(history))
        assert "was collapsed at its first measurement already, and still is: RankMe 1, uniformity 0" in said, said
        assert " from " not in said
    assert collapse_warning([flat, probe(encoder())]) is None  # it recovered


def test_a_fall_is_told_with_digits_that_show_it() -> None:
    first = {"probe_rankme": 1.004, "probe_uniformity": -0.0021}
    said = str(collapse_warning([first, {"probe_rankme": 1.0001, "probe_uniformity": -2e-6}]))
    assert "RankMe fell from 1.004 to 1, uniformity rose from -0.0021 to -2e-06" in said
    assert "may be collapsing" in said
    noise = {"probe_rankme": 1.0008, "probe_uniformity": -1e-13}  # rounding, where features are alike
    assert "collapsed at its first measurement already" in str(collapse_warning([noise, dict(noise)]))
