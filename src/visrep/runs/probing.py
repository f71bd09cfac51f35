"""Live probes of a run: which images they look at, when they are due, and the warning when features collapse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visrep.data.anchors import Anchors, Window
from visrep.data.batch import BatchSpec
from visrep.data.dataset import Dataset
from visrep.data.sampler import Sampler
from visrep.data.store import FrameStore
from visrep.encoders.contract import Encoder
from visrep.envs.make import full_name
from visrep.probes.data import state_names
from visrep.probes.live import LiveProbe, collapse_warning

IMAGES = 512
FEWEST = 64  # images below which rank and uniformity say nothing
SEED = 0  # of which images: looks at the same rows, by a resumed run too, see the same


@dataclass(frozen=True)
class Drawn:
    """Images to look at.

    Attributes:
        images: [N, S*C, H, W], as the encoder takes them.
        state: privileged state of the images, [N, K]; None where there is none of one meaning.
        episodes: id of each image's episode, [N].
    """

    images: Tensor
    state: Tensor | None
    episodes: NDArray[np.int64]


def states_agree(datasets: Sequence[Dataset]) -> bool:
    """Whether the state means the same in all of them: values of the same names in one known environment."""
    meanings = []
    for dataset in datasets:
        name, shape = dataset.manifest.get("env"), dataset.store.spec.side.get("state")
        if name is None or shape is None:
            return len(datasets) == 1
        meanings.append((full_name(name), shape, state_names(dataset.manifest)))
    return all(meaning == meanings[0] for meaning in meanings)


def draw_images(
    stores: Sequence[FrameStore],
    stack: int,
    prepare: Callable[[Tensor], Tensor] | None,
    device: torch.device,
    one_state: bool = False,
) -> Drawn:
    """At most IMAGES drawn evenly from the stores, the same ones as long as the stores hold the same rows.

    Args:
        stores: with frames of one shape.
        stack: frames per image.
        prepare: deterministic half of the augmentation; None where images are taken as they are.
        device: of the encoder.
        one_state: the states of several stores mean the same; otherwise several have none.
    """
    generator = np.random.default_rng(SEED)
    images, states, episodes = [], [], []
    for number, store in enumerate(stores):
        positions = Anchors(store, Window(0, 0, stack), 1).all()
        chosen = generator.permutation(positions)[: IMAGES // len(stores)]
        lanes, rows = store.rings.locate(chosen)
        cut = Sampler(store, BatchSpec((0,), frozenset({"image"})), len(chosen), stack).cut(lanes, rows)
        images.append(cut.image(0).to(device))
        steps = store.episode_steps[store.rings.positions(lanes, rows)].astype(np.int64)
        episodes.append(np.stack([np.full_like(rows, number), lanes, rows - steps], axis=1))
        if "state" in store.spec.side:
            states.append(torch.from_numpy(store.read("state", lanes, rows)).flatten(1))
    ids = np.unique(np.concatenate(episodes), axis=0, return_inverse=True)[1].reshape(-1)
    # Tasks of several stores may have states of different meaning: there is no one readout of them.
    readable = len(states) == len(stores) and (one_state or len(stores) == 1)
    state = torch.cat(states) if readable else None
    shown = torch.cat(images)
    return Drawn(shown if prepare is None else prepare(shown), state, ids)


def draw_probe(
    stores: Sequence[FrameStore],
    stack: int,
    prepare: Callable[[Tensor], Tensor] | None,
    device: torch.device,
    one_state: bool = False,
) -> LiveProbe | None:
    """A probe on ``draw_images``; None where they are too few."""
    drawn = draw_images(stores, stack, prepare, device, one_state)
    if len(drawn.episodes) < FEWEST:
        return None
    return LiveProbe(drawn.images, drawn.state, drawn.episodes, seed=SEED)


@dataclass
class ProbeWatch:
    """Looks at the encoder every ``frequency`` updates and remembers what it saw; survives a crash.

    Attributes:
        frequency: updates between two looks; 0 for none.
        draw: makes the probe for a look; None where there is too little to look at.
        history: measurements, oldest first.
        looked_at: updates at the newest look, -1 before the first.
    """

    frequency: int
    draw: Callable[[], LiveProbe | None]
    history: list[dict[str, float]] = field(default_factory=list)
    looked_at: int = -1

    def due(self, updates: int) -> bool:
        """Whether a multiple of the frequency has come since the newest look; the first look is due at once."""
        if not self.frequency:
            return False
        return self.looked_at < 0 or updates // self.frequency > self.looked_at // self.frequency

    def look(self, encoder: Encoder, updates: int) -> tuple[dict[str, float], str | None]:
        """Measure: the values for the log, and a warning where they say that features collapse."""
        probe = self.draw()
        if probe is None:
            return {}, None
        self.looked_at = updates
        values = probe(encoder)
        self.history = [*self.history[:1], values]  # the warning compares the newest with the first
        return values, collapse_warning(self.history)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {"history": self.history, "looked_at": self.looked_at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` stood."""
        self.history, self.looked_at = list(state["history"]), state["looked_at"]
