"""VAE and β-VAE on recorded toy episodes: paint an observation from a small code, and pay for every nat of it.

    python examples/vae.py            # about 20 seconds on one core; writes runs/examples/vae.png

The VAE learns from single observations, without actions, reward or augmentation. β weighs the KL against the
likelihood: a large one empties the code, and what gets lost is the point, which is only a few of the pixels. Two VAEs
learn from the same episodes and first weights, one with a small β and one with the published code's (the number of
channels, here 3). Printed for unseen episodes: the reconstruction error, the KL in all and of the three latents that
hold most of it, and how well the position is read from the encoder's features (R² of a linear read-out). In the
picture: observations, then what each VAE paints of them.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import torch

from toy_data import (
    UNSEEN,
    ToyWorld,
    batches,
    begin_with_mean_colour,
    measured,
    options,
    position,
    random_world,
    table,
    train,
)
from visrep.data.batch import BatchSpec
from visrep.encoders import build_encoder
from visrep.objectives.vae import VAEConfig, VAEObjective
from visrep.results.figures import frame_sheet, save
from visrep.runs.sheets import newest

SHOWN = 12  # observations in the picture
PICTURE = Path("runs/examples/vae.png")


@torch.no_grad()
def latent_kl(objective: VAEObjective, unseen: ToyWorld) -> torch.Tensor:
    """Nats of each latent, over 256 observations, largest first: [Z]."""
    batch = next(batches(unseen, objective, 1, batch_size=256))
    mean, log_variance = objective.encode(objective.encoder(batch.image(0)))  # [B, Z] each
    kl = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1.0)  # [B, Z], before kl_to_standard_normal sums
    return kl.mean(0).sort(descending=True).values


def main() -> None:
    args = options(__doc__, updates=700, recorded=9_600)
    world, unseen = (random_world("open", args.seed + more, args.recorded, 4, stack=1) for more in (0, UNSEEN))
    encoder = build_encoder("proto", world.contract, channels=16)
    shown = unseen.sampler(BatchSpec(), SHOWN).sample()
    rows: dict[str, list[float | str]] = {"random encoder": ["", "", "", position(encoder, unseen)["probe_state_r2"]]}
    pictures = [newest(shown.image(0), 3)]  # [N, H, W, 3]
    for beta in (0.03, 3.0):
        config = VAEConfig(vae_dim=16, vae_beta=beta, decoder_channels=16)
        objective = VAEObjective(deepcopy(encoder), world.actions, config)
        begin_with_mean_colour(objective.decoder, world, torch.logit)
        train(objective, batches(world, objective, args.updates, batch_size=32), lr=2e-3)
        error = measured(objective, batches(unseen, objective, 8))["reconstruction_error"]
        kl, r2 = latent_kl(objective, unseen), position(objective.encoder, unseen)["probe_state_r2"]
        rows[f"VAE, beta {beta:g}"] = [1e3 * error, float(kl.sum()), " ".join(f"{nats:.2g}" for nats in kl[:3]), r2]
        with torch.no_grad():
            pictures.append(newest(objective.painted(shown)[1], 3))
    table(["error (1e-3)", "KL (nats)", "of the first latents", "position R²"], rows)
    print(f"\nobservations, and what each VAE paints: {save(frame_sheet(np.concatenate(pictures), SHOWN), PICTURE)}")


if __name__ == "__main__":
    main()
