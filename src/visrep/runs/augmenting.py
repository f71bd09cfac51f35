"""Which augmentation the images of policy and objective go through.

Shapes: C channels of one frame.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Generator, Tensor

from visrep.augment import Augmentation, parse_augmentation
from visrep.augment.contract import Domain
from visrep.config import Config, RunConfig
from visrep.errors import UserError
from visrep.objectives.contract import Objective


def policy_augmentation(config: Config, frame_channels: int) -> Augmentation | None:
    """The augmentation of the policy's images (key ``augment``); None for none.

    Args:
        config: of the run.
        frame_channels: C of one frame; stacked frames share a draw.
    """
    run = config.run
    if run.observation == "state":
        return None
    return _parse("augment", _padded(run.augment, run.shift_pad), frame_channels)


def encoder_image_size(config: Config, frame_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Height and width of the images that the encoder takes: what the policy's augmentation leaves of a frame.

    Raises:
        UserError: a frame is too small or too large for an augmentation, or the objective's own leaves another size.
    """
    run, channels = config.run, frame_shape[0]
    size = _size_left("augment", run.augment, policy_augmentation(config, channels), frame_shape)
    if config.objective is None or run.repr_augment == "same":
        return size
    own = _size_left("repr_augment", run.repr_augment, _own(run, channels), frame_shape)
    if own != size:
        raise UserError(
            f"repr_augment={run.repr_augment} gives the encoder images of {own[0]}x{own[1]} pixels and augment="
            f"{run.augment} images of {size[0]}x{size[1]}, but it is built for one size: choose augmentations with "
            "equal sizes (repr_augment=same takes the policy's)"
        )
    return size


def latent_augmentation(config: Config) -> Augmentation | None:
    """The augmentation of replayed latents (key ``latent_shift``); None for none."""
    shift = config.run.latent_shift
    return _parse("latent_shift", f"subpixel_shift({shift:g})", 1, "latents") if shift else None


def objective_augmentation(
    config: Config, frame_channels: int, augmented: bool, policy_has: Augmentation | None
) -> tuple[bool, Callable[[Tensor, Generator | None], Tensor] | None]:
    """Whether the objective sees the policy's images, and its own augmentation where it does not.

    An objective that takes images as they are still needs the policy's crop, at its centre.
    """
    text = config.run.repr_augment
    if text == "same" and (augmented or policy_has is None):
        return True, policy_has
    if text == "same":
        assert policy_has is not None, "the case above"
        evaluate = policy_has.evaluate
        return False, lambda images, generator: evaluate(images)
    return False, _own(config.run, frame_channels)


def _own(run: RunConfig, frame_channels: int) -> Augmentation | None:
    return _parse("repr_augment", _padded(run.repr_augment, run.shift_pad), frame_channels)


def _padded(text: str, pad: int) -> str:
    """The text with ``pad`` pixels for every shift that names no number; without these shifts where ``pad`` is 0."""
    terms = [term.strip() for term in text.split("+")]
    kept = [f"shift({pad})" if term == "shift" else term for term in terms if pad or term != "shift"]
    return "+".join(kept) or "none"


def _size_left(key: str, text: str, augment: Augmentation | None, frame_shape: tuple[int, int, int]) -> tuple[int, int]:
    _, height, width = frame_shape
    try:
        return (height, width) if augment is None else augment.output_size(height, width)
    except UserError as error:
        raise UserError(f"{key}={text}: {error}") from error


def action_note(config: Config, frame_channels: int, policy_learns: bool, objective: Objective | None) -> str | None:
    """What augmented images do to the meaning of the actions that somebody learns from; None for nothing.

    Args:
        config: of the run.
        frame_channels: C of one frame.
        policy_learns: a policy learns from augmented images.
        objective: that is updated or pays the policy; None without one.
    """
    shared = policy_augmentation(config, frame_channels)
    seen: list[tuple[str, object]] = [("the policy", shared)] if policy_learns else []
    if objective is not None and "action" in objective.needs().needed:
        own = objective_augmentation(config, frame_channels, objective.augmented, shared)[1]
        seen.append((f"method={config.run.method}", own))
    learners: dict[str, list[str]] = {}
    for who, augmentation in seen:
        # An objective that takes images as they are sees an evaluation form, which leaves actions alone.
        meaning = augmentation.action_meaning if isinstance(augmentation, Augmentation) else None
        if meaning is not None:
            learners.setdefault(meaning, []).append(who)
    if not learners:
        return None
    whose = "; ".join(f"for {' and '.join(names)}: {meaning}" for meaning, names in learners.items())
    return f"actions are learned from as they were taken, but augmented images change what they mean, {whose}"


def _parse(key: str, text: str, frame_channels: int, domain: Domain = "images") -> Augmentation | None:
    if text == "none":
        return None
    try:
        return parse_augmentation(text, frame_channels, domain)
    except UserError as error:
        raise UserError(f"{key}={text}: {error}") from error
