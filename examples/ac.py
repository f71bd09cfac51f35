"""AC against ATC on recorded toy episodes: what does contrast over time add to contrast over augmentations?

    python examples/ac.py             # about 30 seconds on one core

AC is ATC without time: the positive is another augmentation of the same observation (``needs`` asks for two views of
one offset instead of two offsets), and the residual predictor, whose work was to look ahead, is left out. Both learn
from the same episodes, from the same first weights. Printed for unseen episodes, beside the encoder at those weights:
how well the position is read from the frozen features (R² of a linear read-out), and how often an observation's
features are, of those of 256 observations one and three steps later, most like those of its own future. In an arena
that one image shows completely, AC is no worse at finding the next step; mostly both read the position alike.
"""

from __future__ import annotations

from copy import deepcopy

from toy_data import UNSEEN, batches, future_found, options, position, random_world, table, train
from visrep.encoders import build_encoder
from visrep.objectives import Objective
from visrep.objectives.ac import ACConfig, ACObjective
from visrep.objectives.atc import ATCConfig, ATCObjective


def main() -> None:
    args = options(__doc__, updates=900, recorded=9_600)
    world, unseen = (random_world("maze", args.seed + more, args.recorded, action_repeat=4) for more in (0, UNSEEN))
    encoder = build_encoder("proto", world.contract, channels=16)
    objectives: dict[str, Objective] = {
        "AC": ACObjective(deepcopy(encoder), world.actions, ACConfig()),
        "ATC": ATCObjective(deepcopy(encoder), world.actions, ATCConfig(atc_shift=1)),
    }
    for name, objective in objectives.items():
        spec = objective.needs()
        print(f"{name:3}  offsets {spec.offsets}, views {spec.views}")
        train(objective, batches(world, objective, args.updates, "shift(1)"))
    print()
    encoders = {"random encoder": encoder, **{name: objective.encoder for name, objective in objectives.items()}}
    rows = {
        name: [
            position(one, unseen)["probe_state_r2"],
            100.0 * future_found(one, unseen, ahead=1),
            100.0 * future_found(one, unseen, ahead=3),
        ]
        for name, one in encoders.items()
    }
    table(["position R²", "found 1 step later (%)", "found 3 steps later (%)"], rows)


if __name__ == "__main__":
    main()
