"""One method, one file, one class: what a representation objective is, and what it may additionally offer.

Shapes: B batch, D features, A action, E whatever an objective compares novelty in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict
from torch import Generator, Tensor, nn

from visrep.data.actions import ActionSpec
from visrep.data.batch import Batch, BatchSpec
from visrep.encoders.contract import Encoder
from visrep.registry import Registry


class ObjectiveConfig(BaseModel):
    """Base of a method's own settings; they are top-level keys on the command line."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Loss(NamedTuple):
    """What one forward pass of an objective returns.

    Attributes:
        total: 0-d tensor to back-propagate.
        parts: named 0-d detached tensors for the log, never read inside the step.
        outputs: named tensors that diagnostics or the policy may reuse.
    """

    total: Tensor
    parts: dict[str, Tensor] = {}  # noqa: RUF012  (read-only default of a NamedTuple)
    outputs: dict[str, Tensor] = {}  # noqa: RUF012


@dataclass(frozen=True)
class Transition:
    """Features around one action, all without gradient.

    Attributes:
        features: [B, D] of the observation before the action.
        action: [B, A], encoded (one-hot where discrete).
        next_features: [B, D] of the observation after it (n steps after it with n-step returns).
    """

    features: Tensor
    action: Tensor
    next_features: Tensor


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that one Adam of their own steps. A parameter may be in several groups: each of them steps it.

    Attributes:
        name: of the optimiser, in the run's state.
        parameters: what it steps.
        weight_decay: L2 term added to the gradient.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    weight_decay: float = 0.0


class Objective(nn.Module):
    """A representation-learning method: the batch it needs, its loss, what happens after a step.

    It owns its heads and target copies. It does not own the encoder (``parameters()`` leaves it out), an optimiser,
    a loop, a logger or a device; it never calls ``backward`` or ``item``.
    """

    name: ClassVar[str]
    Config: ClassVar[type[ObjectiveConfig]]
    trains_encoder: ClassVar[bool] = True  # False: its loss sends the encoder no gradient (RND)
    augmented: ClassVar[bool] = True  # False: it takes images as they are (reconstruction), whatever the policy sees
    turn: ClassVar[Literal["before policy", "after policy"]] = "before policy"  # its step, within one update

    def __init__(self, encoder: Encoder, actions: ActionSpec) -> None:
        super().__init__()
        # A tuple hides the encoder from nn.Module's registration: it is shared, not owned.
        self._shared = (encoder,)
        self.actions = actions

    @property
    def encoder(self) -> Encoder:
        """The shared encoder that this objective trains."""
        return self._shared[0]

    def needs(self) -> BatchSpec:
        """The batch that ``forward`` takes."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Loss:
        """Loss of one augmented batch that lies on the right device."""
        raise NotImplementedError

    def parameter_groups(self, train_encoder: bool) -> list[ParameterGroup]:
        """What its optimisers step: by default one of them, over the encoder (if it is to train it) and the heads.

        Args:
            train_encoder: False leaves the encoder out; the heads then follow features that others move.
        """
        encoder = list(self.encoder.parameters()) if train_encoder else []
        return [ParameterGroup("objective", [*encoder, *(p for p in self.parameters() if p.requires_grad)])]

    def after_update(self) -> None:
        """Move EMA copies after the optimiser's step. Default: nothing."""

    def diagnostics(self) -> dict[str, Tensor]:
        """Named 0-d tensors about the objective's state (e.g. prototype usage entropy), for the log. Default: none."""
        return {}


@runtime_checkable
class Novelty(Protocol):
    """An objective that pays exploration. Values are pure; what changes state is explicit.

    A caller does, in this order and without gradient: ``e = embed(transition)``, ``remember(e, generator)``,
    ``reward = novelty(e)``.
    """

    def embed(self, transition: Transition) -> Tensor:
        """What novelty is judged by, [B, E] (unit projections, prediction errors, ...). Pure."""
        ...

    def remember(self, embedding: Tensor, generator: Generator | None = None) -> None:
        """Take a batch into the memory (queue, running moments) that ``novelty`` compares with."""
        ...

    def novelty(self, embedding: Tensor) -> Tensor:
        """Intrinsic reward [B, 1]. Pure: calling it twice gives the same answer."""
        ...


@runtime_checkable
class Paints(Protocol):
    """An objective with a decoder: its pictures can be looked at beside what they should show."""

    def needs(self) -> BatchSpec:
        """The batch that ``painted`` takes, as ``Objective.needs``."""
        ...

    def painted(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the decoder was to paint of a batch and what it paints, [B, S*C, H, W] in 0..255 each; no noise."""
        ...


@runtime_checkable
class UsesProjection(Protocol):
    """An objective on the projection (Linear, LayerNorm) that a critic puts on the encoder's features (CURL, SAC-AE).

    It has one of its own until it is given the critic's; then both losses train the same module.
    """

    def share_projection(self, projection: nn.Module) -> None:
        """Use the critic's projection, [B, D] to [B, F], from now on; it is no longer owned (nor in its state)."""
        ...

    def lacks_projection(self, state: Mapping[str, Tensor]) -> bool:
        """Whether a state dict of such an objective was written while it used a critic's projection."""
        ...


@runtime_checkable
class HasPrototypes(Novelty, Protocol):
    """A ``Novelty`` that compares its embeddings with prototypes, by cosine."""

    prototypes: Tensor  # [K, E]


OBJECTIVES: Registry[Objective] = Registry("objective")  # by the value of the key ``method``


def build_objective(name: str, encoder: Encoder, actions: ActionSpec, config: ObjectiveConfig) -> Objective:
    """Make an objective on a shared encoder; UserError where no method has that name."""
    arguments: dict[str, Any] = {"encoder": encoder, "actions": actions, "config": config}
    return OBJECTIVES.find(name)(**arguments)
