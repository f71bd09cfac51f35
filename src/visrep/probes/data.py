"""What a probe looks at: rows of a store, drawn once, split by episode into train, val and test.

Everything belongs to row t: its image, state, reward, the action that led to it, and the row before it. First rows of
episodes are therefore left out. Neighbouring frames are nearly equal, so a split by row would let a probe look up its
answers; whole episodes go to one side.

Shapes: N samples (train, then val, then test), K state values, T factors, S frame stack, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visrep.data.actions import ActionSpec
from visrep.data.anchors import Anchors, Window
from visrep.data.batch import BatchSpec
from visrep.data.columns import Index
from visrep.data.sampler import Sampler
from visrep.data.store import FrameStore
from visrep.errors import UserError

SHARES = (0.7, 0.1, 0.2)  # of the episodes: train, val, test
FEWEST_EPISODES = 5
FEWEST_TRAIN_ROWS = 20
NEAR_CONSTANT = 1e-6  # variance below which a factor is no target
CHUNK = 128  # images cut at a time


@dataclass(frozen=True)
class Split:
    """How many of the N samples are train, val and test, in this order."""

    train: int
    val: int
    test: int

    @property
    def total(self) -> int:
        """N."""
        return self.train + self.val + self.test

    @property
    def vals(self) -> slice:
        """Rows to choose settings on."""
        return slice(self.train, self.train + self.val)

    @property
    def tests(self) -> slice:
        """Rows to report."""
        return slice(self.train + self.val, self.total)


@dataclass(frozen=True)
class Factors:
    """Physical quantities to be read out of features.

    Attributes:
        values: float64 [N, T].
        names: of the T factors.
        excluded: names of those left out because they hardly vary (variance below 1e-6 on train or test).
    """

    values: Tensor
    names: list[str]
    excluded: list[str]


def split_episodes(episodes: Index, generator: np.random.Generator) -> tuple[Index, Index, Index]:
    """Shuffle distinct episode ids [E] and cut them 70/10/20, with at least one for val and two for test.

    Raises:
        UserError: fewer than 5 episodes.
    """
    ids = generator.permutation(np.unique(episodes))
    if len(ids) < FEWEST_EPISODES:
        raise UserError(
            f"too few episodes: the probes split by episode and need at least {FEWEST_EPISODES}, but the data have "
            f"{len(ids)}; collect more episodes"
        )
    tests, vals = max(2, round(SHARES[2] * len(ids))), max(1, round(SHARES[1] * len(ids)))
    return ids[tests + vals :], ids[tests : tests + vals], ids[:tests]


class ProbeData:
    """Rows of one store, chosen for probing.

    Attributes:
        split: how many rows are train, val, test.
        episodes: episode of each row, [N].
        episode_counts: distinct episodes in train, val, test.
        factors: targets from the side channel "state", None where the store has none.
        factors_before: the same quantities in the rows before, float64 [N, T]; None without state.
        action: the stored action that led to each row, [N, A]; None where the store has none.
        reward: that came with each row, float64 [N]; None where the store has none.
    """

    def __init__(
        self, store: FrameStore, samples: int, stack: int, seed: int, manifest: Mapping[str, Any] | None = None
    ) -> None:
        """Draw the rows.

        Args:
            store: with at least 5 episodes.
            samples: train rows; val and test get 1/7 and 2/7 of this. Fewer where the store has fewer.
            stack: the longest frame stack that will be asked for.
            seed: of the split and the draw.
            manifest: of the dataset. It, or the environment's fingerprint in it, may hold "state_names" (K texts) and
                "angles": indices of state values that are angles in radians, which become sine and cosine.

        Raises:
            UserError: too few episodes or rows.
        """
        self.store = store
        anchors = Anchors(store, Window(-1, 0, stack), 1)
        lanes, rows = store.rings.locate(anchors.all())
        steps = store.episode_steps[store.rings.positions(lanes, rows)].astype(np.int64)
        # An episode is known by its lane and the row number where it began.
        ids = np.unique(np.stack([lanes, rows - steps], axis=1), axis=0, return_inverse=True)[1].reshape(-1)
        generator = np.random.default_rng(seed)
        parts = split_episodes(ids, generator)
        chosen = [
            _draw(np.flatnonzero(np.isin(ids, part)), round(samples * share / SHARES[0]), generator)
            for part, share in zip(parts, SHARES, strict=True)
        ]
        self.split = Split(*(len(part) for part in chosen))
        if self.split.train < FEWEST_TRAIN_ROWS or not self.split.val or not self.split.test:
            remedy = "raise samples=" if samples < FEWEST_TRAIN_ROWS else "collect more steps"
            raise UserError(
                f"too few rows to probe: {self.split.train} for training, {self.split.val} to choose settings on, "
                f"{self.split.test} to test on; {remedy}"
            )
        order = np.concatenate(chosen)
        self.lanes, self.rows, self.episodes = lanes[order], rows[order], ids[order]
        self.episode_counts = tuple(len(np.unique(self.episodes[part])) for part in self._parts())
        reward, self.action = self._read("reward"), self._read("action")
        self.reward = None if reward is None else reward[:, 0].double()
        self.factors, self.factors_before = self._factors(manifest or {})

    def _parts(self) -> tuple[slice, slice, slice]:
        return slice(0, self.split.train), self.split.vals, self.split.tests

    def _read(self, name: str) -> Tensor | None:
        if name not in self.store.spec.provides:
            return None
        return torch.from_numpy(self.store.read(name, self.lanes, self.rows))

    @property
    def actions(self) -> ActionSpec | None:
        """What the actions are; None where the store has none."""
        return self.store.spec.actions

    def images(self, stack: int, offset: int = 0, rows: Index | None = None) -> Iterator[Tensor]:
        """Stacked frames of the N rows (or of the given ones of them), in order, [n, S*C, H, W], chunk by chunk.

        Args:
            stack: S.
            offset: 0 for the rows themselves, -1 for the rows before them.
            rows: indices into the N samples.
        """
        spec = BatchSpec(offsets=(offset,), fields=frozenset({"image"}))
        sampler = Sampler(self.store, spec, CHUNK, stack)
        wanted = np.arange(self.split.total) if rows is None else rows
        for start in range(0, len(wanted), CHUNK):
            part = wanted[start : start + CHUNK]
            yield sampler.cut(self.lanes[part], self.rows[part]).image(offset)

    def _factors(self, manifest: Mapping[str, Any]) -> tuple[Factors | None, Tensor | None]:
        if "state" not in self.store.spec.side:
            return None, None
        now, before = (self.store.read("state", self.lanes, self.rows - back) for back in (0, 1))
        values, names = state_factors(now, manifest)
        earlier, _ = state_factors(before, manifest)
        varies = (values[: self.split.train].var(0) >= NEAR_CONSTANT) & (
            values[self.split.tests].var(0) >= NEAR_CONSTANT
        )
        kept = np.flatnonzero(varies)
        excluded = [names[index] for index in np.flatnonzero(~varies)]
        factors = Factors(torch.from_numpy(values[:, kept]), [names[index] for index in kept], excluded)
        return (factors if len(kept) else None), torch.from_numpy(earlier[:, kept])


def state_names(manifest: Mapping[str, Any]) -> list[str]:
    """What the manifest, or the environment's fingerprint in it, calls the K state values; empty where it does not."""
    return list(_about(manifest).get("state_names") or ())


def _about(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {**(manifest.get("environment") or {}), **manifest}


def state_factors(
    state: NDArray[np.floating[Any]], manifest: Mapping[str, Any]
) -> tuple[NDArray[np.float64], list[str]]:
    """Privileged state [N, ...] as named factors float64 [N, T]; angles as sine and cosine.

    Raises:
        UserError: the manifest's "state_names" or "angles" do not fit the state.
    """
    flat = np.asarray(state, np.float64).reshape(len(state), -1)
    width = flat.shape[1]
    names = state_names(manifest) or [f"state[{index}]" for index in range(width)]
    angles = {int(index) for index in _about(manifest).get("angles") or ()}
    if len(names) != width or any(not 0 <= index < width for index in angles):
        raise UserError(
            f"the dataset's state has {width} values, but its manifest names {len(names)} (state_names) and the angles "
            f"{sorted(angles)}: mend or remove these entries of dataset.json"
        )
    columns: list[NDArray[np.float64]] = []
    labels: list[str] = []
    for index, name in enumerate(names):
        value = flat[:, index]
        columns += [np.sin(value), np.cos(value)] if index in angles else [value]
        labels += [f"sin {name}", f"cos {name}"] if index in angles else [name]
    return np.stack(columns, axis=1), labels


def _draw(candidates: Index, count: int, generator: np.random.Generator) -> Index:
    """``count`` of the candidates without replacement, or all of them, in random order."""
    return generator.permutation(candidates)[: max(count, 1)]
