"""Values of the commands that have keys of their own, checked before their inputs are there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from visrep.collecting.replay import ReplayRequest
from visrep.collecting.request import Request
from visrep.command_keys import read_keys
from visrep.envs.make import check_env
from visrep.probes import run as probe
from visrep.runs import replay_policy
from visrep.runs.saved_replay import require_run


def check_values(command: str, words: Sequence[str], later: Collection[Path]) -> None:
    """Refuse what ``visrep <command> <words>`` would refuse, as far as that can be known now.

    Args:
        command: collect, probe or evaluate.
        words: all of them, the place where it writes included.
        later: folders of the jobs that it starts from; they may not be there yet.

    Raises:
        UserError: an unknown or missing key, or a value of another kind or out of bounds.
    """
    keys = read_keys(command, words)
    if command == "collect":
        replay = ReplayRequest.of(keys)
        if replay is None:
            _check_collect(Request(**keys), later)
        elif not _comes_later(replay.replay, later):
            require_run(replay.run_dir)
    elif command == "probe":
        probe.check_request(**{key: keys[key] for key in ("data", "samples", "seed") if key in keys})
    else:
        replay_policy.check_request(**{key: keys[key] for key in ("episodes", "seed") if key in keys})


def _check_collect(request: Request, later: Collection[Path]) -> None:
    if request.env is not None:
        check_env(request.env)
    _: Any = request.quota  # it refuses wrong amounts
    if not _comes_later(request.policy, later):
        request.env_spec(request.trained())


def _comes_later(source: str, later: Collection[Path]) -> bool:
    return any(Path(source).expanduser().is_relative_to(folder) for folder in later)
