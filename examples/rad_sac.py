"""RAD: SAC from pixels, once on images as they are and once on augmented ones.

    python examples/rad_sac.py        # about 30 seconds on one core

RAD adds no loss to SAC: every image of a batch is augmented, those before and after the action by draws of their own,
and the critic trains the encoder. A slow copy of the encoder serves the target critic, as in the published agents. The
same agent learns twice, from images as they are and from images shifted by up to a pixel of 24; it acts on images as
they are. Printed are the mean returns of 16 unseen episodes, beside random actions and the untrained agent. The
arena is so plain that both reach the goal: what augmentation is good for does not show here.
"""

from __future__ import annotations

import torch

from toy_agent import REPEAT, live, mean_return, random_return
from toy_data import ToyWorld, options, table
from visrep.augment import parse_augmentation
from visrep.encoders import build_encoder
from visrep.objectives.parts.ema import frozen_copy
from visrep.policies.nets import adam
from visrep.policies.sac import SAC, SACConfig
from visrep.runs.update import Learner, update

LR = 1e-3


def main() -> None:
    args = options(__doc__, agent_steps=9_000)
    rows = {"random actions": [random_return("open_center", args.seed)]}
    for augment in ("none", "shift(1)"):
        torch.manual_seed(args.seed)  # the same first weights for both
        world = ToyWorld("open_center", args.seed, REPEAT)
        encoder = build_encoder("proto", world.contract, channels=16)
        config = SACConfig(
            hidden_dim=128, actor_update_frequency=1, critic_target_update_frequency=1,
            critic_target_tau=0.05, conv_target_tau=0.05,
        )  # fmt: skip
        learner = Learner(
            encoder=encoder,
            policy=SAC(encoder.feature_dim, world.actions.dim, config, LR),
            generator=torch.Generator().manual_seed(args.seed),
            target_encoder=frozen_copy(encoder),
            augment=None if augment == "none" else parse_augmentation(augment, frame_channels=3),
            encoder_optimizer=adam(encoder.parameters(), LR),
            encoder_gradient="critic",
            n_step=3,
        )
        rows["untrained"] = [mean_return(world, learner, args.seed)]
        for tick, batch in enumerate(live(world, learner, args.agent_steps)):
            metrics = update(learner, batch, tick, world.agent_step)
        print(f"augment={augment}: {tick + 1} updates, critic's last loss {float(metrics['critic_loss']):.3g}")
        rows[f"SAC, augment={augment}"] = [mean_return(world, learner, args.seed)]
    print()
    table(["return"], rows)


if __name__ == "__main__":
    main()
