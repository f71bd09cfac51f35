"""What an agent's actions are: continuous values, or one of a number of classes.

Shapes: A action values as stored, W width of the encoded action.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class ActionSpec:
    """Actions as a store keeps them and as networks take them.

    Attributes:
        dim: A values per action as stored: all of a continuous action, 1 for a discrete one.
        classes: number of discrete actions; 0 for continuous ones in [-1, 1].
    """

    dim: int
    classes: int = 0

    def __post_init__(self) -> None:
        if self.dim < 1 or (self.classes and self.dim != 1):
            raise ValueError(f"a continuous action has at least one value, a discrete one exactly one; got {self}")

    @property
    def discrete(self) -> bool:
        """Whether an action is the number of a class."""
        return self.classes > 0

    @property
    def width(self) -> int:
        """W: values of ``encode``'s result."""
        return self.classes or self.dim

    @property
    def dtype(self) -> str:
        """NumPy name of the stored values."""
        return "int64" if self.discrete else "float32"

    def encode(self, action: Tensor) -> Tensor:
        """What a network takes: [..., A] as it is where continuous, one-hot float32 [..., W] where discrete."""
        return F.one_hot(action.squeeze(-1).long(), self.classes).float() if self.discrete else action
