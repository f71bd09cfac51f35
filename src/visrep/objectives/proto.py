"""Proto-RL: prototypes learned by self-labelling, and exploration towards rows far from recent ones.

Yarats, Fergus, Lazaric, Pinto: "Reinforcement Learning with Prototypical Representations", ICML 2021.
Shapes: B batch, D features, E projection, K prototypes, Q queue rows, A action.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from visrep.data.actions import ActionSpec
from visrep.data.batch import Batch, BatchSpec
from visrep.encoders.contract import Encoder
from visrep.exploration.knn import kth_distance
from visrep.initialisation import orthogonal_init
from visrep.objectives.contract import OBJECTIVES, Loss, Objective, ObjectiveConfig, Transition
from visrep.objectives.parts.ema import ema_, frozen_copy
from visrep.objectives.parts.heads import mlp
from visrep.objectives.parts.sinkhorn import sinkhorn
from visrep.precision import at_least_float32, without_autocast


class ProtoConfig(ObjectiveConfig):
    """Settings of Proto-RL, with the published code's names and defaults."""

    proj_dim: int = Field(128, ge=1, description="dimension of projections and prototypes")
    pred_dim: int = Field(512, ge=1, description="hidden units of the predictor")
    T: float = Field(0.1, gt=0, description="softmax temperature of the representation loss")
    num_protos: int = Field(512, ge=1, description="number of prototypes")
    num_iters: int = Field(3, ge=1, description="Sinkhorn sweeps (the published code always does 3)")
    topk: int = Field(3, ge=1, description="the intrinsic reward is the distance to this nearest neighbour")
    queue_size: int = Field(2048, ge=1, description="remembered projections; a multiple of num_protos")
    encoder_target_tau: float = Field(0.05, ge=0, le=1, description="EMA rate of the target encoder and projector")
    sinkhorn_temperature: float | None = Field(None, gt=0, description="temperature of the targets; none ties it to T")
    candidate_temperature: float | None = Field(
        None, gt=0, description="softmax temperature when rows are drawn for the queue; none is the published code's: 1"
    )

    @model_validator(mode="after")
    def _queue_holds_whole_blocks(self) -> ProtoConfig:
        if self.queue_size % self.num_protos:
            below = self.queue_size // self.num_protos * self.num_protos
            fitting = " or ".join(str(size) for size in (below, below + self.num_protos) if size)
            raise ValueError(
                f"queue_size={self.queue_size} is not a multiple of num_protos={self.num_protos}: every update writes "
                f"one row per prototype into the queue; the nearest sizes that fit are {fitting}"
            )
        if self.topk > self.queue_size:
            raise ValueError(f"topk={self.topk} neighbours cannot be found among queue_size={self.queue_size} rows")
        return self


def prototype_loss(
    online: Tensor,
    target: Tensor,
    prototypes: Tensor,
    temperature: float,
    sinkhorn_temperature: float | None = None,
    num_iters: int = 3,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy between balanced targets and predicted assignments (Proto-RL; spec of the loss in docs/methods).

    Args:
        online: [B, E] predictions v(g(f(o_t))), not normalised; carries gradient.
        target: [B, E] projections g'(f'(o_{t+1})) of the EMA networks, not normalised; no gradient is taken.
        prototypes: [K, E] of unit length; carries gradient (from the online side only).
        temperature: T.
        sinkhorn_temperature: temperature of the targets; None means T.
        num_iters: Sinkhorn sweeps.

    Returns:
        The 0-d loss, and ``log_p`` [B, K], ``q`` [B, K], ``target_scores`` [B, K].
    """
    scores = F.normalize(online, dim=1) @ prototypes.T  # [B, K] cosines
    log_p = F.log_softmax(scores / temperature, dim=1)
    with torch.no_grad():
        target_scores = F.normalize(target, dim=1) @ prototypes.T  # [B, K]
        q = sinkhorn(target_scores, sinkhorn_temperature or temperature, num_iters)
    loss = -(q * log_p).sum(dim=1).mean()
    return loss, {"log_p": log_p, "q": q, "target_scores": target_scores}


def draw_candidates(
    embedding: Tensor, prototypes: Tensor, temperature: float | None, generator: Generator | None
) -> Tensor:
    """For every prototype one batch row, drawn from a softmax of its cosines over the *batch*: int64 [K].

    Args:
        embedding: [B, E] of unit length.
        prototypes: [K, E] of unit length.
        temperature: divides the cosines; None leaves them, which makes the draw nearly uniform.
        generator: source of the K uniform draws, on the device of ``embedding``.
    """
    scores = prototypes @ embedding.T  # [K, B]
    cumulative = F.softmax(scores / (temperature or 1.0), dim=1).cumsum(dim=1)
    # Inverting the cumulative sums needs K draws instead of K·B, and nothing is read on the host.
    uniform = torch.rand(len(prototypes), 1, generator=generator, device=scores.device, dtype=scores.dtype)
    rows = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True).squeeze(1)
    return rows.clamp_max_(len(embedding) - 1)


@OBJECTIVES.register("proto")
class ProtoObjective(Objective):
    """Proto-RL's representation loss, its EMA target, and its queue of remembered projections (a ``Novelty``)."""

    Config = ProtoConfig
    queue: Tensor
    queue_ptr: Tensor
    usage: Tensor

    def __init__(self, encoder: Encoder, actions: ActionSpec, config: ProtoConfig) -> None:
        super().__init__(encoder, actions)
        self.config = config
        self.projector = nn.Linear(encoder.feature_dim, config.proj_dim)
        self.predictor = mlp(config.proj_dim, config.pred_dim, config.proj_dim)
        orthogonal_init(self)
        self.prototypes = nn.Parameter(torch.empty(config.num_protos, config.proj_dim))
        nn.init.orthogonal_(self.prototypes)
        # The target is encoder and projector; predictor and prototypes have no copy.
        self.target_encoder = frozen_copy(encoder)
        self.target_projector = frozen_copy(self.projector)
        self.register_buffer("queue", torch.zeros(config.queue_size, config.proj_dim))
        self.register_buffer("queue_ptr", torch.zeros((), dtype=torch.int64))
        self.register_buffer("usage", torch.full((config.num_protos,), 1.0 / config.num_protos))

    def needs(self) -> BatchSpec:
        """Pairs of neighbouring observations; no actions."""
        return BatchSpec(offsets=(0, 1), fields=frozenset({"image"}))

    def forward(self, batch: Batch) -> Loss:
        """Predict the assignment of o_{t+1} from o_t; one direction only."""
        projection = self.projector(self.encoder(batch.image(0)))
        with torch.no_grad():
            target = self.target_projector(self.target_encoder(batch.image(1)))
        # Everything behind the projections is small and sensitive: not worth half precision.
        with without_autocast(projection):
            self._normalise_prototypes()
            loss, outputs = prototype_loss(
                self.predictor(at_least_float32(projection)),
                at_least_float32(target),
                self.prototypes,
                self.config.T,
                self.config.sinkhorn_temperature,
                self.config.num_iters,
            )
            with torch.no_grad():
                self.usage.copy_(outputs["log_p"].exp().mean(dim=0))
        return Loss(loss, {"repr_loss": loss.detach()}, {name: value.detach() for name, value in outputs.items()})

    def after_update(self) -> None:
        """EMA of encoder and projector with ``encoder_target_tau``."""
        ema_(
            [*self.target_encoder.parameters(), *self.target_projector.parameters()],
            [*self.encoder.parameters(), *self.projector.parameters()],
            self.config.encoder_target_tau,
        )

    @torch.no_grad()
    def embed(self, transition: Transition) -> Tensor:
        """Unit-length *online* projection of the next observation, without predictor: [B, E]."""
        projection = at_least_float32(self.projector(transition.next_features))
        with without_autocast(projection):
            return F.normalize(projection, dim=1)

    @torch.no_grad()
    def remember(self, embedding: Tensor, generator: Generator | None = None, candidates: Tensor | None = None) -> None:
        """Write one row of the batch per prototype into the ring queue.

        Args:
            embedding: [B, E] from ``embed``.
            generator: for the draw, on the device of ``embedding``.
            candidates: int64 [K] rows to take instead of drawing them.
        """
        with without_autocast(embedding):
            self._normalise_prototypes()
            if candidates is None:
                candidates = draw_candidates(embedding, self.prototypes, self.config.candidate_temperature, generator)
        # Pointer arithmetic stays in tensors: no host synchronisation, so a CUDA graph can hold it.
        count, size = len(candidates), len(self.queue)
        slots = (self.queue_ptr + torch.arange(count, device=self.queue.device)) % size
        self.queue.index_copy_(0, slots, embedding[candidates].to(self.queue.dtype))
        self.queue_ptr.copy_((self.queue_ptr + count) % size)

    def novelty(self, embedding: Tensor) -> Tensor:
        """Distance to the ``topk``-th nearest queue row: [B, E] to [B, 1].

        The caller remembers first, so a row may be its own neighbour at distance zero; rows never written
        are zero vectors at distance one.
        """
        return kth_distance(embedding, self.queue, self.config.topk)

    def diagnostics(self) -> dict[str, Tensor]:
        """Entropy of the last batch's mean assignment over log K (1: all prototypes used alike), and queue fill."""
        entropy = torch.special.entr(self.usage).sum() / max(math.log(self.config.num_protos), 1e-12)
        return {
            "prototype_usage_entropy": entropy,
            "queue_fill": self.queue.any(dim=1).float().mean(),
        }

    def _normalise_prototypes(self) -> None:
        """Unit length, written to the data and invisible to autograd."""
        self.prototypes.data.copy_(F.normalize(self.prototypes.data, dim=1))
