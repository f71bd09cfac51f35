"""ATS against ATC on recorded toy episodes: what do the negatives do?

    python examples/ats.py            # about 30 seconds on one core

ATS keeps ATC's pairs and drops the other rows of the batch: a predictor turns an observation's code into the direction
of its future's code, as BYOL does. Only the predictor and the slow momentum copy keep all codes from becoming equal.
Both learn from the same episodes, from the same first weights. Printed for unseen episodes, beside the encoder at those
weights: the cosine that ATS raises, how many directions the features use (RankMe), and how well the position is read
from them when frozen (R² of a linear read-out).
"""

from __future__ import annotations

from copy import deepcopy

from toy_data import UNSEEN, batches, measured, options, position, random_world, table, train
from visrep.encoders import build_encoder
from visrep.objectives.atc import ATCConfig, ATCObjective
from visrep.objectives.ats import ATSConfig, ATSObjective


def main() -> None:
    args = options(__doc__, updates=900, recorded=9_600)
    world, unseen = (random_world("maze", args.seed + more, args.recorded, action_repeat=4) for more in (0, UNSEEN))
    encoder = build_encoder("proto", world.contract, channels=16)
    ats = ATSObjective(deepcopy(encoder), world.actions, ATSConfig(atc_shift=1, atc_code_dim=128))
    atc = ATCObjective(deepcopy(encoder), world.actions, ATCConfig(atc_shift=1))
    before = measured(ats, batches(unseen, ats, 8, "shift(1)"))["cosine"]
    for objective in (ats, atc):
        train(objective, batches(world, objective, args.updates, "shift(1)"))
    after = measured(ats, batches(unseen, ats, 8, "shift(1)"))["cosine"]
    print(f"cosine of a predicted future and the true one: {before:.3f} at first, {after:.3f} in the end\n")
    rows = {}
    for name, one in {"random encoder": encoder, "ATS": ats.encoder, "ATC": atc.encoder}.items():
        probe = position(one, unseen)
        rows[name] = [probe["probe_rankme"], probe["probe_state_r2"]]
    table(["RankMe", "position R²"], rows)


if __name__ == "__main__":
    main()
