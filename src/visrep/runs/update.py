"""One optimisation step, the same for every method and both phases.

Shapes: B batch, M views of the policy, T offsets, S frame stack, C colour channels, H W pixels, D features, A action,
E novelty embedding.
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
from visrep.objectives.parts.ema import ema_
from visrep.policies.contract import Policy, PolicyBatch, PolicyNoise
from visrep.precision import at_least_float32
from visrep.runs.precision import autocast
from visrep.runs.representation import Representation

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
        representation: what steps the objective; None leaves it as it is.
        target_encoder: copy of the encoder whose features the target critic sees, moved at the policy's target updates;
            None where the policy has no use for one or the encoder does not change.
        augment: images [N, S*C, H, W] and generator to images, a fresh draw per image; None where they come augmented.
        repr_augment: the objective's own augmentation of the same batch; used where ``shares_images`` is False.
        shares_images: the objective sees the policy's augmented images, which are then made once.
        encoder_optimizer: over the encoder; needed for encoder_gradient "critic" and "both".
        encoder_gradient: which losses train the encoder.
        intrinsic: reward is the intrinsic one "only", task reward plus intr_coef times it ("bonus"), or task reward.
        intr_coef: weight of the bonus.
        reward_norm: divides the intrinsic reward by its running mean; None leaves it as it is.
        n_step: offset of the row whose value is bootstrapped from; that of the batch's n-step return.
        mask_time_limits: leave transitions that end at a time limit out of the policy's losses (rlpyt).
        cudagraphs: the compiled forward passes replay CUDA graphs.
        precision: "bf16" autocasts encoder, heads and policy networks; losses and distances stay in float32.
    """

    encoder: Encoder
    policy: Policy
    generator: Generator | None
    objective: Objective | None = None
    representation: Representation | None = None
    target_encoder: Encoder | None = None
    augment: Augment | None = None
    repr_augment: Augment | None = None
    shares_images: bool = True
    encoder_optimizer: Optimizer | None = None
    encoder_gradient: EncoderGradient = "objective"
    intrinsic: Intrinsic = "none"
    intr_coef: float = 0.2
    reward_norm: RunningMean | None = None
    n_step: int = 1
    mask_time_limits: bool = False
    cudagraphs: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    novelty: Novelty | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Check that the parts which the settings ask for are there."""
        if self.encoder_gradient in ("objective", "both") and self.representation is None:
            raise ValueError(f"encoder_gradient={self.encoder_gradient} needs an objective and its optimisers")
        if self.representation is not None and self.representation.objective is not self.objective:
            raise ValueError("what steps the representation belongs to another objective than the learner's")
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
    train_representation: bool = True,
) -> dict[str, Tensor]:
    """One step of everything on one batch: augment, representation, intrinsic reward, policy.

    The representation's step comes before the policy's (Proto-RL) or after it (ATC, CURL, SAC-AE): the objective says.

    Args:
        learner: the parts; changed in place.
        batch: from the sampler, on the device, with an n-step return; images uint8 or float 0..255.
        tick: counts updates; "every n" frequencies look at it.
        agent_step: what schedules look at.
        noise: the policy's standard-normal draws; drawn from the learner's generator where None.
        train_representation: whether the objective's step is due on this batch.

    Returns:
        Named 0-d detached tensors. Nothing is read back from the device: the caller decides when.
    """
    if batch.n_step_return is None or batch.n_step_discount is None:
        raise ValueError("a policy update needs n-step returns: ask for n_step >= 1 in the BatchSpec")
    if learner.cudagraphs:  # what the graphs returned in the last update may be overwritten from here on
        torch.compiler.cudagraph_mark_step_begin()
    due = learner.representation if train_representation else None
    raw, views = batch, learner.policy.views
    if due is not None and learner.shares_images:
        views = max(views, due.objective.needs().views)
    batch = augmented(raw, learner.augment, learner.generator, views)
    metrics: dict[str, Tensor] = {}
    if due is not None and due.objective.turn == "before policy":
        metrics |= due.step(batch if learner.shares_images else _of_objective(learner, raw))
    metrics |= _policy_step(learner, batch, tick, agent_step, noise)
    if due is not None and due.objective.turn == "after policy":
        metrics |= due.step(batch if learner.shares_images else _of_objective(learner, raw))
    return metrics


def representation_update(learner: Learner, batch: Batch) -> dict[str, Tensor]:
    """One step of the objective alone, on a batch of its own (its images not yet augmented)."""
    assert learner.representation is not None, "asked for only where the objective is trained"
    return learner.representation.step(_of_objective(learner, batch))


def _of_objective(learner: Learner, batch: Batch) -> Batch:
    """The batch as the objective takes it: with its views, augmented as it wants."""
    assert learner.objective is not None, "asked for only where there is an objective"
    augment = learner.augment if learner.shares_images else learner.repr_augment
    return augmented(batch, augment, learner.generator, learner.objective.needs().views)


def _policy_step(
    learner: Learner, batch: Batch, tick: int, agent_step: int, noise: PolicyNoise | None
) -> dict[str, Tensor]:
    """Features of each image once, intrinsic reward, the policy's update, the target encoder's move."""
    policy, n = learner.policy, learner.n_step
    action = batch.at("action", 1)  # [B, A]: the action in row 1 led from row 0 to row 1
    with torch.set_grad_enabled(learner.critic_trains):
        features = encode(learner, _views(batch, 0, policy.views))  # [M*B, D]
    with torch.no_grad():
        next_images, target = _views(batch, n, policy.views), learner.target_encoder
        next_by_target = None if target is None else encode(learner, next_images, target)  # [M*B, D]
        if next_by_target is None or policy.online_next or learner.novelty is not None:
            next_features = encode(learner, next_images)  # [M*B, D]
        else:
            next_features = next_by_target
    reward, metrics = _reward(learner, batch, features.detach(), action, next_features)
    assert batch.n_step_discount is not None, "checked by the caller"
    if noise is None:
        noise = PolicyNoise.draw(action, learner.generator, policy.views)
    given = PolicyBatch(
        features, action, reward, batch.n_step_discount, next_features, next_by_target, _weight(learner, batch)
    )
    with autocast(action.device, learner.precision):
        metrics |= policy.update(given, tick, agent_step, noise, learner.encoder_optimizer)
    if target is not None and policy.moves_targets(tick):
        assert policy.target_encoder_tau is not None, "the reason for a target encoder"
        ema_(target.parameters(), learner.encoder.parameters(), policy.target_encoder_tau)
    return metrics


def _views(batch: Batch, offset: int, views: int) -> Tensor:
    """Images at one offset under the policy's views, view-major, [M*B, S*C, H, W]."""
    if views == 1:
        return batch.image(offset)
    return torch.cat([batch.image(offset, view) for view in range(views)])


def _reward(
    learner: Learner, batch: Batch, features: Tensor, action: Tensor, next_features: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """What the policy maximises, [B, 1], and metrics about it."""
    reward = batch.n_step_return
    assert reward is not None, "checked by the caller"
    metrics = {"batch_reward": reward.mean()}
    if learner.novelty is None:
        return reward, metrics
    assert learner.objective is not None, "the novelty is the objective"
    rows = len(action)  # the first view, where there are several
    action = learner.objective.actions.encode(action)
    intrinsic = _intrinsic_reward(learner, Transition(features[:rows], action, next_features[:rows]))
    metrics |= _intrinsic_metrics(intrinsic)
    if learner.reward_norm is not None:
        intrinsic = learner.reward_norm.normalise(intrinsic)
    return intrinsic if learner.intrinsic == "only" else reward + learner.intr_coef * intrinsic, metrics


def _weight(learner: Learner, batch: Batch) -> Tensor | None:
    """0 for rows whose last step was cut off by a time limit, if these are to be left out, [B, 1]."""
    if not learner.mask_time_limits:
        return None
    cut = batch.at("is_last", learner.n_step) & ~batch.at("terminal", learner.n_step)
    return (~cut).float()


def augmented(batch: Batch, augment: Augment | None, generator: Generator | None, views: int = 1) -> Batch:
    """The batch with every image of every view and offset augmented by a draw of its own, channels innermost in memory.

    A sampler hands over one copy of the images; ``views`` copies are made of it here. An update encodes most images
    twice; turning the bytes here spares turning them in each pass.
    """

    def turned(view: Tensor) -> Tensor:
        flat = view.flatten(0, 1)  # [B*T, S*C, H, W]
        # Floats are latents or vectors, which no convolution will see; a GPU gathers in the other order.
        if flat.is_floating_point() or flat.device.type != "cpu":
            return flat
        return flat.contiguous(memory_format=torch.channels_last)

    def each(flat: Tensor) -> Tensor:
        images = flat if augment is None else augment(flat, generator)
        if not flat.is_floating_point():  # not every operator keeps the order
            images = images.contiguous(memory_format=torch.channels_last)
        return images.unflatten(0, batch.images[0].shape[:2])  # [B, T, S*C, H, W]

    # Turned before they are augmented: once for all views, and a crop leaves less to do in this order.
    flats = [turned(view) for view in batch.images]
    copies = flats if len(flats) >= views else [flats[0]] * views
    if augment is None:  # copies would be equal: one tensor serves them all
        return batch.with_images([each(copies[0])] * len(copies))
    return batch.with_images([each(flat) for flat in copies])


def encode(learner: Learner, images: Tensor, encoder: Encoder | None = None) -> Tensor:
    """Images [B, S*C, H, W] to features [B, D] by the learner's encoder or a given one, at the run's precision."""
    with autocast(images.device, learner.precision):
        return (encoder or learner.encoder)(images)


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
