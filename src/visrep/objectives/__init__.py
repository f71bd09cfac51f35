"""Representation objectives, one file per method. Importing the package registers every module that lies in it."""

from importlib import import_module
from pkgutil import iter_modules

from visrep.objectives.contract import (
    OBJECTIVES,
    Loss,
    Novelty,
    Objective,
    ObjectiveConfig,
    ParameterGroup,
    Transition,
    build_objective,
)

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "OBJECTIVES",
    "Loss",
    "Novelty",
    "Objective",
    "ObjectiveConfig",
    "ParameterGroup",
    "Transition",
    "build_objective",
]
