"""SAC-AE: a SAC from pixels whose encoder also has to let a decoder paint the observation.

    python examples/sac_ae.py         # about 30 seconds on one core; writes runs/examples/sac_ae.png

SAC-AE learns from single observations beside a policy (``encoder_gradient="both"``): the decoder paints 5-bit images
from the critic's own code, which ``share_projection`` lends to the objective and which is bounded by a Tanh, with a
penalty on its length; no noise and no augmentation. The actor never trains the encoder. Printed for unseen episodes,
beside the same networks untrained (the decoder begins with the arena's mean colour): the mean return, and that of
random actions, the reconstruction error (in units of the target's range of 1), and how well the position is read from
the features (R² of a linear read-out). In the picture: observations, and what the decoder paints of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from toy_agent import REPEAT, live, mean_return, random_return
from toy_data import UNSEEN, ToyWorld, batches, begin_with_mean_colour, measured, options, position, random_world, table
from visrep.encoders import build_encoder
from visrep.objectives.parts.ema import frozen_copy
from visrep.objectives.sac_ae import SACAEConfig, SACAEObjective
from visrep.pace import LearningRate
from visrep.policies.nets import adam
from visrep.policies.sac import SAC, SACConfig
from visrep.results.figures import frame_sheet, save
from visrep.runs.representation import make_representation
from visrep.runs.sheets import newest
from visrep.runs.update import Learner, update

LR, SHOWN = 1e-3, 12
PICTURE = Path("runs/examples/sac_ae.png")


def main() -> None:
    args = options(__doc__, agent_steps=9_000)
    world = ToyWorld("open_center", args.seed, REPEAT)
    unseen = random_world("open_center", args.seed + UNSEEN, 9_600, REPEAT)
    encoder = build_encoder("proto", world.contract, channels=16, init="delta_orthogonal")
    config = SACConfig(
        hidden_dim=128, feature_dim=50, actor_update_frequency=1, critic_target_update_frequency=1, trunk_tanh=True,
        critic_target_tau=0.05, trunk_target_tau=0.05, conv_target_tau=0.05, log_density="sac_ae",
    )  # fmt: skip
    policy = SAC(encoder.feature_dim, world.actions.dim, config, LR)
    objective = SACAEObjective(encoder, world.actions, SACAEConfig(sac_ae_dim=50, decoder_channels=16))
    begin_with_mean_colour(objective.decoder, unseen, lambda grey: grey - 0.5)
    objective.share_projection(policy.critic.trunk)  # before its optimisers are made: they step the trunk too
    learner = Learner(
        encoder=encoder,
        policy=policy,
        generator=torch.Generator().manual_seed(args.seed),
        objective=objective,
        # Two Adams from one backward pass: encoder and code, and the decoder with its weight decay.
        representation=make_representation(objective, LearningRate(LR), train_encoder=True),
        target_encoder=frozen_copy(encoder),
        encoder_optimizer=adam(encoder.parameters(), LR),
        encoder_gradient="both",
        n_step=3,
    )

    def scores() -> list[float]:
        error = measured(objective, batches(unseen, objective, 8))["reconstruction_error"]
        return [mean_return(world, learner, args.seed), 1e3 * error, position(encoder, unseen)["probe_state_r2"]]

    rows: dict[str, list[float]] = {"untrained": scores()}
    for tick, batch in enumerate(live(world, learner, args.agent_steps)):
        update(learner, batch, tick, world.agent_step)
    rows["SAC-AE"] = scores()
    print(f"random actions: return {random_return('open_center', args.seed):.3g}\n")
    table(["return", "error (1e-3)", "position R²"], rows)
    with torch.no_grad():
        pair = objective.painted(next(batches(unseen, objective, 1, batch_size=SHOWN)))
    sheet = frame_sheet(np.concatenate([newest(images, 3) for images in pair]), SHOWN)
    print(f"\nobservations, and what is painted of them: {save(sheet, PICTURE)}")


if __name__ == "__main__":
    main()
