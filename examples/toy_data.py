"""What the example scripts share: toy episodes in a store, batches, read-outs of an encoder, options, the table.

Not a framework: a thin layer over visrep's pieces, of which a script on your own data keeps what it needs.
Shapes: E environments, S frame stack, A action, N positions.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from visrep.augment import parse_augmentation
from visrep.data.actions import ActionSpec
from visrep.data.batch import Batch, BatchSpec
from visrep.data.sampler import Sampler
from visrep.data.store import FrameStore, StoreSpec
from visrep.encoders import Encoder, InputContract
from visrep.envs.contract import Observation
from visrep.envs.vector import EnvSpec, FirstRows, VectorEnv, VectorStep
from visrep.objectives import Objective
from visrep.objectives.parts.decoder import Decoder
from visrep.runs.acting import FrameStacker, random_actions
from visrep.runs.coverage import Coverage
from visrep.runs.probing import draw_probe
from visrep.runs.update import augmented

LANES = 16  # E
STACK = 3  # S, where a script does not choose
UNSEEN = 1_000_000  # added to a seed: episodes that nothing is trained on


class ToyWorld:
    """E toy arenas, the newest frames of each, and a store that gets a row for every agent step.

    Args:
        task: of the suite ``toy``, for example "maze".
        seed: of the episodes, of random actions and of the batches.
        action_repeat: environment frames per agent step; with 4 even random actions come through the maze.
        stack: S.
        observation: "state" for vectors in the place of images of 24x24 pixels.
    """

    def __init__(
        self, task: str, seed: int, action_repeat: int = 1, stack: int = STACK, observation: Observation = "pixels"
    ) -> None:
        self.spec = EnvSpec(f"toy/{task}", 24, action_repeat, observation=observation)
        self.envs = VectorEnv(self.spec, LANES, seed)
        self.actions = ActionSpec(self.envs.action_dim)
        (channels, height, width), dtype = self.envs.frame_shape, self.envs.frame_dtype
        self.contract = InputContract(height, width, channels, stack)
        self.stacker = FrameStacker(LANES, self.envs.frame_shape, stack, dtype)
        # The true position is kept beside the frames for read-outs and coverage; nothing learns from it.
        spec = StoreSpec(self.envs.frame_shape, self.actions, {"state": (self.envs.state_dim,)}, dtype)
        self.store = FrameStore(spec, capacity=50_000, lanes=LANES)
        arena: Any = self.spec.make()
        self._cell_of = arena.coverage_cells
        self.coverage = Coverage(self.envs.state_dim, self.envs.num_cells, self._cell_of)
        self.states = np.zeros((LANES, self.envs.state_dim), np.float32)  # newest position in each arena
        self.generator = np.random.default_rng(seed)
        self.agent_step = 0
        self._begin(self.envs.reset())

    def step(self, actions: NDArray[np.float32] | None = None) -> VectorStep:
        """One agent step of every arena, into the store; actions [E, A], None for uniformly random ones."""
        if actions is None:
            actions = random_actions(LANES, self.actions.dim, self.generator)
        step = self.envs.step(actions)
        no, side = np.zeros(LANES, bool), self._side(step)
        self.stacker.push(step.lanes, step.frames)
        self.store.add(step.lanes, step.frames, actions, step.reward, no, step.terminal, step.is_last, side)
        if step.reset is not None:  # episodes are over: the first rows of the next ones come at once
            self._begin(step.reset)
        self.agent_step += LANES
        return step

    def _begin(self, first: FirstRows) -> None:
        """First rows of episodes."""
        self.stacker.begin(first.lanes, first.frames)
        self.store.begin(first.lanes, first.frames, self._side(first))

    def _side(self, rows: VectorStep | FirstRows) -> dict[str, NDArray[np.floating[Any]]]:
        assert rows.state is not None, "the toy shows its state"
        self.coverage.visit(rows.state)
        self.states[rows.lanes] = rows.state
        return {"state": rows.state}

    def sampler(self, spec: BatchSpec, batch_size: int, discount: float = 0.95) -> Sampler:
        """Random batches of what the store holds at the time; ``discount`` matters to n-step returns alone."""
        return Sampler(self.store, spec, batch_size, self.contract.stack, discount, self.generator)

    @property
    def cells(self) -> float:
        """Share of the arena's cells that were visited so far, in per cent."""
        return 100.0 * self.coverage.metrics()["state_coverage"]

    def visits(self, states: NDArray[np.float32]) -> torch.Tensor:
        """How often the cells of these positions [N, 2] were visited so far, int64 [N]."""
        cells = self._cell_of(states)
        return torch.from_numpy(np.where(cells >= 0, self.coverage.counts[cells], 1))  # beside a wall: no cell


def random_world(task: str, seed: int, agent_steps: int, action_repeat: int = 1, stack: int = STACK) -> ToyWorld:
    """A world in which uniformly random actions were taken for ``agent_steps``."""
    world = ToyWorld(task, seed, action_repeat, stack)
    while world.agent_step < agent_steps:
        world.step()
    return world


def batches(
    world: ToyWorld, objective: Objective, count: int, augment: str = "none", batch_size: int = 64
) -> Iterator[Batch]:
    """``count`` batches as the objective needs them: its offsets and fields, its number of augmented views."""
    spec, draws = objective.needs(), torch.Generator().manual_seed(int(world.generator.integers(2**31)))
    change = None if augment == "none" else parse_augmentation(augment, world.envs.frame_shape[0])
    sampler = world.sampler(spec, batch_size)
    for _ in range(count):
        yield augmented(sampler.sample(), change, draws, spec.views)


@torch.no_grad()
def begin_with_mean_colour(decoder: Decoder, world: ToyWorld, output: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Let a decoder paint the mean colour of 256 images from the start, by its last bias.

    Otherwise the first hundreds of updates paint the floor, and Adam, used to their large gradients, then takes too
    small steps for the point to be found soon. Classifiers are given the classes' frequencies for the same reason.

    Args:
        decoder: of an objective.
        world: of the images.
        output: what the decoder is to give for a grey level in 0..1.
    """
    images = world.sampler(BatchSpec(), batch_size=256).sample().image(0)  # [B, S*C, H, W]
    last = decoder.deconvs[-1]
    assert isinstance(last, torch.nn.ConvTranspose2d) and last.bias is not None
    last.bias.copy_(output(images.float().mean(dim=(0, 2, 3)) / 255.0))


def train(objective: Objective, given: Iterable[Batch], lr: float = 1e-3) -> None:
    """The plain loop: loss, gradient, step, and whatever the objective moves after it (EMA copies)."""
    optimizer = torch.optim.Adam([*objective.encoder.parameters(), *objective.parameters()], lr)
    for batch in given:
        loss = objective(batch)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        objective.after_update()


@torch.no_grad()
def measured(objective: Objective, given: Iterable[Batch]) -> dict[str, float]:
    """Mean of each named part of the loss over the batches, without learning from them."""
    parts = [objective(batch).parts for batch in given]
    return {name: float(torch.stack([part[name] for part in parts]).mean()) for name in parts[0]}


@torch.no_grad()
def future_found(encoder: Encoder, world: ToyWorld, ahead: int = 1) -> float:
    """Share of 256 observations whose features, of all observations ``ahead`` steps later, are most like their own.

    By cosine of features without their mean; guessing finds 1 in 256.
    """
    batch = world.sampler(BatchSpec((0, ahead)), batch_size=256).sample()
    now, later = (encoder(batch.image(offset)) for offset in (0, ahead))  # [B, D] each
    now, later = (F.normalize(features - features.mean(0), dim=1) for features in (now, later))
    return float(((now @ later.T).argmax(1) == torch.arange(len(now))).float().mean())


def position(encoder: Encoder, world: ToyWorld) -> dict[str, float]:
    """Live probe on 512 images of a world: ``probe_state_r2`` of a linear read-out of (x, y), ``probe_rankme``, ..."""
    probe = draw_probe([world.store], world.contract.stack, None, torch.device("cpu"))
    assert probe is not None, "a store of 64 images at least"
    return probe(encoder)


def options(doc: str | None, **defaults: int) -> argparse.Namespace:
    """The script's docstring as help and one whole-number option per keyword, beside ``--seed``; seeds torch."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {**defaults, "seed": 1}.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help=f"default {value}")
    args = parser.parse_args()
    torch.set_num_threads(1)  # images this small keep one core busy; more threads would wait for each other
    torch.manual_seed(args.seed)
    return args


def table(columns: Sequence[str], rows: Mapping[str, Sequence[float | str]]) -> None:
    """Print a row per name under the columns' heads."""
    lines = {name: [v if isinstance(v, str) else f"{v:.3g}" for v in values] for name, values in rows.items()}
    first = max(map(len, lines))
    widths = [max(map(len, column)) for column in zip(columns, *lines.values(), strict=True)]
    for name, texts in {"": columns, **lines}.items():
        print(name.ljust(first), *(text.rjust(width) for text, width in zip(texts, widths)), sep="  ")
