"""Cuts a BatchSpec out of a FrameStore: stacks frames, keeps inside episodes, adds n-step returns.

Shapes: B batch, T offsets, S frame stack, C colour channels, H W pixels.
"""

from __future__ import annotations

import copy
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visrep.data.anchors import Anchors, Window
from visrep.data.batch import Batch, BatchSpec
from visrep.data.columns import Index
from visrep.data.pool import BufferPool
from visrep.data.priority import PriorityAnchors, RewardPriority
from visrep.data.store import FrameStore


class Sampler:
    """Random batches, uniform unless priorities are given.

    Anchor: the row of the observation o_t; offset 1 is what the next action led to.

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
        stack_padding: Literal["repeat", "zero"] = "repeat",
        priority: RewardPriority | None = None,
    ) -> None:
        """Check that the store provides what the spec asks for.

        Args:
            store: rows to sample from.
            spec: the window around each anchor.
            batch_size: B.
            frame_stack: S frames per image, oldest first.
            discount: per agent step, for n-step returns.
            generator: the only source of randomness; None takes a fresh one.
            pin_memory: put images into page-locked memory (for asynchronous copies to a GPU).
            stack_padding: what stands before an episode's first frame: that frame again, or zeros (Atari).
            priority: draw anchors by the reward that follows, without replacement; None (or alpha = 0) is uniform.

        Raises:
            UserError: the store lacks a field.
        """
        spec.check(store.spec.provides, "the replay store", "this batch")
        self.store = store
        self.spec = spec
        self.batch_size = batch_size
        self.frame_stack = frame_stack
        self.discount = discount
        self.generator = np.random.default_rng() if generator is None else generator
        self.stack_padding = stack_padding
        self._pool = None if pin_memory or store.device.type != "cpu" else BufferPool()
        self._pin_memory = pin_memory and store.device.type == "cpu"
        self._offsets = np.asarray(spec.offsets, np.int64)
        self._image_columns = [spec.offsets.index(offset) for offset in spec.images_at]
        self.anchors = self._strategy(priority)

    def _strategy(self, priority: RewardPriority | None) -> Anchors:
        low, high = min(0, *self.spec.offsets), max(0, *self.spec.offsets)
        reach = (0, self.spec.n_step) if self.spec.crossing == "mask" else (low, high)
        window = Window(*reach, self.frame_stack)
        if priority is None or priority.alpha == 0:
            return Anchors(self.store, window, self.batch_size)
        return PriorityAnchors(self.store, window, self.batch_size, priority, reach=high)

    def sample(self) -> Batch:
        """One batch on the store's device. Its tensors are the caller's for as long as it keeps them.

        Returns:
            Batch with images: one view [B, I, S*C, H, W] of the frame dtype (none if "image" is not in the spec;
            further views are the augmentation's to make), reward float32 [B, T, 1], terminal bool [B, T, 1],
            action [B, T, A], side channels [B, T, ...], valid bool [B, T].

        Raises:
            UserError: batch larger than data.
        """
        lanes, anchors = self.anchors.draw(self.generator)
        return self.cut(lanes, anchors)

    def image_buffer(self, count: int) -> Tensor | None:
        """Memory for the images of ``count`` samples, [count, I, S, C, H, W], not filled; None without images."""
        if "image" not in self.spec.fields:
            return None
        shape = (count, len(self._image_columns), self.frame_stack, *self.store.spec.frame_shape)
        dtype = self.store.columns["image"].values.dtype
        if self._pool is not None:
            return self._pool.take(shape, dtype)
        return torch.empty(shape, dtype=dtype, device=self.store.device, pin_memory=self._pin_memory)

    def cut(self, lanes: Index, anchors: Index, out: Tensor | None = None) -> Batch:
        """The batch around given valid anchors: row numbers [B] of ``lanes`` [B].

        ``out`` is memory of ``image_buffer``'s shape for the images; None takes fresh memory.
        """
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
        memory = self.image_buffer(len(anchors)) if out is None else out
        images = [] if memory is None else [self._images(lane, shown, step + shown - anchor, memory)]
        return Batch(images, self.spec.offsets, self._to_device(valid), fields, returns, discounts, self.spec.images_at)

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

    def _images(self, lane: Index, rows: Index, steps: Index, out: Tensor) -> Tensor:
        """Stacked frames of rows [B, I] that lie ``steps`` [B, I] after their episode's first row, put into ``out``."""
        back = np.arange(self.frame_stack - 1, -1, -1)  # oldest first
        sources = rows[..., None] - np.minimum(back, steps[..., None])  # [B, I, S]
        positions = self._to_device(self.store.rings.positions(lane[..., None], sources))
        self.store.gather("image", positions, out=out)
        if self.stack_padding == "zero" and (before := np.flatnonzero(back > steps[..., None])).size:
            out.flatten(0, 2).index_fill_(0, self._to_device(before), 0)
        return out.flatten(2, 3)  # [B, I, S*C, H, W]

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
