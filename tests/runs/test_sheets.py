"""Pictures of what was learned: the nearest images are the nearest, and paintings show what they should."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch

from visrep.data.actions import ActionSpec
from visrep.data.batch import Batch
from visrep.encoders import Encoder, InputContract, build_encoder
from visrep.objectives.contract import OBJECTIVES, Objective, build_objective
from visrep.results.figures import frame_sheet
from visrep.runs.probing import Drawn
from visrep.runs.sheets import NEIGHBOURS, QUERIES, neighbour_sheet, newest

GAP = 2
PIXELS = cast(Encoder, torch.nn.Flatten())  # features are the pixels themselves


def cells(sheet: np.ndarray, side: int) -> np.ndarray:
    """The frames of a sheet, [rows, columns, side, side, 3]."""
    rows, columns = ((length + GAP) // (side + GAP) for length in sheet.shape[:2])
    starts = [[(y * (side + GAP), x * (side + GAP)) for x in range(columns)] for y in range(rows)]
    return np.array([[sheet[y : y + side, x : x + side] for y, x in row] for row in starts])


def test_neighbours_are_equal_images_of_other_episodes() -> None:
    """Ten scenes in each of nine episodes: the neighbours of an image are its scene in the other eight."""
    rng = np.random.default_rng(0)
    scenes = torch.from_numpy(rng.integers(0, 256, (10, 3, 16, 16), dtype=np.uint8))
    images, episodes = scenes.repeat(9, 1, 1, 1), np.repeat(np.arange(9), 10)
    order = rng.permutation(len(images))
    sheet = neighbour_sheet(PIXELS, Drawn(images[order], None, episodes[order]), channels=3)
    shown = cells(sheet, 16)
    assert shown.shape[:2] == (QUERIES, NEIGHBOURS + 1)
    assert (shown == shown[:, :1]).all()
    assert len(np.unique(shown[:, 0].reshape(QUERIES, -1), axis=0)) > 1  # so that one image alone would be seen


def test_neighbours_skip_the_episode_of_the_query() -> None:
    """An image whose equals are all in its own episode gets something else."""
    images = torch.zeros(20, 3, 16, 16, dtype=torch.uint8)
    images[:10] = 200
    images[10:, :, :8] = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1) * 20
    shown = cells(neighbour_sheet(PIXELS, Drawn(images, None, np.repeat([0, 1], 10)), channels=3), 16)
    bright = (shown == 200).all(axis=(2, 3, 4))  # [Q, 1 + k]
    assert bright[:4, 0].all() and not bright[:4, 1:].any()


def test_the_newest_frame_of_a_stack_and_grey_ones() -> None:
    images = torch.arange(6, dtype=torch.float32).view(1, 6, 1, 1) * torch.ones(2, 1, 4, 4)
    assert newest(images, 3)[0, 0, 0].tolist() == [3, 4, 5]
    assert newest(images, 1)[0, 0, 0].tolist() == [5, 5, 5]
    assert newest(torch.full((1, 3, 2, 2), 300.0), 3).max() == 255


def painter(name: str) -> Objective:
    torch.manual_seed(0)
    encoder = build_encoder("proto", InputContract(32, 32, channels=3, stack=1), channels=8)
    return build_objective(name, encoder, ActionSpec(2), OBJECTIVES[name].Config())


def test_paintings_come_to_resemble_their_images() -> None:
    """The picture is on the scale of the images: training brings it closer in grey levels of 0..255."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (8, 3, 1, 1), generator=generator).expand(8, 3, 32, 32).to(torch.uint8)
    for name in ("vae", "vae_t", "sac_ae"):
        objective = painter(name)
        offsets = tuple(objective.needs().offsets)
        batch = Batch(
            images=[images[:, None].expand(-1, len(offsets), -1, -1, -1).contiguous()],
            offsets=offsets,
            valid=torch.ones(8, len(offsets), dtype=torch.bool),
            fields={"action": torch.zeros(8, len(offsets), 2)},
            image_offsets=offsets,
        )
        before = [each.detach().float() for each in objective.painted(batch)]
        optimiser = torch.optim.Adam([*objective.parameters(), *objective.encoder.parameters()], 3e-3)
        for _ in range(60):
            optimiser.zero_grad()
            objective(batch).total.backward()
            optimiser.step()
        target, painted = (each.detach().float() for each in objective.painted(batch))
        assert torch.equal(target, before[0]) and torch.equal(target, images.float())
        assert (painted - target).abs().mean() < 0.7 * (before[1] - target).abs().mean(), name
        assert frame_sheet(newest(painted, 3)).shape[2] == 3
