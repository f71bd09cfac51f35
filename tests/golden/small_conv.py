"""Two convolutions, as the golden cases with a small pixel encoder have them, and the case's weights in modules."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from compare import Arrays, assert_scaled, below, tensor
from torch import Tensor, nn

from visrep.encoders.contract import Encoder, InputContract


class SmallConv(Encoder):
    """Conv 3x3 stride 2, ReLU, Conv 3x3, ReLU on images / 255."""

    def __init__(self, frame_shape: tuple[int, ...], filters: int) -> None:
        super().__init__()
        channels, height, width = frame_shape
        self.contract = InputContract(height, width, channels=channels, stack=1)
        self.convs = nn.Sequential(
            nn.Conv2d(channels, filters, 3, stride=2), nn.ReLU(), nn.Conv2d(filters, filters, 3), nn.ReLU()
        )
        with torch.no_grad():
            self.latent_shape = tuple(self.convs(torch.zeros(1, *frame_shape)).shape[1:])
        self.feature_dim = torch.Size(self.latent_shape).numel()

    def latents(self, images: Tensor) -> Tensor:
        latents: Tensor = self.convs(images / 255.0)
        return latents


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
