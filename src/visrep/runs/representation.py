"""One step of the objective, wherever it runs: beside a policy or offline on recorded experience.

Shapes: those of the objective's batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from visrep.data.batch import Batch
from visrep.objectives.contract import Objective
from visrep.pace import LearningRate
from visrep.policies.nets import adam
from visrep.runs.precision import autocast


@dataclass
class Representation:
    """The objective with what steps it.

    Attributes:
        objective: gives the loss.
        optimizers: one Adam per parameter group of the objective, by name. A parameter may be in several.
        rate: learning rate by update.
        first_index: value of the counter that ``rate`` sees at the first update (0 offline, 1 beside a policy).
        clip_norm: bound of the gradient's norm over everything that a step moves; None for none.
        precision: "bf16" autocasts encoder and heads.
        updates: steps made; survives a crash.
    """

    objective: Objective
    optimizers: dict[str, Optimizer]
    rate: LearningRate
    first_index: int = 1
    clip_norm: float | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    updates: int = 0
    _moved: list[nn.Parameter] = field(init=False)

    def __post_init__(self) -> None:
        """Collect every parameter once, for the clipping."""
        groups = [group for optimizer in self.optimizers.values() for group in optimizer.param_groups]
        self._moved = list(dict.fromkeys(parameter for group in groups for parameter in group["params"]))

    @property
    def next_rate(self) -> float:
        """Learning rate of the next step."""
        return self.rate.at(self.updates + self.first_index)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Loss, clipped gradient, one step of every optimiser, then the objective's own moves; 0-d metrics."""
        rate = self.next_rate
        with autocast(batch.images[0].device, self.precision):
            loss = self.objective(batch)
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = rate
        loss.total.backward()
        metrics = {f"repr_{name.removeprefix('repr_')}": value for name, value in loss.parts.items()}
        metrics["repr_loss"] = loss.total.detach()
        if self.clip_norm is not None:
            metrics["repr_grad_norm"] = torch.nn.utils.clip_grad_norm_(self._moved, self.clip_norm)
        for optimizer in self.optimizers.values():
            optimizer.step()
        self.objective.after_update()
        self.updates += 1
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """The counter and every optimiser's state."""
        states = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        return {"updates": self.updates, "optimizers": states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` stood."""
        self.updates = state["updates"]
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])


def make_representation(
    objective: Objective,
    rate: LearningRate,
    train_encoder: bool,
    first_index: int = 1,
    clip_norm: float | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> Representation | None:
    """The objective with one Adam per parameter group; None where it has nothing to train."""
    groups = [group for group in objective.parameter_groups(train_encoder) if group.parameters]
    optimizers: dict[str, Optimizer] = {
        group.name: adam(group.parameters, rate.peak, weight_decay=group.weight_decay) for group in groups
    }
    if not optimizers:
        return None
    return Representation(objective, optimizers, rate, first_index, clip_norm, precision)
