"""Classes by the name that configuration gives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from visrep.errors import UserError, suggestion

C = TypeVar("C")


class Registry(dict[str, type[C]]):
    """Name to class; config, help, docs and contract tests enumerate it.

    Args:
        what: what the classes are, for messages about names.
        attribute: of the class, gets its name.
    """

    def __init__(self, what: str, attribute: str = "name") -> None:
        super().__init__()
        self.what, self.attribute = what, attribute

    def register(self, name: str) -> Callable[[type[C]], type[C]]:
        """Class decorator: make a class known under ``name``."""

        def add(cls: type[C]) -> type[C]:
            if name in self:
                raise ValueError(f"{self.what} {name!r} is registered twice: {self[name]} and {cls}")
            setattr(cls, self.attribute, name)
            self[name] = cls
            return cls

        return add

    def find(self, name: str) -> type[C]:
        """The class of a name; UserError with the nearest where there is none."""
        if name not in self:
            raise UserError(f"unknown {self.what} {name!r}: {suggestion(name, self)}")
        return self[name]
