"""Helpers of the policies' golden tests: arrays into modules, and the scaled error of the golden README."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from load import Case
from torch import Tensor, nn

FLOAT64_TOLERANCE = 1e-7
Arrays = Mapping[str, np.ndarray[Any, Any]]


def tensor(array: np.ndarray[Any, Any], dtype: torch.dtype) -> Tensor:
    """Floating arrays in ``dtype``, others as they are."""
    value = torch.from_numpy(np.array(array))
    return value.to(dtype) if value.is_floating_point() else value


def below(arrays: Arrays, prefix: str) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays whose name starts with ``prefix.``, without it."""
    return {name.removeprefix(prefix + "."): a for name, a in arrays.items() if name.startswith(prefix + ".")}


def load_weights(module: nn.Module, arrays: Arrays, prefix: str) -> None:
    """Fill every parameter of ``module`` from the arrays below ``prefix``; names must agree exactly."""
    dtype = next(module.parameters()).dtype
    module.load_state_dict({name: tensor(a, dtype) for name, a in below(arrays, prefix).items()})


def scaled_error(got: Tensor | float, want: np.ndarray[Any, Any]) -> float:
    """max|a - b| / max(max|b|, 1e-6)."""
    a = np.asarray(got.detach().numpy() if isinstance(got, Tensor) else got, dtype=np.float64)
    b = np.asarray(want, dtype=np.float64)
    assert a.shape == b.shape, f"shape {a.shape} instead of {b.shape}"
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-6))


def assert_scaled(got: Tensor | float, want: np.ndarray[Any, Any], tolerance: float, name: str) -> None:
    """Fail, naming the array, unless the scaled error is within ``tolerance``."""
    error = scaled_error(got, want)
    assert error <= tolerance, f"{name}: scaled error {error:.2e} > {tolerance:.0e}"


def assert_gradients(module: nn.Module, arrays: Arrays, prefix: str, tolerance: float) -> None:
    """Compare the gradient of every parameter with the arrays below ``prefix``."""
    expected = below(arrays, prefix)
    assert expected.keys() == dict(module.named_parameters()).keys()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, f"{prefix}.{name} has no gradient"
        assert_scaled(parameter.grad, expected[name], tolerance, f"grad {prefix}.{name}")


def assert_weights(module: nn.Module, arrays: Arrays, prefix: str, tolerance: float) -> None:
    """Compare every parameter with the arrays below ``prefix``."""
    expected = below(arrays, prefix)
    assert expected.keys() == dict(module.named_parameters()).keys()
    for name, parameter in module.named_parameters():
        assert_scaled(parameter, expected[name], tolerance, f"{prefix}.{name}")


def digest(weights: Tensor) -> Tensor:
    """How large arrays are stored: [sum, L2 norm, max |w|, every 97th element]."""
    flat = weights.detach().flatten()
    return torch.cat([torch.stack([flat.sum(), flat.norm(), flat.abs().max()]), flat[::97]])


def references(case: Case, run: str) -> list[tuple[Arrays, Arrays]]:
    """Results and gradients that a run agrees with: the float64 arrays, and in float32 the public code's own too."""
    suffixes = ("64",) if run == "float64" else ("64", "")
    return [(case[f"out{suffix}"], case[f"grad{suffix}"]) for suffix in suffixes]


def precision_of(run: str, float32_tolerance: float) -> tuple[torch.dtype, float]:
    """dtype and tolerance of the run "float32" or "float64"; both are compared with the float64 arrays.

    The float32 arrays carry the public code's own rounding, which reaches the tolerance itself where a density is taken
    as (x - mean)^2 of nearly equal numbers; ours comes from the noise and stays closer to the float64 values.
    """
    return (torch.float64, FLOAT64_TOLERANCE) if run == "float64" else (torch.float32, float32_tolerance)
