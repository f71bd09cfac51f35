"""Cuts a BatchSpec out of a FrameStore: stacks frames, keeps inside episodes, adds n-step returns.

Shapes: B batch, T offsets, S frame stack, C colour channels, H W pixels.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visrep.data.anchors import Anchors, Window
from visrep.data.batch import Batch, BatchSpec
from visrep.data.columns import Index
from visrep.data.pool import BufferPool
from visrep.data.store import FrameStore


class Sampler:
    """Uniform random batches. Anchor: the row of the observation o_t; offset 1 is what the next action led to.

    With ``crossing="forbid"`` the anchor's whole window lies inside one episode. With "mask" offsets that leave the
    episode (or the rows still stored) repeat its nearest row and are marked in ``valid``; the n-step part, if asked
    for, never leaves the episode in either case.
    """

    def __init__(
        self,
        store: FrameStore,
        spec: BatchSpec,
        batch_size: int,
        frame_stack: int,
        discount: float = 0.99,
        generator: np.random.Generator | None = None,
        pin_memory: bool = False,
    ) -> None:
        """Check that the store provides what the spec asks for.

        Args:
            store: rows to sample from.
            spec: the window around each anchor.
            batch_size: B.
            frame_stack: S frames per image, oldest first; the first frame is repeated at an episode's start.
            discount: per agent step, for n-step returns.
            generator: the only source of randomness; None takes a fresh one.
            pin_memory: put images into page-locked memory (for asynchronous copies to a GPU).
        """
        spec.check(store.spec.provides, "the replay store", "this batch")
        self.store = store
        self.spec = spec
        self.batch_size = batch_size
        self.frame_stack = frame_stack
        self.discount = discount
        self.generator = np.random.default_rng() if generator is None else generator
        self._pool = None if pin_memory or store.device.type != "cpu" else BufferPool()
        self._pin_memory = pin_memory and store.device.type == "cpu"
        self._offsets = np.asarray(spec.offsets, np.int64)
        self._image_columns = [spec.offsets.index(offset) for offset in spec.images_at]
        reach = (0, spec.n_step) if spec.crossing == "mask" else (min(0, *spec.offsets), max(0, *spec.offsets))
        self.anchors = Anchors(store, Window(*reach, frame_stack), batch_size)

    def sample(self) -> Batch:
        """One batch on the store's device. Its tensors are the caller's for as long as it keeps them.

        Returns:
            Batch with images [uint8 [B, I, S*C, H, W]] (empty list if "image" is not in the spec), reward float32
            [B, T, 1], terminal bool [B, T, 1], action [B, T, A], side channels [B, T, ...], valid bool [B, T].

        Raises:
            UserError: batch larger than data.
        """
        lanes, anchors = self.anchors.draw(self.generator)
        return self.cut(lanes, anchors)

    def cut(self, lanes: Index, anchors: Index) -> Batch:
        """The batch around given valid anchors: row numbers [B] of ``lanes`` [B]."""
        rings = self.store.rings
        lane, anchor = lanes[:, None], anchors[:, None]  # [B, 1]
        step = self.store.episode_steps[rings.positions(lane, anchor)].astype(np.int64)
        rows = anchor + self._offsets  # [B, T]
        valid = np.ones(rows.shape, bool)
        if self.spec.crossing == "mask":
            nearest = np.clip(rows, *self._reach(lane, anchor, step))
            valid, rows = rows == nearest, nearest
        positions = self._to_device(rings.positions(lane, rows))
        fields = {name: self.store.gather(name, positions) for name in sorted(self.spec.fields - {"image"})}
        returns, discounts = self._n_step(lane, anchor) if self.spec.n_step else (None, None)
        shown = rows[:, self._image_columns]  # [B, I]
        images = [self._images(lane, shown, step + shown - anchor)] if "image" in self.spec.fields else []
        return Batch(
            images, self.spec.offsets, self._to_device(valid), fields, returns, discounts, self.spec.images_at
        )

    def state_dict(self) -> dict[str, Any]:
        """State of the random generator, as JSON values."""
        return copy.deepcopy(dict(self.generator.bit_generator.state))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the random sequence of ``state_dict``."""
        self.generator.bit_generator.state = copy.deepcopy(state)

    def _to_device(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(self.store.device, non_blocking=True)

    def _reach(self, lane: Index, anchor: Index, step: Index) -> tuple[Index, Index]:
        """First and last row number of the anchor's episode that can be shown with its whole stack, [B, 1] each."""
        rings, steps = self.store.rings, self.store.episode_steps
        start = rings.starts[lane]
        # Rows of an episode whose beginning was overwritten have their whole stack from stack - 1 rows on.
        cut_off = anchor - step < start
        first = np.where(cut_off, start + self.frame_stack - 1, anchor - step)
        ahead = np.arange(1, max(self._offsets.max(), 0) + 1)
        rows = anchor + ahead  # [B, highest offset]
        inside = (rows < rings.counts[lane]) & (steps[rings.positions(lane, rows)] == step + ahead)
        return first, anchor + inside.sum(axis=1, keepdims=True)

    def _images(self, lane: Index, rows: Index, steps: Index) -> Tensor:
        """Stacked frames of rows [B, T] that lie ``steps`` [B, T] after their episode's first row."""
        back = np.arange(self.frame_stack - 1, -1, -1)  # oldest first
        sources = rows[..., None] - np.minimum(back, steps[..., None])  # [B, T, S]
        positions = self._to_device(self.store.rings.positions(lane[..., None], sources))
        channels, *size = self.store.spec.frame_shape
        shape = (*positions.shape, channels, *size)
        if self._pool is not None:
            out = self._pool.take(shape)
        else:
            out = torch.empty(shape, dtype=torch.uint8, device=self.store.device, pin_memory=self._pin_memory)
        self.store.gather("image", positions, out=out)
        return out.view(*rows.shape, self.frame_stack * channels, *size)  # [B, T, S*C, H, W]

    def _n_step(self, lane: Index, anchor: Index) -> tuple[Tensor, Tensor]:
        """Return and discount, [B, 1] each: R = sum_i w_i r_{t+1+i}, w_0 = 1, w_{i+1} = w_i g (1 - terminal_{t+1+i}).

        The discount is w_n (DrQ-v2's replay buffer).
        """
        rows = anchor + np.arange(1, self.spec.n_step + 1)  # [B, n]
        positions = self._to_device(self.store.rings.positions(lane, rows))
        rewards = self.store.gather("reward", positions)  # [B, n, 1]
        going_on = ~self.store.gather("terminal", positions)
        returns = torch.zeros_like(rewards[:, 0])
        weight = torch.ones_like(returns)
        for i in range(self.spec.n_step):
            returns = returns + weight * rewards[:, i]
            weight = weight * self.discount * going_on[:, i]
        return returns, weight
