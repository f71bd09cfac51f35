"""Encoders: images in, features out. Importing the package registers every encoder in it."""

from visrep.encoders import conv, given
from visrep.encoders.contract import (
    ENCODERS,
    Encoder,
    InputContract,
    build_encoder,
    encoder_config,
    register_encoder,
)

__all__ = [
    "ENCODERS",
    "Encoder",
    "InputContract",
    "build_encoder",
    "conv",
    "encoder_config",
    "given",
    "register_encoder",
]
