"""VAE-T on recorded toy episodes: paint the future from an observation and the actions that come after it.

    python examples/vae_t.py          # about 20 seconds on one core; writes runs/examples/vae_t.png

VAE-T learns from an observation, the k actions after it and the observation they lead to, here two steps later; no
reward. Printed for unseen episodes are three errors of the picture of the future: of the present painted in its place,
of the decoder with other rows' actions, and of the decoder with the right ones, which is the smallest where the code
holds the point's place and the actions move it; and, beside the encoder at its first weights, how well the position is
read from the features (R² of a linear read-out). In the picture: present, future, and the future as painted.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from toy_data import UNSEEN, batches, begin_with_mean_colour, measured, options, position, random_world, table, train
from visrep.data.batch import Batch
from visrep.encoders import build_encoder
from visrep.objectives.vae_t import VAETConfig, VAETObjective
from visrep.results.figures import frame_sheet, save
from visrep.runs.sheets import newest

K = 2  # agent steps ahead
SHOWN = 12  # observations in the picture
PICTURE = Path("runs/examples/vae_t.png")


def other_actions(batch: Batch) -> Batch:
    """The same images, each with the actions of the row before it."""
    return replace(batch, fields={"action": batch.fields["action"].roll(1, dims=0)})


def present_error(batch: Batch) -> float:
    """Mean squared difference of present and future in 0..1, over the rows whose future lies in their episode."""
    valid = batch.valid[:, batch.offsets.index(K)]
    return float(((batch.image(0)[valid] / 255.0 - batch.image(K)[valid] / 255.0) ** 2).mean())


def main() -> None:
    args = options(__doc__, updates=1_200, recorded=9_600)
    world, unseen = (random_world("open", args.seed + more, args.recorded, 4, stack=1) for more in (0, UNSEEN))
    encoder = build_encoder("proto", world.contract, channels=16)
    config = VAETConfig(vae_k=K, vae_dim=16, vae_hidden_dim=128, vae_beta=0.03, decoder_channels=16)
    objective = VAETObjective(encoder, world.actions, config)
    begin_with_mean_colour(objective.decoder, world, torch.logit)
    untrained = position(encoder, unseen)["probe_state_r2"]
    train(objective, batches(world, objective, args.updates, batch_size=32), lr=2e-3)

    given = list(batches(unseen, objective, 8))
    errors = {
        "the present": float(np.mean([present_error(batch) for batch in given])),
        "painted, others' actions": measured(objective, map(other_actions, given))["reconstruction_error"],
        "painted, right actions": measured(objective, given)["reconstruction_error"],
    }
    table(["error (1e-3)"], {name: [1e3 * error] for name, error in errors.items()})
    print()
    read = {"random encoder": [untrained], "VAE-T": [position(encoder, unseen)["probe_state_r2"]]}
    table(["position R²"], read)
    with torch.no_grad():
        future, painted = objective.painted(given[0])
    frames = [newest(images[:SHOWN], 3) for images in (given[0].image(0), future, painted)]  # [N, H, W, 3] each
    print(f"\npresent, future, and future as painted: {save(frame_sheet(np.concatenate(frames), SHOWN), PICTURE)}")


if __name__ == "__main__":
    main()
