"""Augmentations: images to images, on the device. Importing the package registers every module that lies in it."""

from importlib import import_module
from pkgutil import iter_modules

from visrep.augment.contract import OPERATORS, Augmentation, Operator, register_operator
from visrep.augment.parse import parse_augmentation, signature, summary

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "OPERATORS",
    "Augmentation",
    "Operator",
    "parse_augmentation",
    "register_operator",
    "signature",
    "summary",
]
