"""Disagreement on the toy maze: explore where the members of an ensemble of forward models differ.

    python examples/disagreement.py   # about 30 seconds on one core

Disagreement learns from transitions: five forward models predict the next features from features and action. They see
the same batches and begin with different weights. Where data are plenty they agree, whatever noise is left, and only
where data are missing do they differ. A SAC is paid by their variance alone. Printed are the share of the maze's cells
that it visited, beside that of random actions, and the variance along a scripted tour of all rooms, in visited cells
and in the others: much larger there. It visits no more than random actions in this time all the same.
"""

from __future__ import annotations

from toy_agent import explore, novelty_by_visits, walked_world
from toy_data import ToyWorld, options, random_world, table
from visrep.encoders import build_encoder
from visrep.objectives.disagreement import DisagreementConfig, DisagreementObjective


def main() -> None:
    args = options(__doc__, agent_steps=15_000)
    world, tour = ToyWorld("maze", args.seed), walked_world(args.seed)
    encoder = build_encoder("proto", world.contract, channels=16)
    config = DisagreementConfig(disagreement_models=5, disagreement_hidden_dim=128)
    objective = DisagreementObjective(encoder, world.actions, config)
    variances = [float(m["intr_reward_mean"]) for m in explore(world, objective, args.agent_steps, args.seed)]
    print(f"variance on what was visited: {variances[0]:.3g} at first, {variances[-1]:.3g} in the end\n")
    chance = random_world("maze", args.seed, args.agent_steps)
    visited, elsewhere = novelty_by_visits(objective, world, tour)
    rows: dict[str, list[float | str]] = {
        "random actions": [chance.cells, "", ""],
        "Disagreement": [world.cells, 1e3 * visited, 1e3 * elsewhere],
    }
    table(["cells visited (%)", "variance there (1e-3)", "variance elsewhere (1e-3)"], rows)


if __name__ == "__main__":
    main()
