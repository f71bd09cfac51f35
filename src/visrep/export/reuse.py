"""A pre-trained encoder inside another library's networks, safe from what such libraries do to modules.

Shapes: B batch, S frame stack, C colour channels, H W pixels, D features.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from visrep.encoders.contract import Encoder
from visrep.export.common import the_encoder


class ReusedEncoder(nn.Module):
    """Images to features; initialisation functions never reach the pre-trained weights, and frozen ones nothing does.

    Frozen, the encoder is no submodule and its weights are no parameters of this module: optimisers, averages of
    target networks (which change even equal weights, by rounding), ``train()`` and ``requires_grad_()`` pass it by. It
    moves with ``to()``, is copied by ``deepcopy`` and is part of ``state_dict()`` all the same. Otherwise it is an
    ordinary submodule that learns.

    Either way ``apply`` leaves its weights as they were: actor-critic libraries initialise with it after the
    construction, which would throw the pre-training away.

    Args:
        source: encoder file, run directory, or an encoder, which is copied.
        frozen: never change the weights; features carry no gradient.

    Raises:
        UserError: see ``the_encoder``.
    """

    encoder: Encoder

    def __init__(self, source: Encoder | Path | str, frozen: bool) -> None:
        super().__init__()
        self.frozen = frozen
        encoder = copy.deepcopy(the_encoder(source)).eval()
        encoder.requires_grad_(not frozen)
        if frozen:
            object.__setattr__(self, "encoder", encoder)
        else:
            self.encoder = encoder
        self.contract = encoder.contract
        self.feature_dim = encoder.feature_dim

    def forward(self, images: Tensor) -> Tensor:
        """[B, S*C, H, W] in 0..255 (uint8 or float) to [B, D]."""
        if not self.frozen:
            features: Tensor = self.encoder(images)
            return features
        with torch.no_grad():
            fixed: Tensor = self.encoder(images)
        return fixed

    def apply(self, fn: Callable[[nn.Module], None]) -> Self:
        """``nn.Module.apply``, after which the encoder's weights are what they were before."""
        weights = {name: value.detach().clone() for name, value in self.encoder.state_dict().items()}
        super().apply(fn)
        self.encoder.load_state_dict(weights)
        return self

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        # What to(), cuda() and half() go through.
        if self.frozen:
            self.encoder._apply(fn, recurse)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)  # type: ignore[no-untyped-call]
        if self.frozen:
            self.encoder.state_dict(destination=destination, prefix=f"{prefix}encoder.", keep_vars=keep_vars)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if not self.frozen:
            super()._load_from_state_dict(state_dict, prefix, *rest)  # type: ignore[no-untyped-call]
            return
        own = f"{prefix}encoder."
        weights = {name.removeprefix(own): value for name, value in state_dict.items() if name.startswith(own)}
        try:
            self.encoder.load_state_dict(weights)
        except RuntimeError as error:
            errors: list[str] = rest[-1]  # load_state_dict() raises one error of all that modules put here
            errors.append(str(error))
