"""Encoders: images in, features out. Importing the package registers every module that lies in it."""

from importlib import import_module
from pkgutil import iter_modules

from visrep.encoders.contract import (
    ENCODERS,
    Encoder,
    InputContract,
    build_encoder,
    encoder_config,
    register_encoder,
)

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "ENCODERS",
    "Encoder",
    "InputContract",
    "build_encoder",
    "encoder_config",
    "register_encoder",
]
