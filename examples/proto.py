"""Proto-RL on the toy maze: prototypes that cluster what is seen, and exploration away from what is remembered.

    python examples/proto.py          # about 25 seconds on one core

Proto-RL learns from pairs of neighbouring observations, without actions or reward: of 64 prototypes, predict to which
the next observation is assigned (assignments are balanced, so that all prototypes are used). One remembered projection
per prototype and update makes the queue; the distance to its nearest rows pays a SAC. Printed are the share of the
maze's cells that it visited, beside that of random actions; how many prototypes are nearest to something on a scripted
tour of all rooms; and how well the position is read from the features on that tour (R² of a linear read-out), each
beside the untrained networks.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from toy_agent import explore, walked_world
from toy_data import ToyWorld, options, position, random_world, table
from visrep.data.batch import BatchSpec
from visrep.encoders import build_encoder
from visrep.objectives.proto import ProtoConfig, ProtoObjective


@torch.no_grad()
def used(objective: ProtoObjective, tour: ToyWorld) -> int:
    """Prototypes that are the nearest one of some observation."""
    images = tour.sampler(BatchSpec(), batch_size=1_024).sample().image(0)
    code = F.normalize(objective.predictor(objective.projector(objective.encoder(images))), dim=1)  # [B, E]
    nearest = (code @ F.normalize(objective.prototypes, dim=1).T).argmax(dim=1)  # [B] of K
    return len(nearest.unique())


def main() -> None:
    args = options(__doc__, agent_steps=15_000)
    world, tour = ToyWorld("maze", args.seed), walked_world(args.seed)
    encoder = build_encoder("proto", world.contract, channels=16)
    config = ProtoConfig(num_protos=64, proj_dim=32, pred_dim=64, queue_size=1_024, sinkhorn_temperature=0.02)
    objective = ProtoObjective(encoder, world.actions, config)
    untrained = [used(objective, tour), position(encoder, tour)["probe_state_r2"]]
    for metrics in explore(world, objective, args.agent_steps, args.seed):
        reward = float(metrics["intr_reward_mean"])
    usage = float(objective.diagnostics()["prototype_usage_entropy"])
    print(f"last reward {reward:.3g}; entropy of the prototypes' use {usage:.3g} of 1\n")
    chance = random_world("maze", args.seed, args.agent_steps)
    rows = {
        "random actions, untrained": [chance.cells, *untrained],
        "Proto-RL": [world.cells, used(objective, tour), position(encoder, tour)["probe_state_r2"]],
    }
    table(["cells visited (%)", "prototypes used of 64", "position R²"], rows)


if __name__ == "__main__":
    main()
