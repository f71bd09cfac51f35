"""The learner of one phase: which losses step which parameters, on which images, how often."""

from __future__ import annotations

from collections.abc import Callable

import torch

from visrep.config import Config
from visrep.data.batch import BatchSpec
from visrep.errors import UserError
from visrep.objectives.contract import Novelty
from visrep.objectives.parts.ema import frozen_copy
from visrep.pace import LearningRate, Pace
from visrep.policies.nets import adam
from visrep.runs.augmenting import objective_augmentation, policy_augmentation
from visrep.runs.compose import Networks, share_critics_projection
from visrep.runs.representation import Representation, make_representation
from visrep.runs.update import Augment, EncoderGradient, Intrinsic, Learner, RunningMean


def learning_rate(config: Config, planned: Callable[[], int]) -> LearningRate:
    """Of the objective's optimisers."""
    run = config.run
    return LearningRate(run.repr_lr or run.lr, run.repr_warmup, run.repr_anneal, planned)


def build_learner(
    config: Config,
    networks: Networks,
    intrinsic: Intrinsic,
    encoder_gradient: EncoderGradient,
    generator: torch.Generator,
    planned_updates: Callable[[], int],
) -> Learner:
    """One phase's learner: fresh optimisers for whatever trains in it.

    Args:
        config: of the run.
        networks: encoder, objective, policy.
        intrinsic: what the policy maximises.
        encoder_gradient: whose loss trains the encoder.
        generator: of the updates' random draws.
        planned_updates: total of the objective's updates in the phase, for its learning rate.
    """
    run, encoder, policy = config.run, networks.encoder, networks.policy
    assert policy is not None, "offline pre-training has no learner"
    if intrinsic != "none" and not isinstance(networks.objective, Novelty):
        raise UserError(
            f"method={run.method} pays no exploration: choose a method that does, or set intr_coef=0 and "
            "num_expl_steps=0"
        )
    channels = encoder.contract.channels
    augment = policy_augmentation(config, channels)
    representation = _representation(config, networks, intrinsic, encoder_gradient, planned_updates)
    shares = True
    repr_augment: Augment | None = augment
    if networks.objective is not None:
        shares, repr_augment = objective_augmentation(config, channels, networks.objective.augmented, augment)
    critic_trains = encoder_gradient in ("critic", "both")
    targets = policy.target_encoder_tau is not None and encoder_gradient != "none"
    return Learner(
        encoder=encoder,
        policy=policy,
        generator=generator,
        objective=networks.objective,
        representation=representation,
        target_encoder=frozen_copy(encoder) if targets else None,
        augment=augment,
        repr_augment=repr_augment,
        shares_images=shares,
        encoder_optimizer=adam(encoder.parameters(), run.lr * run.encoder_lr_scale) if critic_trains else None,
        encoder_gradient=encoder_gradient,
        intrinsic=intrinsic,
        intr_coef=run.intr_coef,
        reward_norm=RunningMean().to(generator.device) if run.intr_reward_norm == "mean" else None,
        n_step=run.n_step,
        mask_time_limits=run.time_limits == "mask",
        cudagraphs=run.compile == "cudagraphs",
        precision=run.precision,
    )


def _representation(
    config: Config,
    networks: Networks,
    intrinsic: Intrinsic,
    encoder_gradient: EncoderGradient,
    planned_updates: Callable[[], int],
) -> Representation | None:
    """What steps the objective: where it trains the encoder, or where its heads must follow one that others train."""
    objective, run = networks.objective, config.run
    trains = encoder_gradient in ("objective", "both")
    follows = encoder_gradient == "critic" and intrinsic != "none"
    if objective is None or not (trains or follows):
        return None
    if trains:
        share_critics_projection(networks)
    return make_representation(
        objective,
        learning_rate(config, planned_updates),
        train_encoder=trains,
        clip_norm=run.repr_grad_clip,
        precision=run.precision,
    )


def batch_spec(config: Config, learner: Learner, pace: Pace | None) -> BatchSpec:
    """What one update needs: the policy's n-step transition, united with the objective's window where it shares it."""
    run = config.run
    fields = {"image", "action", "reward"} | ({"is_last", "terminal"} if learner.mask_time_limits else set())
    # The policy looks at o_t and o_{t+n}; offset 1 carries the action between, its image is not needed.
    spec = BatchSpec((0, 1), frozenset(fields), n_step=run.n_step, image_offsets=(0, run.n_step))
    if learner.objective is not None and (learner.novelty is not None or shares_batch(config, learner, pace)):
        spec = spec.union(learner.objective.needs())
    return spec


def shares_batch(config: Config, learner: Learner, pace: Pace | None) -> bool:
    """Whether the objective's first update of an iteration takes the policy's batch."""
    return learner.representation is not None and pace is not None and not config.run.objective_draws
