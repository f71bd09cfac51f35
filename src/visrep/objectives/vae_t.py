"""VAE-T: from an observation and the actions after it, paint the observation k steps later.

Stooke, Lee, Abbeel, Laskin: "Decoupling Representation Learning from Reinforcement Learning", ICML 2021 (a baseline).
"""

from __future__ import annotations

from pydantic import Field

from visrep.data.actions import ActionSpec
from visrep.data.batch import BatchSpec
from visrep.encoders.contract import Encoder
from visrep.objectives.contract import OBJECTIVES
from visrep.objectives.vae import VAEConfig, VAEObjective


class VAETConfig(VAEConfig):
    """Settings of VAE-T, ATC's values for DeepMind Control."""

    vae_k: int = Field(1, ge=1, description="agent steps from the encoded to the decoded observation")
    vae_hidden_dim: int = Field(512, ge=0, description="hidden units between that layer and the code; 0: none")


@OBJECTIVES.register("vae_t")
class VAETObjective(VAEObjective):
    """The VAE with a target k steps later; rows whose target lies in another episode are masked."""

    Config = VAETConfig

    def __init__(self, encoder: Encoder, actions: ActionSpec, config: VAETConfig) -> None:
        super().__init__(encoder, actions, config, k=config.vae_k)

    def needs(self) -> BatchSpec:
        """Two observations k steps apart and the actions between."""
        return BatchSpec(
            offsets=tuple(range(self.k + 1)),
            fields=frozenset({"image", "action"}),
            image_offsets=(0, self.k),
            crossing="mask",
        )
