"""No objective assumes nine channels, square images, one encoder or continuous actions."""

import math

import pytest
import torch
from test_every_objective import CONTINUOUS, DISCRETE, NAMES, SMALL, assert_finite_gradients, batch_for, train

from visrep.data.actions import ActionSpec
from visrep.encoders import InputContract, build_encoder
from visrep.objectives import OBJECTIVES, Objective, build_objective

INPUTS = {
    "atari": ("atari", InputContract(44, 44, channels=1, stack=4), DISCRETE),
    "dmlab": ("dmlab", InputContract(36, 48, channels=3, stack=1), ActionSpec(1, classes=9)),
    "dmcontrol": ("atc", InputContract(40, 32, channels=3, stack=3), CONTINUOUS),
    "one action": ("proto", InputContract(24, 32, channels=2, stack=2), ActionSpec(1)),
}


def on(name: str, where: str) -> Objective:
    kind, contract, actions = INPUTS[where]
    torch.manual_seed(0)
    cls = OBJECTIVES[name]
    config = cls.Config(**{key: value for key, value in SMALL.items() if key in cls.Config.model_fields})
    return build_objective(name, build_encoder(kind, contract, channels=4), actions, config)


@pytest.mark.parametrize("where", INPUTS)
@pytest.mark.parametrize("name", NAMES)
def test_learns_from_any_input(name: str, where: str) -> None:
    objective = on(name, where)
    losses = train(objective, 2)
    assert all(math.isfinite(loss) for loss in losses)
    loss = objective(batch_for(objective))
    objective.zero_grad()
    loss.total.backward()
    assert_finite_gradients(objective)
    gradients = [p.grad for p in objective.encoder.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients) or not objective.trains_encoder
    assert any(g is not None and g.any() for g in gradients) == objective.trains_encoder


@pytest.mark.parametrize("name", [name for name in NAMES if not OBJECTIVES[name].augmented])
@pytest.mark.parametrize("where", INPUTS)
def test_pictures_have_the_inputs_shape(name: str, where: str) -> None:
    objective = on(name, where)
    batch = batch_for(objective)
    assert objective(batch).outputs["reconstruction"].shape == batch.image(0).shape
