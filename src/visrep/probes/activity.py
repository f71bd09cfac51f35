"""Which hidden units of an encoder never fire: activities behind every nonlinearity, measured with hooks.

Shapes: B images, H units of a layer.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

NONLINEARITIES = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus)
THRESHOLDS = (0.0, 0.025, 0.1)


class UnitActivity:
    """Mean absolute activity of every unit behind a nonlinearity, while the encoder runs inside this context.

    A convolution's unit is a channel: activities are averaged over places. A linear last layer has no nonlinearity
    behind it and is not looked at.
    """

    def __init__(self, module: nn.Module) -> None:
        self._layers = [layer for layer in module.modules() if isinstance(layer, NONLINEARITIES)]
        self._sums: dict[tuple[int, int], Tensor] = {}  # (layer, its how-manieth call in one pass)
        self._images: dict[tuple[int, int], int] = {}
        self._calls: dict[int, int] = {}
        self._handles: list[RemovableHandle] = []
        self._module = module

    def __enter__(self) -> Self:
        self._handles = [self._module.register_forward_pre_hook(self._begin)]
        for index, layer in enumerate(self._layers):

            def see(_: nn.Module, __: Any, output: Tensor, number: int = index) -> None:
                self._add(number, output)

            self._handles.append(layer.register_forward_hook(see))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _begin(self, *_: Any) -> None:
        self._calls = {}

    def _add(self, layer: int, output: Tensor) -> None:
        key = (layer, self._calls.get(layer, 0))
        self._calls[layer] = key[1] + 1
        activity = output.detach().abs().float()
        if activity.ndim > 2:
            activity = activity.flatten(2).mean(2)
        total = activity.double().sum(0)
        self._sums[key] = self._sums[key] + total if key in self._sums else total
        self._images[key] = self._images.get(key, 0) + len(output)

    def scores(self) -> Tensor | None:
        """Score of every unit relative to its layer (Sokar et al. 2023), [H]; None without hidden units."""
        if not self._sums:
            return None
        return torch.cat([unit_scores(total / self._images[key]) for key, total in sorted(self._sums.items())])

    def dormant(self) -> dict[str, float] | None:
        """Share of dormant units of all layers together, by threshold."""
        scores = self.scores()
        if scores is None:
            return None
        return {f"{threshold:g}": float(dormant_fraction(scores, threshold)) for threshold in THRESHOLDS}


def unit_scores(mean_activity: Tensor) -> Tensor:
    """Activity of each unit of a layer relative to the layer's average (Sokar et al. 2023, eq. 1), [H] to [H].

    s_i = E|h_i| / (mean over the layer of E|h_k| + 1e-9). ``mean_activity`` is E|h_i|, over samples and, in a
    convolution, over places.
    """
    return mean_activity / (mean_activity.mean() + 1e-9)


def dormant_fraction(scores: Tensor, threshold: float = 0.0) -> Tensor:
    """Share of units whose score is at most ``threshold`` (Sokar et al. 2023), [H] to a 0-d tensor."""
    return (scores <= threshold).double().mean()
