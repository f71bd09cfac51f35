"""SAC on the toy's state: learn to stop in the middle of an arena, and watch the temperature.

    python examples/sac.py            # about 10 seconds on one core

No image and no encoder to learn: observations are the positions of point and goal, features are what is observed
(``encoder_kind=vector``). SAC maximises reward plus entropy; its temperature is learned so that the policy keeps an
entropy of minus the number of action values. Printed are the mean return of 16 unseen episodes before and after,
beside random actions, and the temperature and the entropy on the way.
"""

from __future__ import annotations

import torch

from toy_agent import REPEAT, live, mean_return, random_return
from toy_data import ToyWorld, options, table
from visrep.encoders import build_encoder
from visrep.policies.sac import SAC, SACConfig
from visrep.runs.update import Learner, update


def main() -> None:
    args = options(__doc__, agent_steps=12_000)
    world = ToyWorld("open_center", args.seed, REPEAT, stack=1, observation="state")
    encoder = build_encoder("vector", world.contract)  # hands the vector on
    config = SACConfig(hidden_dim=128, feature_dim=32, critic_target_tau=0.05)
    policy = SAC(encoder.feature_dim, world.actions.dim, config, lr=1e-3)
    draws = torch.Generator().manual_seed(args.seed)
    learner = Learner(encoder, policy, draws, encoder_gradient="none")
    before = mean_return(world, learner, args.seed)
    for tick, batch in enumerate(live(world, learner, args.agent_steps)):
        metrics = update(learner, batch, tick, world.agent_step)
        if tick % 200 == 0:  # the actor and the temperature learn at even ticks
            alpha, entropy = float(metrics["alpha"]), float(metrics["entropy"])
            print(f"update {tick:4d}  temperature {alpha:.4f}  entropy {entropy:6.2f} (target {policy.target_entropy})")
    print()
    rows = {
        "random actions": [random_return("open_center", args.seed)],
        "SAC, untrained": [before],
        "SAC": [mean_return(world, learner, args.seed)],
    }
    table(["return"], rows)


if __name__ == "__main__":
    main()
