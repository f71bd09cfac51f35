"""ATC on recorded toy episodes: tell an observation's near future from the futures of others.

    python examples/atc.py            # about 20 seconds on one core

ATC learns from pairs of observations some steps apart, without actions or reward: of the futures of a whole batch, pick
one's own, each image shifted at random. The momentum copy that codes the futures moves in ``after_update``. The loop is
written out here; the other scripts without a policy call it ``train``. Printed for unseen episodes, beside the encoder
at its first weights: the share of right picks out of 64, how well the position is read from the frozen features (R² of
a linear read-out), and how many directions these use (RankMe).
"""

from __future__ import annotations

import torch

from toy_data import UNSEEN, batches, measured, options, position, random_world, table
from visrep.encoders import build_encoder
from visrep.objectives.atc import ATCConfig, ATCObjective

SHIFT = "shift(1)"  # pixels of 24; the paper's 4 of 84


def main() -> None:
    args = options(__doc__, updates=900, recorded=9_600)
    world, unseen = (random_world("maze", args.seed + more, args.recorded, action_repeat=4) for more in (0, UNSEEN))
    encoder = build_encoder("proto", world.contract, channels=16)
    objective = ATCObjective(encoder, world.actions, ATCConfig(atc_shift=1))

    def scores() -> list[float]:
        picked, probe = measured(objective, batches(unseen, objective, 8, SHIFT)), position(encoder, unseen)
        return [100.0 * picked["accuracy"], probe["probe_state_r2"], probe["probe_rankme"]]

    rows = {"random encoder": scores()}
    # The objective's parameters are its heads and targets (these take no gradient); the encoder is shared, not owned.
    optimizer = torch.optim.Adam([*encoder.parameters(), *objective.parameters()], lr=1e-3)
    for update, batch in enumerate(batches(world, objective, args.updates, SHIFT)):
        loss = objective(batch)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        objective.after_update()
        if update % 100 == 0:
            print(f"update {update:4d}  loss {loss.total.item():.3f}  accuracy {loss.parts['accuracy'].item():.2f}")
    rows["ATC"] = scores()
    print()
    table(["futures picked (%)", "position R²", "RankMe"], rows)


if __name__ == "__main__":
    main()
