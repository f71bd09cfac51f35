"""Methods that paint images back: they learn a few pictures by heart, and all of it through the code."""

import pytest
import torch
from test_every_objective import CONTINUOUS, NAMES
from torch import Tensor

from visrep.data.batch import Batch
from visrep.encoders import InputContract, build_encoder
from visrep.objectives import OBJECTIVES, Objective, build_objective

# A light KL: before the decoder has learned anything it would push the features of so small an encoder to zero.
SETTINGS = {"vae_dim": 32, "vae_beta": 0.1, "sac_ae_dim": 16, "decoder_channels": 8}
RECONSTRUCTING = [name for name in NAMES if not OBJECTIVES[name].augmented]


def make(name: str, seed: int = 0) -> Objective:
    torch.manual_seed(seed)
    encoder = build_encoder("proto", InputContract(24, 24), channels=8)
    config = OBJECTIVES[name].Config
    settings = {key: value for key, value in SETTINGS.items() if key in config.model_fields}
    return build_objective(name, encoder, CONTINUOUS, config(**settings))


def pictures(objective: Objective, order: Tensor) -> Batch:
    """A white upper half and a white left half, in the given order and still over the window."""
    images = torch.zeros(2, *objective.encoder.contract.shape, dtype=torch.uint8)
    images[0, :, :12] = 255
    images[1, :, :, :12] = 255
    spec = objective.needs()
    times = len(spec.offsets)
    return Batch(
        images=[images[order].unsqueeze(1).repeat(1, times, 1, 1, 1)],
        offsets=spec.offsets,
        valid=torch.ones(2, times, dtype=torch.bool),
        fields={"action": torch.zeros(2, times, CONTINUOUS.dim)},
    )


def test_which_methods_these_are() -> None:
    assert {"vae", "vae_t", "sac_ae"} <= set(RECONSTRUCTING)


@pytest.mark.parametrize("name", RECONSTRUCTING)
def test_learns_pictures_by_heart_through_the_code(name: str) -> None:
    objective = make(name)
    optimizers = [
        torch.optim.Adam(group.parameters, lr=3e-3, weight_decay=group.weight_decay)
        for group in objective.parameter_groups(train_encoder=True)
    ]
    batch = pictures(objective, torch.arange(2))
    error = float(objective(batch).parts["reconstruction_error"])
    for _ in range(300):
        loss = objective(batch)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.total.backward()
        for optimizer in optimizers:
            optimizer.step()
    final = objective(batch)
    # The best picture that ignores the code is the mean of the two: its error is 0.125.
    assert float(final.parts["reconstruction_error"]) < 0.07 < error
    shuffled = objective(pictures(objective, torch.tensor([1, 0])))
    painted, moved = final.outputs["reconstruction"], shuffled.outputs["reconstruction"]
    assert (moved - painted[[1, 0]]).square().mean() < 0.07 < (moved - painted).square().mean()
