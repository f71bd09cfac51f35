"""CURL beside a SAC: critic and contrast train one encoder, and one projection.

    python examples/curl.py           # about 30 seconds on one core

CURL learns from single observations under two random shifts: of a batch, pick the other view of oneself. It is meant
to stand beside a policy (``encoder_gradient="both"``): the code is the critic's own trunk, lent to the objective by
``share_projection``, and each update makes the critic's step and then CURL's, never a sum of their losses. Printed for
unseen episodes, beside the same networks untrained: the mean return (and that of random actions), the share of right
picks out of 64, and how well the position is read from the features (R² of a linear read-out).
"""

from __future__ import annotations

import torch

from toy_agent import REPEAT, live, mean_return, random_return
from toy_data import UNSEEN, ToyWorld, batches, measured, options, position, random_world, table
from visrep.augment import parse_augmentation
from visrep.encoders import build_encoder
from visrep.objectives.curl import CURLConfig, CURLObjective
from visrep.objectives.parts.ema import frozen_copy
from visrep.pace import LearningRate
from visrep.policies.nets import adam
from visrep.policies.sac import SAC, SACConfig
from visrep.runs.representation import make_representation
from visrep.runs.update import Learner, update

LR = 1e-3


def main() -> None:
    args = options(__doc__, agent_steps=9_000)
    world = ToyWorld("open_center", args.seed, REPEAT)
    unseen = random_world("open_center", args.seed + UNSEEN, 9_600, REPEAT)
    encoder = build_encoder("proto", world.contract, channels=16)
    config = SACConfig(
        hidden_dim=128, feature_dim=50, actor_update_frequency=1, critic_target_update_frequency=1,
        critic_target_tau=0.05, conv_target_tau=0.05,
    )  # fmt: skip
    policy = SAC(encoder.feature_dim, world.actions.dim, config, LR)
    objective = CURLObjective(encoder, world.actions, CURLConfig(curl_feature_dim=50))
    objective.share_projection(policy.critic.trunk)  # before its optimisers are made: they step the trunk too
    learner = Learner(
        encoder=encoder,
        policy=policy,
        generator=torch.Generator().manual_seed(args.seed),
        objective=objective,
        representation=make_representation(objective, LearningRate(LR), train_encoder=True),
        target_encoder=frozen_copy(encoder),
        augment=parse_augmentation("shift(1)", frame_channels=3),
        encoder_optimizer=adam(encoder.parameters(), LR),
        encoder_gradient="both",
        n_step=3,
    )

    def scores() -> list[float]:
        picked = measured(objective, batches(unseen, objective, 8, "shift(1)"))["accuracy"]
        return [mean_return(world, learner, args.seed), 100.0 * picked, position(encoder, unseen)["probe_state_r2"]]

    rows: dict[str, list[float]] = {"untrained": scores()}
    for tick, batch in enumerate(live(world, learner, args.agent_steps)):
        update(learner, batch, tick, world.agent_step)
    rows["SAC with CURL"] = scores()
    print(f"random actions: return {random_return('open_center', args.seed):.3g}\n")
    table(["return", "views picked (%)", "position R²"], rows)


if __name__ == "__main__":
    main()
