"""Encoders: images in, features out. Importing the package registers every encoder in it."""

from visrep.encoders import conv
from visrep.encoders.contract import ENCODERS, Encoder, InputContract, build_encoder, register_encoder

__all__ = ["ENCODERS", "Encoder", "InputContract", "build_encoder", "conv", "register_encoder"]
