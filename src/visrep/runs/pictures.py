"""Pictures of a finished reward-free phase: what was learned, what was visited, where the prototypes lie.

Everything is read from the store by random generators of its own, so a run is the same with and without pictures.
Shapes: N samples, K prototypes, E embedding, M cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from visrep.config import Config
from visrep.data.batch import BatchSpec
from visrep.data.sampler import Sampler
from visrep.envs.make import make_env
from visrep.files import write_json_atomic
from visrep.objectives.contract import HasPrototypes, Transition
from visrep.results import figures
from visrep.runs.compose import env_spec
from visrep.runs.interact import Rig
from visrep.runs.sheets import Shown, write_sheets
from visrep.runs.update import encode

SAMPLES = 4096  # images among which each prototype looks for its nearest
CHUNK = 256
Array = NDArray[np.float32]


@runtime_checkable
class Arena(Protocol):
    """An environment that can be drawn from above; the first two numbers of its state are x and y in 0..1."""

    num_cells: int

    @property
    def cell_centers(self) -> Array:
        """Centre of every counted cell, [M, 2]."""
        ...

    def draw_map(self, size: int = 256) -> NDArray[np.uint8]:
        """The empty arena, [size, size, 3]; row 0 is y = 1."""
        ...


@dataclass(frozen=True)
class PrototypePlaces:
    """Where prototypes lie.

    Attributes:
        positions: state of the sampled image whose embedding is nearest to each prototype, [K, 2].
        usage: share of the sampled images whose nearest prototype it is, [K].
    """

    positions: Array
    usage: Array


def write_pictures(config: Config, rig: Rig, folder: Path) -> list[Path]:
    """Write what this environment and method allow into ``folder``, each with its caption.

    What ``write_sheets`` gives; ``coverage.png`` where the environment is an ``Arena``; ``prototypes.png`` where the
    method has prototypes as well. ``arena.json`` holds the numbers behind the last two.
    """
    if rig.store.transitions < 2 * CHUNK:
        return []
    step = rig.counters.agent_step
    learner, stack = rig.learner, rig.sampler.frame_stack
    shown = Shown(learner.encoder, learner.objective, [rig.store], stack, rig.prepared, rig.device)
    written = write_sheets(shown, folder)
    if not rig.envs.num_cells or rig.monitor.coverage is None:
        return written
    spec = env_spec(config)
    env: Any = make_env(spec.name, image_size=spec.image_size).unwrapped
    if not isinstance(env, Arena):
        return written
    counts, centers = rig.monitor.coverage.counts, env.cell_centers
    share = 100.0 * float((counts > 0).mean())
    numbers: dict[str, Any] = {"agent_step": step, "env": config.run.env, "visits": counts.tolist()}
    caption = f"Visits per cell in {step:,} agent steps without reward; {share:.0f} % of the cells were reached"
    figure = figures.coverage_map(centers, counts, env.draw_map(), cell_side(centers))
    written.append(figures.save(figure, folder / "coverage.png", caption))
    if isinstance(rig.learner.objective, HasPrototypes):
        places = prototype_places(rig, rig.learner.objective)
        numbers |= {"prototypes": _rounded(places.positions), "usage": _rounded(places.usage)}
        caption = f"{len(places.usage)} prototypes, each where its nearest image was taken; large dots have more images"
        figure = figures.prototype_map(places.positions, env.draw_map(), places.usage)
        written.append(figures.save(figure, folder / "prototypes.png", caption))
    write_json_atomic(folder / "arena.json", numbers)
    return written


@torch.no_grad()
def prototype_places(rig: Rig, objective: HasPrototypes, samples: int = SAMPLES) -> PrototypePlaces:
    """Each prototype's nearest image by cosine, among ``samples`` drawn uniformly from the store."""
    sampler = _sampler(rig, BatchSpec(offsets=(0, 1), fields=frozenset({"image", "action", "state"})))
    positions, embeddings = [], []
    for _ in range(-(-samples // CHUNK)):
        batch = sampler.sample().to(rig.device)
        features, following = (encode(rig.learner, rig.prepared(batch.image(offset))).float() for offset in (0, 1))
        embeddings.append(objective.embed(Transition(features, batch.at("action", 1), following)))
        positions.append(batch.at("state", 1)[:, :2])
    cosines = F.normalize(torch.cat(embeddings), dim=1) @ F.normalize(objective.prototypes, dim=1).T  # [N, K]
    nearest_image, nearest_prototype = cosines.argmax(dim=0), cosines.argmax(dim=1)
    usage = torch.bincount(nearest_prototype, minlength=cosines.shape[1]) / len(cosines)
    return PrototypePlaces(torch.cat(positions)[nearest_image].cpu().numpy(), usage.cpu().numpy())


def _sampler(rig: Rig, spec: BatchSpec) -> Sampler:
    return Sampler(rig.store, spec, CHUNK, rig.sampler.frame_stack, generator=np.random.default_rng(0))


def cell_side(centers: Array) -> float:
    """Side of the grid's cells, from their centres [M, 2]."""
    return float(np.diff(np.unique(centers[:, 0])).min())


def _rounded(values: NDArray[Any]) -> list[Any]:
    return list(np.round(values.astype(np.float64), 5).tolist())
