"""DrQ: SAC from pixels whose targets and losses are averaged over shifted copies of every image.

    python examples/drq.py            # about 35 seconds on one core

DrQ's regularisation is one setting of SAC here, ``augmentations``: the target is the mean over that many shifted copies
of the next observation, and the critic regresses every copy of the present one to it. The critic trains the encoder.
Printed are the mean returns of 16 unseen episodes, beside random actions and the untrained agent, and what the
regularisation is for: how much the trained critic's value of one image and action varies between shifts of the image,
in per cent of how much it varies between images. On this task and in this time the difference is small.
"""

from __future__ import annotations

import torch

from toy_agent import REPEAT, live, mean_return, random_return, transitions
from toy_data import ToyWorld, options, table
from visrep.augment import parse_augmentation
from visrep.encoders import build_encoder
from visrep.objectives.parts.ema import frozen_copy
from visrep.policies.nets import adam
from visrep.policies.sac import SAC, SACConfig
from visrep.runs.update import Learner, update

LR, SHIFTS = 1e-3, 8


@torch.no_grad()
def spread(world: ToyWorld, learner: Learner) -> float:
    """Deviation of the critic's value over shifts of an image, over its deviation over images, in per cent."""
    batch, policy, augment = world.sampler(transitions(), 256).sample(), learner.policy, learner.augment
    assert isinstance(policy, SAC) and augment is not None, "as built below"
    views = [learner.encoder(augment(batch.image(0), learner.generator)) for _ in range(SHIFTS)]
    values = torch.stack([policy.critic(view, batch.at("action", 1))[0] for view in views])  # [SHIFTS, B, 1]
    return 100.0 * float(values.std(dim=0).mean() / values.mean(dim=0).std())


def main() -> None:
    args = options(__doc__, agent_steps=8_000)
    rows: dict[str, list[float | str]] = {"random actions": [random_return("open_center", args.seed), ""]}
    for copies in (1, 2):
        torch.manual_seed(args.seed)  # the same first weights for both
        world = ToyWorld("open_center", args.seed, REPEAT)
        encoder = build_encoder("proto", world.contract, channels=16)
        config = SACConfig(
            hidden_dim=128, actor_update_frequency=1, critic_target_update_frequency=1,
            critic_target_tau=0.05, conv_target_tau=0.05, trunk_tanh=True, augmentations=copies,
        )  # fmt: skip
        learner = Learner(
            encoder=encoder,
            policy=SAC(encoder.feature_dim, world.actions.dim, config, LR),
            generator=torch.Generator().manual_seed(args.seed),
            target_encoder=frozen_copy(encoder),
            augment=parse_augmentation("shift(1)", frame_channels=3),
            encoder_optimizer=adam(encoder.parameters(), LR),
            encoder_gradient="critic",
            n_step=3,
        )
        rows["untrained"] = [mean_return(world, learner, args.seed), ""]
        for tick, batch in enumerate(live(world, learner, args.agent_steps)):
            update(learner, batch, tick, world.agent_step)
        rows[f"augmentations={copies}"] = [mean_return(world, learner, args.seed), spread(world, learner)]
    table(["return", "spread over shifts (%)"], rows)


if __name__ == "__main__":
    main()
