"""``visrep doctor``: what this machine can run, and the exact line that mends each problem."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from rich.console import Console
from rich.table import Table

from visrep.envs.rendering import RENDERERS, Probe, package_problem, probe
from visrep.errors import UserError

SHOWN = ("torch", "numpy", "gymnasium", "mujoco", "dm_control", "mujoco-warp", "warp-lang", "safetensors", "av")
FIX_PACKAGE = "pip install 'visrep'"


@dataclass(frozen=True)
class Problem:
    """Something that does not work, the line that mends it, and whether it stops even the built-in environment."""

    what: str
    fix: str
    fatal: bool = False


def doctor(config: Any, console: Console | None = None, probe_renderer: Callable[[str], Probe] = probe) -> int:
    """Print the report for this machine and one run's configuration.

    Args:
        config: a ``visrep.config.Config``; its environment, renderer, device and storage are looked at.
        console: where to print; standard output by default.
        probe_renderer: how a renderer is tried; by default each in a subprocess of its own.

    Returns:
        0 when a run is possible on the built-in environment, 1 otherwise.
    """
    console = console or Console(highlight=False)
    problems = _versions(console) + _device(console, config) + _renderers(console, probe_renderer)
    problems += _built_in_environment() + _run(console, config)
    console.print()
    for problem in problems:
        console.print(f"[{'red' if problem.fatal else 'yellow'}]problem[/] {problem.what}", soft_wrap=True)
        console.print(f"        mend it with: {problem.fix}", soft_wrap=True, markup=False)
    fatal = any(problem.fatal for problem in problems)
    console.print("no run is possible yet" if fatal else "a run is possible on the built-in environment (env=toy/maze)")
    return int(fatal)


def _versions(console: Console) -> list[Problem]:
    table = Table("package", "version", title="versions", title_justify="left")
    table.add_row("python", platform.python_version())
    for name in SHOWN:
        table.add_row(name, _version(name) or "not installed")
    console.print(table)
    problems = []
    for text in metadata.requires("visrep") or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = _version(requirement.name)
        if not found or not requirement.specifier.contains(found, prereleases=True):
            what = f"{requirement.name} {found or 'is not installed'}; this package needs {requirement}"
            problems.append(Problem(what, f"pip install '{requirement}'", fatal=True))
    if problem := package_problem():
        problems.append(Problem(f"DeepMind Control suite: {problem[0]}", problem[1]))
    return problems


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _device(console: Console, config: Any) -> list[Problem]:
    try:
        import psutil
        import torch
    except ImportError as error:
        return [Problem(f"{error}", FIX_PACKAGE, fatal=True)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory()
    table = Table("part", "found", title="device", title_justify="left")
    table.add_row("CPU", f"{cores} cores usable, torch takes {torch.get_num_threads()} threads")
    table.add_row("RAM", f"{memory.available / 1e9:.1f} GB available of {memory.total / 1e9:.1f} GB")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            table.add_row(f"cuda:{index}", f"{properties.name}, {properties.total_memory / 1e9:.1f} GB")
    else:
        table.add_row("CUDA", f"none visible to torch {torch.__version__}")
    console.print(table)
    if str(config.run.device).startswith("cuda") and not torch.cuda.is_available():
        return [Problem(f"device={config.run.device}, but torch sees no CUDA device", "use device=auto or device=cpu")]
    return []


def _renderers(console: Console, probe_renderer: Callable[[str], Probe]) -> list[Problem]:
    found = [probe_renderer(name) for name in RENDERERS]
    table = Table("renderer", "works", "name", "frames/s, 84x84", title="renderers, one process", title_justify="left")
    for each in found:
        rate = f"{each.frames_per_second:.0f}" if each.ok else ""
        table.add_row(each.renderer, "yes" if each.ok else "no", each.name or each.error, rate)
    console.print(table)
    return [Problem(f"render={each.renderer}: {each.error}", each.fix) for each in found if not each.ok]


def _built_in_environment() -> list[Problem]:
    from visrep.envs.make import make_env

    try:
        env = make_env("toy/maze", image_size=24)
        env.reset(seed=0)
        env.step(env.action_space.sample())
        env.close()
    except ImportError as error:
        return [Problem(f"the built-in environment does not load: {error}", FIX_PACKAGE, fatal=True)]
    return []


def _run(console: Console, config: Any) -> list[Problem]:
    """The configuration's own environment, renderer, memory and disk."""
    run = config.run
    from visrep.runs.compose import env_spec

    try:
        env: Any = env_spec(config).make()
    except UserError as error:
        return [Problem(f"env={run.env}: {error}", "see the message, or try env=toy/maze")]
    console.print(f"\nenv={run.env} renderer={env.unwrapped.fingerprint().get('renderer')}", markup=False)
    budget = _budget(run, env, config)
    env.close()
    console.print(budget.table(), markup=False, soft_wrap=True)
    try:
        budget.check()
    except UserError:
        return [Problem("the experience of this run does not fit", f"one of: {'; '.join(budget.alternatives())}")]
    return []


def _budget(run: Any, env: Any, config: Any) -> Any:
    from visrep.data.actions import ActionSpec
    from visrep.data.store import StoreSpec
    from visrep.runs.compose import replay_budget

    shape = env.observation_space.shape  # of pixels (H, W, C), of state observations (O,)
    height, width, channels = shape if len(shape) == 3 else (1, 1, shape[0])
    state_dim = getattr(env.unwrapped, "state_dim", 0)
    side: dict[str, tuple[int, ...]] = {"state": (state_dim,)} if state_dim else {}
    actions = ActionSpec(env.action_space.shape[0])
    spec = StoreSpec((channels, height, width), actions, side, env.observation_space.dtype.name)
    return replay_budget(config, spec, Path(run.run_dir or "."))
