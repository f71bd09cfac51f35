"""One optimisation step, the same for every method and both phases.

Shapes: B batch, T offsets, S frame stack, C colour channels, H W pixels, D features, A action, E novelty embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from visrep.data.batch import Batch
from visrep.encoders.contract import Encoder
from visrep.objectives.contract import Novelty, Objective, Transition
from visrep.policies.contract import Policy, PolicyBatch, PolicyNoise
from visrep.precision import at_least_float32
from visrep.runs.precision import autocast

Augment = Callable[[Tensor, Generator | None], Tensor]
EncoderGradient = Literal["objective", "critic", "both", "none"]
Intrinsic = Literal["only", "bonus", "none"]


class RunningMean(nn.Module):
    """Bias-corrected exponential mean of the batch means of a reward; dividing by it makes the mean reward about 1."""

    total: Tensor
    weight: Tensor

    def __init__(self, decay: float = 0.99, floor: float = 1e-6) -> None:
        super().__init__()
        self.decay, self.floor = decay, floor
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    @torch.no_grad()
    def normalise(self, values: Tensor) -> Tensor:
        """Take the batch into the mean, then divide by it. Any shape."""
        self.total.lerp_(values.mean().to(self.total.dtype), 1.0 - self.decay)
        self.weight.lerp_(torch.ones_like(self.weight), 1.0 - self.decay)
        return values / (self.total / self.weight).clamp_min(self.floor).to(values.dtype)


@dataclass
class Learner:
    """The built, trainable pieces of a run; no loop, no logger.

    Attributes:
        encoder: shared by objective and policy.
        policy: actor-critic on features.
        generator: source of every random draw of an update; on the device of the tensors.
        objective: representation method and, where it is a ``Novelty``, source of the intrinsic reward; or None.
        augment: images [N, S*C, H, W] and generator to images, a fresh draw per image; None where they come augmented.
        repr_optimizer: steps the objective on every ``encoder_update_frequency``-th tick. It holds the objective's
            heads and, for encoder_gradient "objective" and "both", the encoder. None leaves the objective as it is.
        encoder_optimizer: over the encoder; needed for encoder_gradient "critic" and "both".
        encoder_gradient: which losses train the encoder.
        encoder_update_frequency: representation step on every n-th tick.
        intrinsic: reward is the intrinsic one "only", task reward plus intr_coef times it ("bonus"), or task reward.
        intr_coef: weight of the bonus.
        reward_norm: divides the intrinsic reward by its running mean; None leaves it as it is.
        n_step: offset of the row whose value is bootstrapped from; that of the batch's n-step return.
        cudagraphs: the compiled forward passes replay CUDA graphs.
        precision: "bf16" autocasts encoder, heads and policy networks; losses and distances stay in float32.
    """

    encoder: Encoder
    policy: Policy
    generator: Generator | None
    objective: Objective | None = None
    augment: Augment | None = None
    repr_optimizer: Optimizer | None = None
    encoder_optimizer: Optimizer | None = None
    encoder_gradient: EncoderGradient = "objective"
    encoder_update_frequency: int = 2
    intrinsic: Intrinsic = "none"
    intr_coef: float = 0.2
    reward_norm: RunningMean | None = None
    n_step: int = 1
    cudagraphs: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    novelty: Novelty | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Check that the parts which the settings ask for are there."""
        if self.encoder_gradient in ("objective", "both") and self.repr_optimizer is None:
            raise ValueError(f"encoder_gradient={self.encoder_gradient} needs an objective and its optimiser")
        if self.repr_optimizer is not None and self.objective is None:
            raise ValueError("a representation optimiser was given, but no objective for it to step")
        if self.critic_trains != (self.encoder_optimizer is not None):
            raise ValueError(
                f"encoder_gradient={self.encoder_gradient}: an encoder optimiser belongs to critic and both"
            )
        if self.intrinsic != "none":
            if not isinstance(self.objective, Novelty):
                name = "no method" if self.objective is None else f"method {self.objective.name!r}"
                raise ValueError(f"an intrinsic reward is asked for, but {name} pays none")
            self.novelty = self.objective

    @property
    def critic_trains(self) -> bool:
        """Whether the critic's loss trains the encoder."""
        return self.encoder_gradient in ("critic", "both")


def update(
    learner: Learner,
    batch: Batch,
    tick: int,
    agent_step: int,
    *,
    noise: PolicyNoise | None = None,
) -> dict[str, Tensor]:
    """One step of everything: augment, representation, intrinsic reward, policy; in Proto-RL's order.

    Args:
        learner: the parts; changed in place.
        batch: from the sampler, on the device, with an n-step return; images uint8 or float 0..255.
        tick: counts updates; "every n" frequencies look at it.
        agent_step: what schedules look at.
        noise: the policy's standard-normal draws; drawn from the learner's generator where None.

    Returns:
        Named 0-d detached tensors. Nothing is read back from the device: the caller decides when.
    """
    reward, discount = batch.n_step_return, batch.n_step_discount
    if reward is None or discount is None:
        raise ValueError("a policy update needs n-step returns: ask for n_step >= 1 in the BatchSpec")
    if learner.cudagraphs:  # what the graphs returned in the last update may be overwritten from here on
        torch.compiler.cudagraph_mark_step_begin()
    if learner.augment is not None:
        batch = augmented(batch, learner.augment, learner.generator)
    metrics: dict[str, Tensor] = {}
    if learner.repr_optimizer is not None and tick % learner.encoder_update_frequency == 0:
        metrics |= _representation_step(learner, batch)

    action = batch.at("action", 1)  # [B, A]: the action in row 1 led from row 0 to row 1
    with torch.set_grad_enabled(learner.critic_trains):
        features = encode(learner, batch.image(0))  # [B, D]
    with torch.no_grad():
        next_features = encode(learner, batch.image(learner.n_step))  # [B, D]

    metrics["batch_reward"] = reward.mean()
    if learner.novelty is not None:
        intrinsic = _intrinsic_reward(learner, Transition(features.detach(), action, next_features))
        metrics |= _intrinsic_metrics(intrinsic)
        if learner.reward_norm is not None:
            intrinsic = learner.reward_norm.normalise(intrinsic)
        reward = intrinsic if learner.intrinsic == "only" else reward + learner.intr_coef * intrinsic

    if noise is None:
        noise = PolicyNoise.draw(action, learner.generator)
    with autocast(action.device, learner.precision):
        metrics |= learner.policy.update(
            PolicyBatch(features, action, reward, discount, next_features),
            tick,
            agent_step,
            noise,
            learner.encoder_optimizer,
        )
    return metrics


def augmented(batch: Batch, augment: Augment, generator: Generator | None) -> Batch:
    """The batch with every image of every view and offset augmented by a draw of its own, channels innermost in memory.

    An update encodes most images twice; turning the bytes here spares turning them in each pass.
    """

    def each(view: Tensor) -> Tensor:
        images = augment(view.flatten(0, 1), generator)  # [B*T, S*C, H, W]
        return images.contiguous(memory_format=torch.channels_last).unflatten(0, view.shape[:2])  # [B, T, S*C, H, W]

    return batch.with_images([each(view) for view in batch.images])


def encode(learner: Learner, images: Tensor) -> Tensor:
    """Images [B, S*C, H, W] to features [B, D], in bfloat16 where the precision says so."""
    with autocast(images.device, learner.precision):
        return learner.encoder(images)


def _representation_step(learner: Learner, batch: Batch) -> dict[str, Tensor]:
    objective, optimizer = learner.objective, learner.repr_optimizer
    assert objective is not None and optimizer is not None, "checked by Learner"
    with autocast(batch.images[0].device, learner.precision):
        loss = objective(batch)
    optimizer.zero_grad()
    loss.total.backward()
    optimizer.step()
    objective.after_update()
    parts = {f"repr_{name.removeprefix('repr_')}": value for name, value in loss.parts.items()}
    return parts | {"repr_loss": loss.total.detach()}


@torch.no_grad()
def _intrinsic_reward(learner: Learner, transition: Transition) -> Tensor:
    """Embed, remember, then measure (Proto-RL's order: an element may be its own neighbour), [B, 1]."""
    novelty = learner.novelty
    assert novelty is not None, "the caller asks only where there is one"
    with autocast(transition.action.device, learner.precision):
        embedding = at_least_float32(novelty.embed(transition))  # [B, E]
    novelty.remember(embedding, learner.generator)
    return novelty.novelty(embedding)


def _intrinsic_metrics(reward: Tensor) -> dict[str, Tensor]:
    return {
        "intr_reward_mean": reward.mean(),
        "intr_reward_std": reward.std(unbiased=False),
        "intr_reward_zeros": (reward == 0).float().mean(),
    }


def first_nonfinite(metrics: dict[str, Tensor]) -> str | None:
    """Name of the first metric that is NaN or infinite, or None. Reads from the device once."""
    if not metrics:
        return None
    finite = torch.isfinite(torch.stack([value.detach().double() for value in metrics.values()])).tolist()
    return next((name for name, good in zip(metrics, finite, strict=True) if not good), None)
