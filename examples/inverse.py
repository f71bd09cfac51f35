"""Inverse model on recorded toy episodes: tell which action lay between two observations.

    python examples/inverse.py        # about 20 seconds on one core

The inverse model learns from pairs of observations and the action between them; no reward. What does not help to name
the action (the walls' colour) need not be kept, what moves by it must be. Printed for unseen episodes, beside the
networks at their first weights: how much of the actions' variance is explained (R²; a wall that stops the point hides
the rest), and how well the position is read from the frozen features (R² of a linear read-out).
"""

from __future__ import annotations

import torch

from toy_data import UNSEEN, ToyWorld, batches, measured, options, position, random_world, table, train
from visrep.encoders import build_encoder
from visrep.objectives.inverse import InverseConfig, InverseObjective


def action_r2(objective: InverseObjective, unseen: ToyWorld) -> float:
    """1 - the mean squared error of the actions over their variance."""
    given = list(batches(unseen, objective, 8))
    variance = torch.cat([batch.at("action", 1) for batch in given]).var(dim=0, correction=0).mean()
    return 1.0 - measured(objective, given)["inverse_error"] / float(variance)


def main() -> None:
    args = options(__doc__, updates=900, recorded=9_600)
    world, unseen = (random_world("maze", args.seed + more, args.recorded, action_repeat=4) for more in (0, UNSEEN))
    encoder = build_encoder("proto", world.contract, channels=16)
    objective = InverseObjective(encoder, world.actions, InverseConfig(inverse_k=1, inverse_hidden_dim=256))

    def scores() -> list[float]:
        return [action_r2(objective, unseen), position(encoder, unseen)["probe_state_r2"]]

    rows = {"random encoder": scores()}
    train(objective, batches(world, objective, args.updates, "shift(1)"))
    rows["inverse model"] = scores()
    table(["actions R²", "position R²"], rows)


if __name__ == "__main__":
    main()
