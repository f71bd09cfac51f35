"""What is settled before a run is configured: how its data were recorded, and what its pre-trained encoder takes.

Such facts win over presets, and typing something else is refused at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from visrep.augment import parse_augmentation
from visrep.config_fields import RunConfig
from visrep.errors import UserError

# What recorded data were recorded with; of several datasets that are mixed, what must be alike.
RECORDED_WITH = ("env", "observation", "image_size", "action_repeat", "camera")
ALIKE = ("observation", "image_size")
# What an encoder was built for and of; its images depend on SHOWN together: a crop decides what is left of them.
BUILT_AS = ("observation", "frame_stack", "encoder_kind", "encoder_channels", "encoder_offset")
SHOWN = ("image_size", "augment")


def facts_of_data(typed: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """What the datasets of ``data`` were recorded with; UserError where something else is typed.

    Datasets of several tasks are mixed where their images agree: what else the first one has is then a mere default.

    Args:
        typed: keys of the command line.
        base: settings that the first dataset decides.
    """
    if typed.get("data") is None:
        return {}
    facts = {key: base[key] for key in RECORDED_WITH if key in base}
    alike = RECORDED_WITH if "," not in str(typed["data"]) else ALIKE
    _refuse_others(typed, facts, alike, f"{typed['data']} was recorded with", "record other data")
    return facts


def facts_of_encoder(typed: Mapping[str, Any], presets: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """What the pre-trained ``encoder`` was built as; UserError where something else is typed.

    Args:
        typed: keys of the command line.
        presets: keys of the presets.
        base: settings of the run that wrote the encoder.
    """
    if typed.get("encoder") is None:
        return {}
    facts = {key: base[key] for key in BUILT_AS if key in base}
    _refuse_others(typed, facts, BUILT_AS, f"{typed['encoder']} was pre-trained with", "pre-train another encoder")
    return facts | _shown(typed, presets, base)


def _refuse_others(
    typed: Mapping[str, Any], facts: Mapping[str, Any], keys: Iterable[str], history: str, otherwise: str
) -> None:
    for key in keys:
        if key in facts and typed.get(key, facts[key]) != facts[key]:
            raise UserError(f"{key}={typed[key]}, but {history} {key}={facts[key]}: leave the key out, or {otherwise}")


def _shown(typed: Mapping[str, Any], presets: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Image size and augmentation of the pre-training, where the presets' would make images of another size."""
    own = {key: base.get(key, RunConfig.model_fields[key].default) for key in SHOWN}
    if "image_size" not in base or base.get("observation") == "state":
        return {}
    side = _side(own)
    chosen = own | {key: given[key] for given in (presets, typed) for key in SHOWN if key in given}
    whole, text = chosen["image_size"], chosen["augment"]
    if isinstance(whole, bool) or not isinstance(whole, int | float) or not isinstance(text, str):
        return {}  # refused with the other values of a wrong type
    if _side(chosen) == side:
        return {}
    facts = {key: value for key, value in own.items() if key not in typed}
    if _side(chosen | facts) != side:
        words = " ".join(f"{key}={typed[key]}" for key in SHOWN if key in typed)
        then = " ".join(f"{key}={value}" for key, value in own.items())
        raise UserError(
            f"{words}, but {typed['encoder']} takes images of {side}x{side} pixels (it was pre-trained with {then}): "
            f"leave {' and '.join(key for key in SHOWN if key in typed)} out, or pre-train another encoder"
        )
    return facts


def _side(shown: Mapping[str, Any]) -> int | None:
    """Height of what ``augment`` makes of images of ``image_size``; None where it can make nothing of them."""
    augment = parse_augmentation(shown["augment"], 3)
    try:
        return augment.output_size(shown["image_size"], shown["image_size"])[0]
    except UserError:
        return None
