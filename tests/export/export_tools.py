"""What the export tests share."""

from __future__ import annotations

import torch

from visrep.encoders import ENCODERS, Encoder, InputContract, build_encoder
from visrep.encoders.stack import ConvStack

SIZE = 40  # pixels; the smallest that suits every convolutional kind is 36
CONV_KINDS = sorted(kind for kind, cls in ENCODERS.items() if issubclass(cls, ConvStack))


def encoder_of(kind: str, channels: int = 4, offset: float = 0.5) -> Encoder:
    """An encoder with weights that no initialisation gives, biases included."""
    torch.manual_seed(7)
    encoder = build_encoder(kind, InputContract(SIZE, SIZE), channels=channels, offset=offset).eval()
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    return encoder


def weights_equal(encoder: torch.nn.Module, expected: torch.nn.Module) -> bool:
    """Bit for bit, every tensor."""
    ours, theirs = encoder.state_dict(), expected.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
