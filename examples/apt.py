"""APT on the toy maze: spread out what is visited, as a learned representation sees it.

    python examples/apt.py            # about 25 seconds on one core

APT (here ICM-APT) learns from transitions: ICM's forward and inverse models shape a small trunk over the features.
The reward asks no model: it is the distance to the nearest neighbours within the batch, an estimate of the entropy of
the visited states. A SAC is paid by it alone. Printed are the share of the maze's cells that it visited and the entropy
of its visits over cells (in nats; log of the number of cells at most), beside those of random actions.
"""

from __future__ import annotations

import math

from toy_agent import explore
from toy_data import ToyWorld, options, random_world, table
from visrep.encoders import build_encoder
from visrep.objectives.apt import APTConfig, APTObjective


def main() -> None:
    args = options(__doc__, agent_steps=15_000)
    world = ToyWorld("maze", args.seed)
    encoder = build_encoder("proto", world.contract, channels=16)
    config = APTConfig(icm_rep_dim=32, icm_hidden_dim=128, knn_k=12)
    objective = APTObjective(encoder, world.actions, config)
    paid = [float(m["intr_reward_mean"]) for m in explore(world, objective, args.agent_steps, args.seed)]
    print(f"particle entropy of a batch: {paid[0]:.3g} at first, {paid[-1]:.3g} in the end")
    print(f"log of the number of cells: {math.log(world.envs.num_cells):.3g}\n")
    chance = random_world("maze", args.seed, args.agent_steps)
    rows = {
        name: [one.cells, one.coverage.metrics()["state_entropy"]]
        for name, one in {"random actions": chance, "APT": world}.items()
    }
    table(["cells visited (%)", "entropy of visits"], rows)


if __name__ == "__main__":
    main()
