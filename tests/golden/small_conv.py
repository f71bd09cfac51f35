"""Golden cases with a small pixel encoder: the widths of their layers, and their weights in modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from compare import Arrays, assert_scaled, below, tensor
from contrast_case import TwoConvs
from torch import nn

from visrep.objectives.parts.decoder import ConvShape


def small_conv(shape: tuple[int, int, int], param: Arrays, names: tuple[str, str]) -> TwoConvs:
    """The encoder of a case, on images in 0..255, as wide as the convolutions of these names."""
    first, second = (len(param[f"{name}.weight"]) for name in names)
    return TwoConvs(shape, (first, second), divide=True)


def mirrored(param: Arrays, names: Sequence[str], strides: Sequence[int]) -> list[ConvShape]:
    """What the case's transposed convolutions, named from the code on, undo; from the image on."""
    filters = [len(param[f"{name}.weight"]) for name in reversed(names)]
    return [ConvShape(width, 3, stride) for width, stride in zip(filters, strides, strict=True)]


Places = Mapping[str, nn.Module]  # golden name of a layer -> ours


def fill_places(places: Places, param: Arrays) -> None:
    """Weight and bias of every layer from the arrays below its golden name."""
    for name, layer in places.items():
        dtype = next(layer.parameters()).dtype
        layer.load_state_dict({key: tensor(array, dtype) for key, array in below(param, name).items()})


def check_places(places: Places, expected: Arrays, tolerance: float, gradients: bool) -> None:
    """Every expected array, weights or gradients, against the layer of its name; none may be left over."""
    seen = set()
    for name, layer in places.items():
        for key, parameter in layer.named_parameters():
            got = parameter.grad if gradients else parameter
            assert got is not None, f"{name}.{key} has no gradient"
            assert_scaled(got, expected[f"{name}.{key}"], tolerance, f"{name}.{key}")
            seen.add(f"{name}.{key}")
    assert seen == expected.keys()
