"""Several stores in one batch, mixed by explicit weights (multi-task pre-training)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visrep.data.batch import Batch
from visrep.data.sampler import Sampler
from visrep.errors import UserError


class MixedSampler:
    """Every sample of a batch draws its store by the weights; samples of one store stand together, in a fixed order.

    ATC's released code mixes by the number of environment columns that each data set happens to have. Here the weights
    are said.
    """

    def __init__(
        self,
        samplers: Sequence[Sampler],
        weights: Sequence[float],
        names: Sequence[str],
        generator: np.random.Generator | None = None,
    ) -> None:
        """Check that the stores fit together.

        Args:
            samplers: one per store, with equal specs, batch sizes and frame stacks; each keeps its own generator.
            weights: one positive number per store, in any scale.
            names: of the stores (their folders), for messages.
            generator: decides how many samples each store gives; None takes a fresh one.

        Raises:
            UserError: wrong weights; stores with different images, or with different actions or side channels where
                the spec asks for these.
        """
        if len(weights) != len(samplers) or not all(np.isfinite(w) and w > 0 for w in weights):
            raise UserError(
                f"{len(samplers)} stores need as many positive weights, got {list(weights)}; leave a store out instead "
                "of giving it weight 0"
            )
        first = samplers[0]
        for sampler, name in zip(samplers, names, strict=True):
            if (sampler.spec, sampler.batch_size, sampler.frame_stack, sampler.store.device) != (
                (first.spec, first.batch_size, first.frame_stack, first.store.device)
            ):
                raise ValueError("mixed samplers need equal specs, batch sizes, frame stacks and devices")
            _require_alike(first, names[0], sampler, name)
        self.samplers = list(samplers)
        self.weights = np.asarray(weights, np.float64) / float(np.sum(weights))
        self.names = list(names)
        self.generator = np.random.default_rng() if generator is None else generator
        self.spec = first.spec
        self.batch_size = first.batch_size
        self.frame_stack = first.frame_stack
        self.discount = first.discount

    def sample(self) -> Batch:
        """One batch; see ``Sampler.sample``.

        Raises:
            UserError: batch larger than data; names the store.
        """
        counts = self.generator.multinomial(self.batch_size, self.weights)
        memory = self.samplers[0].image_buffer(self.batch_size)
        parts, done = [], 0
        for sampler, name, count in zip(self.samplers, self.names, counts.tolist()):
            if count:
                out = None if memory is None else memory[done : done + count]
                try:
                    anchors = sampler.anchors.draw(sampler.generator, count)
                except UserError as error:
                    raise UserError(f"{name}: {error}") from error
                parts.append(sampler.cut(*anchors, out=out))
                done += count
        first = parts[0]
        return Batch(
            images=[] if memory is None else [memory.flatten(2, 3)],
            offsets=first.offsets,
            valid=torch.cat([part.valid for part in parts]),
            fields={name: torch.cat([part.fields[name] for part in parts]) for name in first.fields},
            n_step_return=_joined([part.n_step_return for part in parts]),
            n_step_discount=_joined([part.n_step_discount for part in parts]),
            image_offsets=first.image_offsets,
        )

    def state_dict(self) -> dict[str, Any]:
        """State of all random generators, as JSON values."""
        return {
            "mixture": dict(self.generator.bit_generator.state),
            "samplers": [sampler.state_dict() for sampler in self.samplers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the random sequence of ``state_dict``."""
        self.generator.bit_generator.state = state["mixture"]
        for sampler, part in zip(self.samplers, state["samplers"], strict=True):
            sampler.load_state_dict(part)


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there) if there else None


def _require_alike(first: Sampler, first_name: str, other: Sampler, other_name: str) -> None:
    a, b = first.store.spec, other.store.spec
    fields = first.spec.fields
    pairs: list[tuple[str, Any, Any]] = []
    if "image" in fields:
        pairs.append(("images", _text(a.frame_shape, a.frame_dtype), _text(b.frame_shape, b.frame_dtype)))
    if "action" in fields:
        pairs.append(("actions", a.actions, b.actions))
    pairs += [(name, a.side[name], b.side[name]) for name in sorted(fields & set(a.side))]
    for what, one, two in pairs:
        if one != two:
            fix = "use an objective without actions, or mix" if what == "actions" else "mix"
            raise UserError(
                f"stores with different {what} cannot be mixed: {first_name} has {one}, {other_name} has {two}; {fix} "
                f"only stores with equal {what}"
            )


def _text(shape: tuple[int, int, int], dtype: str) -> str:
    channels, height, width = shape
    return f"{channels} x {height} x {width} {dtype}"
