"""Pictures of what a representation has learned: images it holds for alike, and what its decoder paints.

Everything is read by random generators of its own, so a run is the same with and without pictures.
Shapes: N images, S frame stack, C channels, H W pixels, D features, Q queries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from visrep.data.batch import Batch, BatchSpec
from visrep.data.sampler import Sampler
from visrep.data.store import FrameStore
from visrep.encoders.contract import Encoder
from visrep.objectives.contract import Objective, Paints
from visrep.results import figures
from visrep.runs.probing import FEWEST, Drawn, draw_images
from visrep.runs.update import augmented
from visrep.video import not_showable

SHEET = 24  # observations on a sheet, and on one of paintings half as many with what was painted of each
COLUMNS = 12
QUERIES, NEIGHBOURS = 8, 7
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Shown:
    """What pictures are made of.

    Attributes:
        encoder: as it is after the run.
        objective: that trained it; None without one.
        stores: of uint8 frames of one shape.
        stack: S.
        prepare: deterministic half of the augmentation; None where images are taken as they are.
        device: of encoder and objective.
    """

    encoder: Encoder
    objective: Objective | None
    stores: Sequence[FrameStore]
    stack: int
    prepare: Callable[[Tensor], Tensor] | None
    device: torch.device


def write_sheets(shown: Shown, folder: Path) -> list[Path]:
    """Write what these frames and this method allow into ``folder``, each with its caption.

    ``sample_frames.png`` always, ``neighbours.png`` where there are images of at least two episodes, and
    ``reconstructions.png`` where the objective paints. Nothing for frames that are neither grey nor RGB.
    """
    channels, height, width = shown.stores[0].spec.frame_shape
    if not_showable(channels, shown.stores[0].spec.frame_dtype) is not None:
        return []
    caption = f"Observations as they are stored, {height} x {width} pixels"
    written = [figures.save(_observations(shown), folder / "sample_frames.png", caption)]
    drawn = draw_images(shown.stores, shown.stack, shown.prepare, shown.device)
    training = shown.encoder.training
    shown.encoder.eval()
    if len(drawn.episodes) >= FEWEST and len(np.unique(drawn.episodes)) > 1:
        caption = (
            "Left an observation, then those of other episodes whose features are most alike (cosine of features "
            "without their mean), nearest first"
        )
        written.append(
            figures.save(neighbour_sheet(shown.encoder, drawn, channels), folder / "neighbours.png", caption)
        )
    if isinstance(shown.objective, Paints):
        caption = "Observations that were to be painted, and under each what the decoder paints"
        written.append(figures.save(_paintings(shown, shown.objective), folder / "reconstructions.png", caption))
    shown.encoder.train(training)
    return written


@torch.no_grad()
def neighbour_sheet(encoder: Encoder, drawn: Drawn, channels: int) -> Picture:
    """A row for each of QUERIES images, with its nearest of other episodes; channels: of one frame."""
    features = torch.cat([encoder(part).float() for part in drawn.images.split(64)])  # [N, D]
    unit = F.normalize(features - features.mean(dim=0), dim=1)
    queries = np.unique(np.linspace(0, len(unit) - 1, QUERIES).astype(np.int64))
    cosines = (unit[queries] @ unit.T).cpu()  # [Q, N]
    same = torch.from_numpy(drawn.episodes[queries][:, None] == drawn.episodes[None])
    nearest = cosines.masked_fill(same, -torch.inf).topk(min(NEIGHBOURS, len(unit) - 1), dim=1).indices  # [Q, k]
    order = torch.cat([torch.from_numpy(queries)[:, None], nearest], dim=1)
    return figures.frame_sheet(newest(drawn.images[order.flatten().to(drawn.images.device)], channels), order.shape[1])


def newest(images: Tensor, channels: int) -> Picture:
    """The newest frame of each stack, [N, S*C, H, W] in 0..255 to uint8 [N, H, W, 3]."""
    frames = images[:, -channels:].round().clamp(0, 255).to(torch.uint8)
    return frames.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()


def _observations(shown: Shown) -> Picture:
    batches = _batches(shown, BatchSpec(), SHEET, seed=1)
    images = torch.cat([batch.image(0) for batch in batches])
    return figures.frame_sheet(newest(images, shown.stores[0].spec.frame_shape[0]), COLUMNS)


@torch.no_grad()
def _paintings(shown: Shown, objective: Paints) -> Picture:
    channels = shown.stores[0].spec.frame_shape[0]
    prepare = shown.prepare
    augment = None if prepare is None else lambda images, _: prepare(images)
    rows: list[list[Picture]] = []
    for batch in _batches(shown, objective.needs(), SHEET // 2, seed=2):
        pair = objective.painted(augmented(batch.to(shown.device), augment, None))
        rows.append([newest(images, channels) for images in pair])
    target, painted = (np.concatenate(column) for column in zip(*rows))
    return figures.frame_sheet(np.concatenate([target, painted]), len(target))


def _batches(shown: Shown, spec: BatchSpec, count: int, seed: int) -> list[Batch]:
    """About ``count`` samples in all, of every store equally many."""
    each = -(-count // len(shown.stores))
    return [
        Sampler(store, spec, each, shown.stack, generator=np.random.default_rng(seed)).sample()
        for store in shown.stores
    ]
