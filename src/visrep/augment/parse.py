"""Augmentations as text: "shift(4)", "shift(4, p=0.1)", "grayscale(p=0.3)+cutout", "none".

A text is one or more operators with "+" between them, applied from left to right. Arguments are numbers, in order or
by name; those left out keep their defaults.
"""

from __future__ import annotations

import re
from typing import Any

from visrep.augment.contract import OPERATORS, Augmentation, Domain, Operator, settings
from visrep.errors import UserError, suggestion

_TERM = re.compile(r"(\w+)\s*(?:\(([^()]*)\))?")


def parse_augmentation(text: str, frame_channels: int, domain: Domain = "images") -> Augmentation:
    """Turn an augmentation text into operators.

    Args:
        text: for example "shift(4, p=0.1)"; "none" changes nothing.
        frame_channels: channels per frame: 3 for colour, 1 for grey, F for latent images.
        domain: what will be augmented.

    Raises:
        UserError: an unknown operator or argument (the message names the nearest), a value that is out of range or no
            number, or an operator that does not suit the images. Sizes are checked by ``output_size``.
    """
    if text.strip() == "none":
        return Augmentation()
    operators = []
    for term in text.split("+"):
        match = _TERM.fullmatch(term.strip())
        if match is None:
            raise UserError(
                f'augmentation {text!r}: cannot read {term.strip()!r}; write operators like "shift(4)" or '
                '"crop(84)+flip(p=0.5)", or "none"'
            )
        operators.append(_operator(match[1], match[2] or "", text, frame_channels, domain))
    return Augmentation(tuple(operators))


def signature(name: str) -> str:
    """How an operator is written with its defaults, for example "shift(pad=4, p=1.0)"."""
    return str(OPERATORS[name]())


def summary(name: str) -> str:
    """What an operator does, in one line."""
    return (OPERATORS[name].__doc__ or "").strip().splitlines()[0]


def _operator(name: str, arguments: str, text: str, frame_channels: int, domain: Domain) -> Operator:
    """One operator from its name and what stands between its parentheses."""
    if name == "none":
        raise UserError(f'augmentation {text!r}: "none" stands alone')
    if name not in OPERATORS:
        raise UserError(f"augmentation {text!r}: there is no {name!r}; {suggestion(name, OPERATORS)}")
    cls = OPERATORS[name]
    if domain not in cls.domain:
        fitting = ", ".join(sorted(other for other, o in OPERATORS.items() if domain in o.domain))
        raise UserError(f"augmentation {text!r}: {name} works on {cls.domain[0]}, not on {domain}; there: {fitting}")
    if cls.needs_rgb and frame_channels != 3:
        raise UserError(
            f"augmentation {text!r}: {name} mixes red, green and blue, but the channels of these frames number "
            f"{frame_channels}: leave it out"
        )
    return cls(frame_channels=frame_channels, **_arguments(name, arguments, text))


def _arguments(name: str, arguments: str, text: str) -> dict[str, Any]:
    """The settings that are written out, by name."""
    takes = {f.name: f.type for f in settings(OPERATORS[name])}
    given: dict[str, Any] = {}
    written = f"augmentation {text!r}: {name} takes {signature(name)}"
    for place, part in enumerate(arguments.split(",") if arguments.strip() else ()):
        key, named, value = (piece.strip() for piece in part.partition("="))
        if not named:
            key, value = (list(takes)[place] if place < len(takes) else ""), key
            if not key:
                raise UserError(f"{written}; {value!r} is one argument too many")
            if len(given) != place or any(k != n for k, n in zip(given, takes, strict=False)):
                raise UserError(f"{written}; put {value!r} before the arguments that have names")
        elif key not in takes:
            raise UserError(f"{written}; it has no {key!r}: {suggestion(key, takes)}")
        if key in given:
            raise UserError(f"{written}; {key} is given twice")
        kind = int if takes[key] == "int" else float
        try:
            given[key] = kind(value)
        except ValueError as error:
            whole = "whole " if kind is int else ""
            raise UserError(f"{written}; {key} is a {whole}number, got {value!r}") from error
    return given
