"""The projection (Linear, LayerNorm, perhaps Tanh) that an objective may share with a critic; its own until then.

Shapes: B batch, D features, F projection.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from visrep.data.actions import ActionSpec
from visrep.encoders.contract import Encoder
from visrep.errors import UserError
from visrep.initialisation import orthogonal_init
from visrep.objectives.contract import Objective


class ProjectedObjective(Objective):
    """An objective on a projection of the features, [B, D] to [B, F] (``UsesProjection``).

    Args:
        dim: F.
        tanh: the code is bounded by a Tanh (SAC-AE; CURL has none).
    """

    def __init__(self, encoder: Encoder, actions: ActionSpec, dim: int, tanh: bool) -> None:
        super().__init__(encoder, actions)
        self.projection_dim, self.tanh = dim, tanh
        layers: list[nn.Module] = [nn.Linear(encoder.feature_dim, dim), nn.LayerNorm(dim)]
        self.own_projection: nn.Module | None = nn.Sequential(*layers, *([nn.Tanh()] if tanh else []))
        orthogonal_init(self.own_projection)
        # A tuple hides a critic's module from nn.Module's registration: it is shared, not owned.
        self._given: tuple[nn.Module, ...] = ()

    @property
    def projection(self) -> nn.Module:
        """The critic's projection where one was given, else its own."""
        if self._given:
            return self._given[0]
        assert self.own_projection is not None, "dropped only for a given one"
        return self.own_projection

    def projection_parameters(self, train_encoder: bool) -> list[nn.Parameter]:
        """What an optimiser of this objective steps: its own projection always, a critic's where it trains the encoder.

        A critic's projection lies, like the encoder, below the critic's own heads.
        """
        return list(self.projection.parameters()) if train_encoder or not self._given else []

    def lacks_projection(self, state: Mapping[str, Tensor]) -> bool:
        """Whether a state dict of such an objective was written while it used a critic's projection."""
        return not any(name.startswith("own_projection.") for name in state)

    def share_projection(self, projection: nn.Module) -> None:
        """Use the critic's projection from now on; a Tanh is put behind it where this objective has one and it not.

        Raises:
            UserError: it gives another number of values than this objective's own.
        """
        weight = next(projection.parameters())
        with torch.no_grad():
            width = projection(weight.new_zeros(1, self.encoder.feature_dim)).shape[1]
        if width != self.projection_dim:
            raise UserError(
                f"method={self.name}: the critic's projection has {width} outputs, the method's own has "
                f"{self.projection_dim}: give the policy's feature_dim and the method's dimension the same value"
            )
        if self.tanh and not any(isinstance(module, nn.Tanh) for module in projection.modules()):
            projection = nn.Sequential(projection, nn.Tanh())
        self._given, self.own_projection = (projection,), None
