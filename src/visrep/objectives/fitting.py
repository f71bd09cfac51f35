"""Which objectives some recorded experience can serve, asked of the registry."""

from __future__ import annotations

import torch

from visrep.data.actions import ActionSpec
from visrep.data.batch import BatchSpec
from visrep.encoders.contract import InputContract, build_encoder
from visrep.objectives.contract import OBJECTIVES, Objective, ObjectiveConfig, build_objective

# What an objective needs depends on its settings only, so that the smallest encoder will do to ask it.
_SMALL = InputContract(32, 32, channels=1, stack=1)


def _small(name: str, config: ObjectiveConfig | None = None) -> Objective:
    """The objective on the smallest encoder; draws nothing from torch's global generator."""
    with torch.random.fork_rng(devices=[]):
        encoder = build_encoder("proto", _SMALL, channels=1)
        return build_objective(name, encoder, ActionSpec(1), config or OBJECTIVES[name].Config())


def needs_of(name: str, config: ObjectiveConfig | None = None) -> BatchSpec:
    """The batch that an objective needs, without its real encoder.

    Args:
        name: as registered.
        config: its settings; None for the defaults.
    """
    return _small(name, config).needs()


def fitting(provides: frozenset[str]) -> list[str]:
    """Names of the objectives that train an encoder on ``provides``, at their default settings."""
    objectives = {name: _small(name) for name in sorted(OBJECTIVES)}
    return [name for name, one in objectives.items() if one.trains_encoder and one.needs().needed <= provides]


def require_fields(name: str, config: ObjectiveConfig, provides: frozenset[str], source: str, key: str) -> None:
    """Raise UserError, naming the objectives that fit, unless ``source`` provides what an objective needs.

    To be called before the objective is built: data without actions have no ``ActionSpec`` to build it with.

    Args:
        name: of the objective, as registered.
        config: its settings.
        provides: field names of the store.
        source: the store's name, for the message.
        key: the setting that chose the objective, for the message.
    """
    spec = needs_of(name, config)
    if not spec.needed <= provides:
        spec.check(provides, source, f"{key}={name}", fitting(provides))
