"""Values of the commands that have keys of their own, checked before their inputs are there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from visrep.collecting.request import Request
from visrep.command_keys import read_keys
from visrep.errors import UserError
from visrep.probes.data import FEWEST_TRAIN_ROWS

LEAST = {"probe": {"samples": FEWEST_TRAIN_ROWS, "seed": 0}, "evaluate": {"episodes": 1, "seed": 0}}


def check_values(command: str, words: Sequence[str], later: Collection[Path]) -> None:
    """Refuse what ``visrep <command> <words>`` would refuse, as far as that can be known now.

    Args:
        command: collect, probe or evaluate.
        words: all of them, the place where it writes included.
        later: folders of the jobs that it starts from; they may not be there yet.

    Raises:
        UserError: a value of another kind or out of bounds, or a key that is missing.
    """
    keys = read_keys(command, words)
    if command == "collect":
        _check_collect(Request(**keys), later)
        return
    for key, least in LEAST[command].items():
        if keys.get(key, least) < least:
            raise UserError(f"{key}={keys[key]} must be at least {least}")


def _check_collect(request: Request, later: Collection[Path]) -> None:
    _: Any = request.quota  # it refuses wrong amounts
    if not any(Path(request.policy).expanduser().is_relative_to(folder) for folder in later):
        request.env_spec(request.trained())
