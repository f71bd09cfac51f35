"""Helpers of the objectives' golden tests: objectives on given vectors, two precisions, layers named fc1, fc2, ..."""

from typing import Any

import numpy as np
import torch
from compare import FLOAT64_TOLERANCE, Arrays, assert_scaled, below, tensor
from load import Case
from torch import Tensor, nn

from visrep.data.actions import ActionSpec
from visrep.encoders.contract import Encoder, InputContract
from visrep.objectives import OBJECTIVES, build_objective

RUNS = ("float32", "float64")


class GivenFeatures(Encoder):
    """Stands where an encoder must; golden objectives get their features directly."""

    contract = InputContract(1, 1)

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.feature_dim = feature_dim


def objective_on(name: str, feature_dim: int, action_dim: int, dtype: torch.dtype, **config: Any) -> Any:
    cls = OBJECTIVES[name]
    return build_objective(name, GivenFeatures(feature_dim), ActionSpec(action_dim), cls.Config(**config)).to(dtype)


class Expected:
    """Arrays of one case in the precision of one run, with the tolerance that goes with it."""

    def __init__(self, case: Case, run: str, float32_tolerance: float) -> None:
        double = run == "float64"
        self.dtype = torch.float64 if double else torch.float32
        self.tolerance = FLOAT64_TOLERANCE if double else float32_tolerance
        suffix = "64" if double else ""
        # Whole numbers are stored once, without a float64 twin.
        self.out, self.grad, self.new = (
            case.get(kind, {}) | case.get(kind + suffix, {}) for kind in ("out", "grad", "new")
        )
        self.inputs = {name: tensor(array, self.dtype) for name, array in case.get("in", {}).items()}

    def check(self, got: Tensor | float, name: str, index: int | None = None) -> None:
        want = self.out[name] if index is None else self.out[name][index]
        assert_scaled(got, want, self.tolerance, f"{name}[{index}]" if index is not None else name)

    def check_gradients(self, module: nn.Module, prefix: str) -> None:
        named = dict(zip(layer_names(below(self.grad, prefix)), below(self.grad, prefix).values(), strict=True))
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, f"{prefix}.{name} has no gradient"
            assert_scaled(parameter.grad, named.pop(name), self.tolerance, f"grad {prefix}.{name}")
        assert not named


def layer_names(arrays: Arrays) -> list[str]:
    """fc1.weight → 0.weight, fc2.weight → 2.weight, ...: ReLUs take the odd places of a Sequential."""
    names = []
    for name in arrays:
        layer, _, kind = name.rpartition(".")
        place = {"linear": "0", "layernorm": "1"}.get(layer) or (str(2 * int(layer[2:]) - 2) if layer else "")
        names.append(f"{place}.{kind}" if place else kind)
    return names


def fill(module: nn.Module, param: Arrays, prefix: str) -> None:
    """Fill a Linear or a Sequential of layers from the arrays below ``prefix``."""
    arrays = below(param, prefix)
    dtype = next(module.parameters()).dtype
    values = [tensor(np.asarray(array), dtype) for array in arrays.values()]
    module.load_state_dict(dict(zip(layer_names(arrays), values, strict=True)))
