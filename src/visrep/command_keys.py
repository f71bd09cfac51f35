"""Keys of the commands that do not take a run's: what each means, and reading them from ``key=value`` words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from visrep.errors import UserError, nearest


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        kind: str, int, float or bool.
        about: what it means, with the default where there is one.
        required: the command does nothing without it.
    """

    kind: type
    about: str
    required: bool = False


OWN_KEYS: dict[str, dict[str, Key]] = {
    "evaluate": {
        "run": Key(str, "run directory whose newest policy plays", required=True),
        "episodes": Key(int, "how many (10)"),
        "seed": Key(int, "of the environments (the run's own evaluation seed)"),
        "video": Key(str, "an .mp4 file for the first episode; none by default"),
    },
    "report": {"run": Key(str, "run directory; report.html is written there", required=True)},
    "compare": {
        "runs": Key(str, "run directories, folders with runs or patterns, joined by commas", required=True),
        "by": Key(str, "keys of the runs that make the groups, joined by commas (those that differ, the seed apart)"),
        "out": Key(str, "the page (comparison.html)"),
    },
    "collect": {
        "out": Key(str, "folder of the dataset; the same command continues what was interrupted", required=True),
        "env": Key(str, "environment, such as toy/maze_center or cartpole_swingup; the policy's own by default"),
        "replay": Key(str, "run directory: save its replay whole in place of recording; only phase goes with it"),
        "phase": Key(str, "of that run: pretrain or finetune (that of its newest checkpoint)"),
        "episodes": Key(int, "how many; or say agent_steps"),
        "agent_steps": Key(int, "at least so many; episodes are finished"),
        "policy": Key(str, "random, smooth, scripted, or a run directory or agent file (random)"),
        "noise_std": Key(float, "of Gaussian noise on the policy's actions (0)"),
        "num_envs": Key(int, "environments side by side (1)"),
        "seed": Key(int, "of environments and actions (1)"),
        "observation": Key(str, "pixels or state: what is recorded (pixels)"),
        "image_size": Key(int, "pixels; the policy's by default, or a run's"),
        "action_repeat": Key(int, "environment frames per agent step; likewise"),
        "camera": Key(int, "index of the camera; likewise"),
        "render": Key(str, "MuJoCo's renderer; likewise"),
    },
    "sweep": {
        "file": Key(str, "the sweep's YAML file (docs/sweeps.md)", required=True),
        "status": Key(bool, "true: show what is done and what is missing, run nothing"),
        "dry_run": Key(bool, "true: print the commands of what is missing, run nothing"),
        "rerun": Key(str, "changed: run jobs afresh whose keys were changed in the file"),
    },
    "probe": {
        "encoder": Key(str, "run directories or encoder files, joined by commas", required=True),
        "data": Key(str, "dataset of visrep collect with privileged state", required=True),
        "out": Key(str, "folder of the report (<run>/probe/<dataset> for one run)"),
        "samples": Key(int, "training rows (10,000)"),
        "seed": Key(int, "of the split and the draw (0)"),
        "device": Key(str, "auto, cpu, cuda, cuda:<index> or mps (auto)"),
    },
    "export": {
        "encoder": Key(str, "run directory or encoder file", required=True),
        "to": Key(str, "onnx or standalone (files); sb3 or torchrl (shows the lines to write)", required=True),
        "out": Key(str, "the .onnx file, or the folder of encoder.py and its weights"),
    },
    "demo": {
        "run_dir": Key(str, "where to (runs/demo)"),
        "seed": Key(int, "of everything (1)"),
        "num_expl_steps": Key(int, "reward-free agent steps"),
        "num_train_steps": Key(int, "agent steps in all"),
    },
}
_KINDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def help_text(command: str) -> str:
    """Usage of one command: its keys, what they mean, and which it cannot do without."""
    keys = OWN_KEYS[command]
    needed = " ".join(f"{name}=..." for name, key in keys.items() if key.required)
    lines = [f"visrep {command} {needed} [key=value ...]".replace("  ", " "), ""]
    return "\n".join([*lines, *(f"  {name:<16} {key.about}" for name, key in keys.items())])


def read_keys(command: str, words: Sequence[str]) -> dict[str, Any]:
    """Values of ``key=value`` words; a key that is ``none`` counts as left out.

    Raises:
        UserError: unknown, twice given or missing key, or a value of another kind.
    """
    keys, values = OWN_KEYS[command], dict[str, Any]()
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or name not in keys:
            near = nearest(name, keys)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UserError(f"unknown key {name!r} of {command}: {hint}known keys are {', '.join(keys)}")
        if name in values:
            raise UserError(f"{name} is given twice: {values[name]!r} and {text!r}; keep one of them")
        values[name] = None if text == "none" else _value(name, text, keys)
    for name, key in keys.items():
        if key.required and values.get(name) in (None, ""):
            raise UserError(f"missing {name}=<{key.about}>")
    return {name: value for name, value in values.items() if value is not None}


def _value(name: str, text: str, keys: Mapping[str, Key]) -> Any:
    kind = keys[name].kind
    try:
        return {"true": True, "false": False}[text] if kind is bool else kind(text)
    except (ValueError, KeyError) as error:
        raise UserError(f"{name}={text}: expected {_KINDS[kind]} ({keys[name].about})") from error
