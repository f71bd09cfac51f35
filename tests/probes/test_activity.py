"""Which units count as dormant."""

from __future__ import annotations

import pytest
import torch
from probe_tools import random_normal
from torch import nn

from visrep.encoders import InputContract, build_encoder
from visrep.probes.activity import UnitActivity


def slow_dormant(layers: list[torch.Tensor], threshold: float) -> float:
    """Layers [B, H] or [B, H, h, w]: share of units whose mean |activity| is at most that part of the layer's mean."""
    dormant, units = 0, 0
    for layer in layers:
        means = [float(layer[:, unit].abs().double().mean()) for unit in range(layer.shape[1])]
        for mean in means:
            units += 1
            dormant += mean / (sum(means) / len(means) + 1e-9) <= threshold
    return dormant / units


def test_zeroed_units_are_counted_and_a_linear_last_layer_is_not() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10), nn.ReLU(), nn.Linear(10, 4))
    with torch.no_grad():
        for unit in (1, 6):
            net[0].weight[unit], net[0].bias[unit] = 0.0, -1.0
        net[3].weight[2], net[3].bias[2] = 0.0, 0.0
        net[5].weight.zero_()
    images = random_normal(30, 3, 8, 8)
    with UnitActivity(net) as activity:
        for part in images.split(7):  # the last one is smaller
            net(part)
    net(images * 0)  # outside: not looked at
    scores, dormant = activity.scores(), activity.dormant()
    assert scores is not None and dormant is not None and len(scores) == 18
    assert set(torch.nonzero(scores == 0).flatten().tolist()) >= {1, 6, 10}
    conv = net[1](net[0](images)).detach()
    hidden = net[:5](images).detach()
    for text, share in dormant.items():
        assert share == pytest.approx(slow_dormant([conv, hidden], float(text)))


def test_a_layer_that_is_used_twice_counts_twice_and_a_bare_encoder_has_no_units() -> None:
    relu = nn.ReLU()
    net = nn.Sequential(nn.Linear(3, 5), relu, nn.Linear(5, 4), relu)
    with UnitActivity(net) as activity:
        net(random_normal(6, 3))
        net(random_normal(6, 3, seed=1))
    scores = activity.scores()
    assert scores is not None and len(scores) == 9
    with UnitActivity(build_encoder("vector", InputContract(1, 1, channels=5))) as nothing:
        pass
    assert nothing.scores() is None and nothing.dormant() is None


def test_a_dead_encoder_is_wholly_dormant() -> None:
    encoder = build_encoder("proto", InputContract(20, 20), channels=4)
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.fill_(-1.0)
    with UnitActivity(encoder) as activity:
        encoder(torch.randint(1, 256, (4, 9, 20, 20), dtype=torch.uint8))
    assert activity.dormant() == {"0": 1.0, "0.025": 1.0, "0.1": 1.0}
