"""Environments by name: ``toy/maze``, ``dmc/cheetah_run`` (or bare ``cheetah_run``), ``my_package.module:factory``.

A suite is a module with ``list_tasks() -> list[str]`` and
``make(task, image_size, action_repeat, render, camera, seed, observation) -> gymnasium.Env`` (see
``contract.PixelEnv``); it is imported when the first of its names is asked for. It may also have
``make_script(task, action_repeat) -> contract.Script``.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import gymnasium as gym
from gymnasium.wrappers import FrameStackObservation

from visrep.envs.contract import OBSERVATIONS, Observation, Script
from visrep.envs.rendering import check_render
from visrep.errors import UserError, nearest


@dataclass(frozen=True)
class Suite:
    """Where a suite lives and what it needs.

    Attributes:
        module: imported on first use.
        extra: the extra of this package that installs what it needs; None when nothing more is needed.
        packages: top-level packages that must be importable.
        cheap: stepping costs less than handing a frame to another process, so vectors stay in one process.
    """

    module: str
    extra: str | None = None
    packages: tuple[str, ...] = ()
    cheap: bool = False

    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [name for name in self.packages if find_spec(name) is None]


ENV_SUITES: dict[str, Suite] = {
    "toy": Suite("visrep.envs.toy", cheap=True),
    "dmc": Suite("visrep.envs.dmc", extra="dmc", packages=("dm_control", "mujoco")),
}
DEFAULT_SUITE = "dmc"  # of names without a suite, as the published commands write them


def full_name(name: str) -> str:
    """``cheetah_run`` to ``dmc/cheetah_run``; other names unchanged."""
    return name if "/" in name or ":" in name else f"{DEFAULT_SUITE}/{name}"


def is_cheap(name: str) -> bool:
    """True where stepping in the calling process is faster than in a worker."""
    suite = ENV_SUITES.get(full_name(name).partition("/")[0])
    return suite is not None and suite.cheap


def list_envs(suite: str | None = None) -> list[str]:
    """Every full name (of one suite) that can be made here; suites whose packages are absent are left out."""
    return [
        f"{key}/{task}"
        for key, entry in ENV_SUITES.items()
        if suite in (None, key) and not entry.missing()
        for task in import_module(entry.module).list_tasks()
    ]


def make_env(
    name: str,
    *,
    image_size: int = 84,
    action_repeat: int = 1,
    seed: int = 0,
    render: str = "auto",
    camera: int | None = None,
    frame_stack: int | None = None,
    observation: Observation = "pixels",
) -> gym.Env[Any, Any]:
    """Make an environment.

    Args:
        name: ``suite/task``, a bare task of the DeepMind Control suite, or ``module:factory`` for your own (called
            with the same arguments, without the name; with ``observation`` only where that is not "pixels").
        image_size: pixels, height and width.
        action_repeat: environment frames per agent step.
        seed: of the first ``reset()`` that names no seed.
        render: auto, warp, egl or osmesa; suites that draw without a GPU library ignore it.
        camera: index of the camera; None takes the suite's default.
        frame_stack: None for one frame [H, W, 3]; k for the last k, oldest first, [k, H, W, 3], the first frame of an
            episode repeated.
        observation: "state" for the task's own state vector, float32 [O], instead of images; nothing is drawn then.

    Raises:
        UserError: unknown name (the message lists the nearest), a package is missing (it names the install line), or
            there is no such observation or renderer.
    """
    if observation not in OBSERVATIONS:
        raise UserError(f"observation={observation} is unknown; choose {' or '.join(OBSERVATIONS)}")
    check_render(render)
    options: dict[str, Any] = {
        "image_size": image_size,
        "action_repeat": action_repeat,
        "render": render,
        "camera": camera,
        "seed": seed,
        **({} if observation == "pixels" else {"observation": observation}),
    }
    env = _custom(name, options) if ":" in name else _of_suite(name, options)
    return env if frame_stack is None else FrameStackObservation(env, frame_stack, padding_type="reset")


def make_script(name: str, action_repeat: int) -> Script:
    """The scripted policy of an environment.

    Raises:
        UserError: it has none; the message lists the suites that have.
    """
    key, _, task = full_name(name).partition("/")
    module = import_module(ENV_SUITES[key].module) if key in ENV_SUITES and not ENV_SUITES[key].missing() else None
    if (maker := getattr(module, "make_script", None)) is None:
        usable = [key for key, suite in ENV_SUITES.items() if not suite.missing()]
        able = [f"{key}/..." for key in usable if hasattr(import_module(ENV_SUITES[key].module), "make_script")]
        raise UserError(f"env={name} has no scripted policy; environments that have one: {', '.join(able)}")
    script: Script = maker(task, action_repeat)
    return script


def check_env(name: str) -> None:
    """Raise UserError where ``make_env`` would for the name alone; your own factories are not looked at."""
    if ":" not in name:
        _find(name)


def _of_suite(name: str, options: dict[str, Any]) -> gym.Env[Any, Any]:
    module, task = _find(name)
    env: gym.Env[Any, Any] = module.make(task, **options)
    return env


def _find(name: str) -> tuple[ModuleType, str]:
    """Module of the suite, and the task."""
    key, _, task = full_name(name).partition("/")
    if key not in ENV_SUITES:
        raise UserError(f"unknown environment suite {key!r} in env={name}; known: {', '.join(ENV_SUITES)}{_near(name)}")
    module = _import_suite(key, name)
    if task not in module.list_tasks():
        raise UserError(f"unknown environment env={name}{_near(name)}. `visrep.envs.make.list_envs()` lists all names")
    return module, task


def _import_suite(key: str, name: str) -> ModuleType:
    suite = ENV_SUITES[key]
    if missing := suite.missing():
        near = _near(name) if "/" not in name else ""
        raise UserError(
            f"env={name} needs {', '.join(missing)}, which is not installed: pip install 'visrep[{suite.extra}]'{near}"
        )
    return import_module(suite.module)


def _custom(name: str, options: dict[str, Any]) -> gym.Env[Any, Any]:
    path, _, attribute = name.partition(":")
    if path not in sys.modules and find_spec(path.partition(".")[0]) is None:
        raise UserError(f"env={name}: there is no module {path!r} on the Python path")
    factory = getattr(import_module(path), attribute, None)
    if not callable(factory):
        raise UserError(f"env={name}: module {path!r} has no callable {attribute!r}")
    if "observation" in options and not _takes(factory, "observation"):
        raise UserError(f"env={name} has no state observation (its factory takes no 'observation'): use pixels")
    env: gym.Env[Any, Any] = factory(**options)
    return env


def _takes(factory: Callable[..., Any], argument: str) -> bool:
    parameters = inspect.signature(factory).parameters
    return argument in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _near(name: str) -> str:
    key, slash, _ = name.partition("/")
    names = list_envs(key if slash and key in ENV_SUITES else None)
    by_task = {full.partition("/")[2]: full for full in names}
    hits = nearest(name, names) + [by_task[task] for task in nearest(name.rpartition("/")[2], by_task)]
    return f"; near: {', '.join(list(dict.fromkeys(hits))[:4])}" if hits else ""
