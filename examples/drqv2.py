"""DrQ-v2 from pixels: a deterministic policy whose exploration noise follows a schedule.

    python examples/drqv2.py          # about 20 seconds on one core

The critic trains the encoder on randomly shifted images, with three-step returns and without entropy: what explores is
Gaussian noise, whose standard deviation ``std_schedule`` lowers over agent steps. The goal lies near a corner. (To stop
in the middle of the arena, as the examples of SAC learn to, is not learned in this time: without an entropy term the
policy saturates before the critic has found the goal.) Printed are the mean return of 16 unseen episodes and the noise
on the way, and the returns before and after beside random actions.
"""

from __future__ import annotations

import torch

from toy_agent import REPEAT, live, mean_return, random_return
from toy_data import ToyWorld, options, table
from visrep.augment import parse_augmentation
from visrep.encoders import build_encoder
from visrep.policies.drqv2 import DrQv2, DrQv2Config
from visrep.policies.nets import adam
from visrep.runs.update import Learner, update

LR = 1e-3


def main() -> None:
    args = options(__doc__, agent_steps=9_000)
    world = ToyWorld("open_far", args.seed, REPEAT)
    encoder = build_encoder("proto", world.contract, channels=16)
    config = DrQv2Config(hidden_dim=128, critic_target_tau=0.05, std_schedule=f"linear(1.0,0.1,{args.agent_steps})")
    policy = DrQv2(encoder.feature_dim, world.actions.dim, config, LR)
    learner = Learner(
        encoder=encoder,
        policy=policy,
        generator=torch.Generator().manual_seed(args.seed),
        augment=parse_augmentation("shift(1)", frame_channels=3),
        encoder_optimizer=adam(encoder.parameters(), LR),
        encoder_gradient="critic",  # one backward pass, then a step of the critic's Adam and one of the encoder's
        n_step=3,
    )
    rows = {
        "random actions": [random_return("open_far", args.seed)],
        "DrQ-v2, untrained": [mean_return(world, learner, args.seed)],
    }
    for tick, batch in enumerate(live(world, learner, args.agent_steps)):
        update(learner, batch, tick, world.agent_step)
        if tick % 100 == 0:
            std, now = policy.std(world.agent_step), mean_return(world, learner, args.seed)
            print(f"agent step {world.agent_step:5d}  std of the noise {std:.2f}  return {now:.0f}")
    print()
    rows["DrQ-v2"] = [mean_return(world, learner, args.seed)]
    table(["return"], rows)


if __name__ == "__main__":
    main()
