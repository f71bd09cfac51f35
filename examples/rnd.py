"""RND on the toy maze: explore where a network has not yet learned to imitate a fixed random one.

    python examples/rnd.py            # about 20 seconds on one core

RND learns from single observations, without actions or reward. Its loss leaves the encoder as it is, so no encoder is
read out here: what it makes is exploration. A SAC is paid by the novelty alone. Printed are the share of the maze's
cells that it visited, beside that of random actions, and the novelty along a scripted tour of all rooms, in cells that
it visited and in the others: the imitation is good where it has been.
"""

from __future__ import annotations

from toy_agent import explore, novelty_by_visits, walked_world
from toy_data import ToyWorld, options, random_world, table
from visrep.encoders import build_encoder
from visrep.objectives.rnd import RNDConfig, RNDObjective


def main() -> None:
    args = options(__doc__, agent_steps=15_000)
    world, tour = ToyWorld("maze", args.seed), walked_world(args.seed)
    encoder = build_encoder("proto", world.contract, channels=16)
    objective = RNDObjective(encoder, world.actions, RNDConfig(rnd_rep_dim=64, rnd_hidden_dim=128))
    errors = []
    for metrics in explore(world, objective, args.agent_steps, args.seed):
        if "repr_distillation_error" in metrics:  # the objective learns at every second update
            errors.append(float(metrics["repr_distillation_error"]))
    print(f"imitation error on what was visited: {errors[0]:.3g} at first, {errors[-1]:.3g} in the end\n")
    chance = random_world("maze", args.seed, args.agent_steps)
    rows: dict[str, list[float | str]] = {
        "random actions": [chance.cells, "", ""],
        "RND": [world.cells, *novelty_by_visits(objective, world, tour)],
    }
    table(["cells visited (%)", "novelty there", "novelty elsewhere"], rows)


if __name__ == "__main__":
    main()
