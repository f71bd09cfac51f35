"""Helpers of the contrastive objectives' golden tests: a small convolutional encoder, and batches from sequences.

Shapes: T times, B columns, C channels, H W pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from compare import Arrays, load_weights
from torch import Tensor, nn

from visrep.data.actions import ActionSpec
from visrep.data.batch import Batch, BatchSpec
from visrep.encoders.contract import Encoder, InputContract
from visrep.objectives import OBJECTIVES, build_objective


class TwoConvs(Encoder):
    """3x3 convolutions with strides 2 and 1 and ReLU; float images are taken as they are, or divided by 255 too."""

    def __init__(self, shape: tuple[int, int, int], filters: tuple[int, int], divide: bool = False) -> None:
        super().__init__()
        channels, height, width = shape
        self.contract = InputContract(height, width, channels=channels, stack=1)
        self.divide = divide
        self.convs = nn.Sequential(
            nn.Conv2d(channels, filters[0], 3, stride=2), nn.ReLU(), nn.Conv2d(filters[0], filters[1], 3), nn.ReLU()
        )
        self.feature_dim = self.convs(torch.zeros(1, *shape)).numel()

    def features(self, images: Tensor) -> Tensor:
        scaled = images.to(next(self.parameters()).dtype)
        if images.dtype == torch.uint8 or self.divide:
            scaled = scaled / 255
        return self.convs(scaled).flatten(1)


def temporal(name: str, param: Arrays, shape: tuple[int, int, int], dtype: torch.dtype, **config: Any) -> Any:
    """ATC or ATS with the golden encoder, compressor and targets; its head is the caller's to fill."""
    filters = tuple(len(param[f"encoder.conv.{layer}.weight"]) for layer in (0, 2))
    cls = OBJECTIVES[name]
    config |= {"atc_code_dim": len(param["encoder.head.0.weight"])}
    objective: Any = build_objective(name, TwoConvs(shape, filters), ActionSpec(1), cls.Config(**config))  # type: ignore[arg-type]
    objective.encoder.to(dtype)
    objective.to(dtype)
    load_weights(objective.encoder.convs, param, "encoder.conv")
    load_weights(objective.compressor, param, "encoder.head.0")
    load_weights(objective.target_encoder.convs, param, "target_encoder.conv")
    load_weights(objective.target_compressor, param, "target_encoder.head.0")
    return objective


def valid_from_done(done: np.ndarray[Any, Any]) -> Tensor:
    """[T, B] flags of transitions o_t -> o_{t+1} to bool [T, B]: no end strictly before t (atc_valid_mask)."""
    ended = np.zeros(done.shape[1], bool)
    valid = np.ones(done.shape, bool)
    for t, flags in enumerate(done):
        valid[t] = ~ended
        ended |= flags
    return torch.from_numpy(valid)


def window_batch(spec: BatchSpec, views: list[Tensor], valid: Tensor) -> Batch:
    """The batch that ``spec`` asks for, from [T, B, C, H, W] images per view and validity [T, B]."""
    assert len(views) == spec.views
    times = list(spec.offsets)
    return Batch([view[times].transpose(0, 1) for view in views], spec.offsets, valid[times].T)
