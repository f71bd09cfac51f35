"""ICM on the toy maze: be curious where a forward model on learned features errs.

    python examples/icm.py            # about 25 seconds on one core

ICM learns from transitions: a forward model predicts the next features from features and action, and an inverse model,
which names the action between two observations, keeps the features from falling together. A SAC is paid by (the log of)
the forward error alone. Printed are the share of the maze's cells that it visited, beside that of random actions; the
novelty along a scripted tour of all rooms, in visited cells and in the others; and how much of the actions' variance
the inverse model explains in what it has visited (R²; little: an action moves the point by half a pixel at most).
"""

from __future__ import annotations

import torch

from toy_agent import explore, novelty_by_visits, walked_world
from toy_data import ToyWorld, options, random_world, table
from visrep.encoders import build_encoder
from visrep.objectives.icm import ICMConfig, ICMObjective


@torch.no_grad()
def inverse_r2(objective: ICMObjective, world: ToyWorld) -> float:
    """R² of the actions that the inverse model reads from pairs of observations."""
    batch = world.sampler(objective.needs(), batch_size=256).sample()
    action, pair = batch.at("action", 1), [objective.encoder(batch.image(offset)) for offset in (0, 1)]
    squared = objective.models.inverse_error(pair[0], action, pair[1]).square()  # of a Euclidean norm: [B, 1]
    return 1.0 - float(squared.sum() / (action - action.mean(0)).square().sum())


def main() -> None:
    args = options(__doc__, agent_steps=15_000)
    world, tour = ToyWorld("maze", args.seed), walked_world(args.seed)
    encoder = build_encoder("proto", world.contract, channels=16)
    objective = ICMObjective(encoder, world.actions, ICMConfig(icm_hidden_dim=128))
    paid = [float(m["intr_reward_mean"]) for m in explore(world, objective, args.agent_steps, args.seed)]
    print(f"mean reward of a batch: {paid[0]:.3g} at first, {paid[-1]:.3g} in the end")
    print(f"R² of the actions in what was visited: {inverse_r2(objective, world):.2f}\n")
    chance = random_world("maze", args.seed, args.agent_steps)
    rows: dict[str, list[float | str]] = {
        "random actions": [chance.cells, "", ""],
        "ICM": [world.cells, *novelty_by_visits(objective, world, tour)],
    }
    table(["cells visited (%)", "novelty there", "novelty elsewhere"], rows)


if __name__ == "__main__":
    main()
