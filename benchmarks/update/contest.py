"""What every comparison of one update with a public reference keeps to, and what their sides share.

One file per reference (``reference_*.py``) holds its contests: how the public agent is made, how it is stepped, and our
learner at its settings with its weights.
"""

from __future__ import annotations

import abc
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar
from unittest import mock

import torch
from torch import Tensor, nn

from visrep.data.batch import Batch
from visrep.policies.contract import PolicyNoise

ACTION_DIM = 6
OBS_SHAPE = (9, 84, 84)
# Relative difference of each loss after one update on identical weights and inputs.
LOSS_TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2}

Step = Callable[[int], Any]
Losses = dict[str, float]


@dataclass(frozen=True)
class Transitions:
    """One batch of random content, the same for both sides: obs and next_obs uint8 [B, 9, 84, 84], the rest float32."""

    obs: Tensor
    action: Tensor  # [B, A]
    reward: Tensor  # [B, 1]
    discount: Tensor  # [B, 1]
    next_obs: Tensor

    @staticmethod
    def draw(batch_size: int) -> Transitions:
        g = torch.Generator().manual_seed(1)
        obs, next_obs = (
            torch.randint(0, 256, (batch_size, *OBS_SHAPE), generator=g, dtype=torch.uint8) for _ in range(2)
        )
        action = torch.rand(batch_size, ACTION_DIM, generator=g) * 2 - 1
        reward = torch.rand(batch_size, 1, generator=g)
        return Transitions(obs, action, reward, torch.full_like(reward, 0.99), next_obs)

    def batch(self) -> Batch:
        """As our sampler hands them over: images uint8 [B, T, S*C, H, W]; nothing ends."""
        going_on = torch.zeros(len(self.obs), 2, 1, dtype=torch.bool)
        action = torch.stack([torch.zeros_like(self.action), self.action], dim=1)
        return Batch(
            images=[torch.stack([self.obs, self.next_obs], dim=1)],
            offsets=(0, 1),
            valid=torch.ones(len(self.obs), 2, dtype=torch.bool),
            fields={"action": action, "is_last": going_on, "terminal": going_on},
            n_step_return=self.reward,
            n_step_discount=self.discount,
        )


@dataclass(frozen=True)
class Draws:
    """What both sides get instead of random numbers when their losses are compared."""

    noise: PolicyNoise
    candidates: Tensor  # rows that Proto-RL puts into its queue

    @staticmethod
    def draw(data: Transitions) -> Draws:
        g = torch.Generator().manual_seed(2)
        noise = PolicyNoise.draw(data.action, g)
        return Draws(noise, torch.randint(len(data.obs), (512,), generator=g))


class Contest(abc.ABC):
    """One update of a public agent against ours.

    Attributes:
        name: key of its results.
        title: what is compared, for tables.
        checkout: name of the public repository's option on the command line.
        repository: where the public code is.
        batch_size: transitions.
        ticks: the updates over which is averaged ("every second update" frequencies).
        bars: asked-for ratio by precision.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    checkout: ClassVar[str]
    repository: ClassVar[str]
    batch_size: ClassVar[int]
    ticks: ClassVar[tuple[int, ...]]
    bars: ClassVar[dict[str, float]]

    @abc.abstractmethod
    def agent(self, folder: Path) -> Any:
        """The public agent at its published settings on the CPU, from a checkout; weights from torch's global seed."""

    @abc.abstractmethod
    def reference_step(self, agent: Any, data: Transitions) -> Step:
        """One update of the agent on the batch, with its augmentation; takes the tick."""

    @abc.abstractmethod
    def our_step(self, agent: Any, data: Transitions, precision: str) -> Step:
        """One update of ours at the agent's settings, from its weights, with our augmentation; takes the tick."""

    @abc.abstractmethod
    def reference_losses(self, agent: Any, data: Transitions, draws: Draws) -> Losses:
        """Losses of the agent's first update, not augmented."""

    @abc.abstractmethod
    def our_losses(self, agent: Any, data: Transitions, draws: Draws, precision: str) -> Losses:
        """The same losses of ours from the agent's weights."""

    def compare_losses(self, folder: Path) -> dict[str, Any]:
        """Losses of both sides, and the worst relative difference by precision."""
        data = Transitions.draw(self.batch_size)
        draws = Draws.draw(data)
        torch.manual_seed(0)
        agent = self.agent(folder)
        ours = {precision: self.our_losses(agent, data, draws, precision) for precision in LOSS_TOLERANCE}
        expected = self.reference_losses(agent, data, draws)
        result: dict[str, Any] = {"reference": expected}
        for precision, got in ours.items():
            worst = max(abs(got[key] - value) / max(abs(value), 1e-6) for key, value in expected.items())
            result[precision] = got | {"worst_relative_difference": worst}
        return result


def load(folder: Path, name: str, stand_ins: dict[str, ModuleType] | None = None, forget: Sequence[str] = ()) -> Any:
    """Import module ``name`` (dotted for a package's) of a checkout.

    Args:
        folder: the checkout.
        name: of the module.
        stand_ins: modules that take the place of packages which an update does not need; they do not stay.
        forget: modules to import anew: checkouts that call their own helpers alike.
    """
    if not (folder / name.replace(".", "/")).with_suffix(".py").exists():
        raise SystemExit(f"{folder} holds no {name}: clone the public repository there")
    with ExitStack() as stack:
        if stand_ins is not None:
            stack.enter_context(mock.patch.dict(sys.modules, stand_ins))
        for module in forget:
            sys.modules.pop(module, None)
        sys.path.insert(0, str(folder))
        stack.callback(sys.path.remove, str(folder))
        return importlib.import_module(name)


def copy_in_order(ours: nn.Module, theirs: nn.Module) -> None:
    """Copy parameters by position; both sides list the same layers in the same order."""
    with torch.no_grad():
        for mine, given in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.copy_(given)


@contextmanager
def recorded_losses() -> Iterator[list[float]]:
    """Collect the value of every loss that is back-propagated, in order."""
    losses: list[float] = []
    backward = Tensor.backward

    def recording(self: Tensor, *args: Any, **kwargs: Any) -> None:
        losses.append(float(self.detach()))
        backward(self, *args, **kwargs)

    with mock.patch.object(Tensor, "backward", recording):
        yield losses
