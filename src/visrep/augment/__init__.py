"""Augmentations: images to images, on the device. Importing the package registers every operator in it."""

from visrep.augment import box, color, crop, random_conv, shift, subpixel, turn
from visrep.augment.contract import OPERATORS, Augmentation, Operator, register_operator
from visrep.augment.parse import parse_augmentation, signature, summary

__all__ = [
    "OPERATORS",
    "Augmentation",
    "Operator",
    "box",
    "color",
    "crop",
    "parse_augmentation",
    "random_conv",
    "register_operator",
    "shift",
    "signature",
    "subpixel",
    "summary",
    "turn",
]
