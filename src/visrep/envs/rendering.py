"""Which renderer draws MuJoCo scenes here: ``warp`` (ray tracer on the CPU), ``egl`` or ``osmesa`` (OpenGL).

Nothing in this package touches ``MUJOCO_GL`` when imported. dm_control reads it once, when *it* is imported, and some
values abort the process where a library is absent; so the variable is set by ``prepare_process`` alone, inside the
process that is about to make an environment, and everything about a machine is found out in subprocesses (``probe``).
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from visrep.errors import UserError

RENDERERS = ("warp", "egl", "osmesa")
NO_RENDERER = "none"  # in a process whose environments draw nothing; not a choice of the user's
PROBE_TASK = "cheetah_run"
PROBE_SECONDS = 120.0  # the ray tracer may have to compile its kernels first

FIXES = {
    "warp": "pip install 'mujoco-warp>=3.17,<3.18' 'warp-lang>=1.19'",
    "egl": "apt-get install -y libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri libopengl0 libglvnd0",
    "osmesa": "apt-get install -y libosmesa6 libgl1 libopengl0",
}
FIX_MUJOCO = "pip install 'mujoco>=3.17,<4'"
FIX_DMC = "pip install 'visrep[dmc]'"


class Renderer(Protocol):
    """Draws one fixed camera of a dm_control ``Physics`` as uint8 [H, W, 3]."""

    def reset(self, physics: Any) -> None:
        """An episode begins: the physics may be another object, its model may have been edited."""

    def render(self, physics: Any) -> NDArray[np.uint8]:
        """A new image of the present state."""


@dataclass(frozen=True)
class Probe:
    """What a subprocess found out about one renderer.

    Attributes:
        renderer: warp, egl or osmesa.
        ok: it drew frames.
        name: of the device, e.g. ``llvmpipe (LLVM 15.0.6, 256 bits)`` for software OpenGL; empty when not ok.
        frames_per_second: 84×84 frames of cheetah_run drawn by one process, physics not counted.
        error: the reason when not ok.
        fix: the line that mends it.
    """

    renderer: str
    ok: bool
    name: str = ""
    frames_per_second: float = 0.0
    error: str = ""
    fix: str = ""


def package_problem() -> tuple[str, str] | None:
    """(what is wrong, the line that mends it) for the packages of the suite; None when they fit together."""
    missing = [name for name in ("dm_control", "mujoco") if not _version(name)]
    if missing:
        return f"{', '.join(missing)} not installed", FIX_DMC
    mujoco_version = _version("mujoco")
    if int(mujoco_version.partition(".")[0]) >= 4:
        return f"mujoco {mujoco_version} does not work with dm_control {_version('dm_control')}", FIX_MUJOCO
    return None


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def warp_problem() -> tuple[str, str] | None:
    """(what is wrong, the line that mends it) for the ray tracer's packages; None when they are installed."""
    missing = [name for name in ("mujoco-warp", "warp-lang") if not _version(name)]
    return (f"{', '.join(missing)} not installed", FIXES["warp"]) if missing else None


def check_render(render: str) -> None:
    """UserError unless ``render`` is the name of a renderer, or auto."""
    if render not in ("auto", *RENDERERS):
        raise UserError(f"render={render} is unknown; choose auto, {', '.join(RENDERERS)}")


def resolve_renderer(render: str) -> str:
    """The renderer to use for ``render``, checked to work; call it once, in the parent process.

    auto takes EGL where it draws on an NVIDIA device, else warp, else the first OpenGL that works. OpenGL is probed in
    a subprocess, once per process; workers are given the concrete name and do not probe.

    Raises:
        UserError: unknown name, or the renderer does not work here; the message has the line that mends it.
    """
    check_render(render)
    if render == "auto":
        return _automatic()
    if render == "warp":
        if problem := package_problem() or warp_problem():
            raise UserError(f"render=warp does not work here: {problem[0]}. Mend it with: {problem[1]}")
        _compile_kernel()
        return render
    found = probe(render)
    if not found.ok:
        other = "" if warp_problem() else "; or use render=warp, which needs no graphics library"
        raise UserError(f"render={render} does not work here: {found.error}. Mend it with: {found.fix}{other}")
    return render


@functools.cache
def _automatic() -> str:
    if problem := package_problem():
        raise UserError(f"the DeepMind Control suite does not work here: {problem[0]}. Mend it with: {problem[1]}")
    if _nvidia_device() and (egl := probe("egl")).ok and "nvidia" in egl.name.lower():
        return "egl"
    if not warp_problem():
        return resolve_renderer("warp")
    for name in ("egl", "osmesa"):
        if probe(name).ok:
            return name
    raise UserError(f"no renderer works here. Mend it with: {FIXES['warp']}   (software OpenGL: {FIXES['egl']})")


def _nvidia_device() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()


@functools.cache
def _compile_kernel() -> None:
    """The first use on a machine: say so and compile in a subprocess, so that workers find the kernel compiled."""
    cache = Path(os.environ.get("WARP_CACHE_PATH") or Path.home() / ".cache" / "warp" / _version("warp-lang"))
    if any(cache.glob("*warp_kernel*")):
        return
    warnings.warn(f"renderer warp compiles its kernel, once on this machine (some 10 s, kept in {cache})", stacklevel=4)
    if not (found := probe("warp")).ok:
        raise UserError(f"render=warp does not work here: {found.error}. Mend it with: {found.fix}")


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Drop what native libraries write to file descriptor 2 (``sys.stderr`` itself is only flushed)."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def prepare_process(renderer: str) -> None:
    """Settle OpenGL for this process, before dm_control is imported in it.

    Raises:
        UserError: unknown or missing renderer; ``MUJOCO_GL`` asks for another one; or dm_control was already imported
            for another one.
    """
    if renderer not in (*RENDERERS, NO_RENDERER):
        raise UserError(f"render={renderer} is unknown; choose auto, {', '.join(RENDERERS)}")
    if renderer == "warp" and (problem := warp_problem()):
        raise UserError(f"render=warp does not work here: {problem[0]}. Mend it with: {problem[1]}")
    # One rasteriser thread per process: environments run in as many processes as there are cores.
    os.environ.setdefault("LP_NUM_THREADS", "1")
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    loaded = sys.modules.get("dm_control._render")
    if renderer in ("warp", NO_RENDERER):
        if not wanted and loaded is None:
            os.environ["MUJOCO_GL"] = "disabled"  # else dm_control loads whatever OpenGL it finds
        return
    if loaded is not None and renderer != loaded.BACKEND:
        raise UserError(
            f"render={renderer}: dm_control was already loaded in this process with OpenGL {loaded.BACKEND!r}, "
            "and reads MUJOCO_GL only once. Make the environment in a process of its own (num_envs>1 does), or set "
            f"MUJOCO_GL={renderer} before Python starts"
        )
    if loaded is None and wanted not in ("", "disabled", renderer):
        raise UserError(f"render={renderer} contradicts MUJOCO_GL={wanted}: unset MUJOCO_GL, or use render={wanted}")
    os.environ["MUJOCO_GL"] = renderer


def opengl_error(renderer: str, error: BaseException) -> UserError:
    """What a user is told when OpenGL does not load in this process."""
    if renderer in ("warp", NO_RENDERER):
        ours = "render=warp" if renderer == "warp" else "observation=state"
        return UserError(
            f"dm_control loads OpenGL because MUJOCO_GL={os.environ.get('MUJOCO_GL')} is set, and fails: {error}. "
            f"{ours} needs none: unset MUJOCO_GL"
        )
    return UserError(f"render={renderer} does not work here: {error}. Mend it with: {FIXES[renderer]}")


def make_renderer(renderer: str, height: int, width: int, camera: int) -> Renderer:
    """The renderer for one environment, in a process that ``prepare_process`` has settled."""
    if renderer == "warp":
        return _WarpOnPhysics(height, width, camera)
    return _GlOnPhysics(renderer, height, width, camera)


class _WarpOnPhysics:
    def __init__(self, height: int, width: int, camera: int) -> None:
        self._arguments = (height, width, camera)
        self._tracer: Any = None

    def reset(self, physics: Any) -> None:
        model = physics.model.ptr
        if self._tracer is None:
            from visrep.envs.warp_renderer import WarpRenderer

            self._tracer = WarpRenderer(model, *self._arguments)
        self._tracer.reset(model)

    def render(self, physics: Any) -> NDArray[np.uint8]:
        frame: NDArray[np.uint8] = self._tracer.render(physics.data.ptr)
        return frame


class _GlOnPhysics:
    """dm_control's own camera, kept for the episode (``physics.render`` makes one for every frame)."""

    def __init__(self, name: str, height: int, width: int, camera: int) -> None:
        self._name = name
        self._arguments = {"height": height, "width": width, "camera_id": camera}
        self._camera: Any = None
        self._model: Any = None

    def reset(self, physics: Any) -> None:
        if self._model is physics.model.ptr:
            return
        from dm_control.mujoco.engine import Camera

        try:
            self._camera = Camera(physics, **self._arguments)
        except (ImportError, AttributeError, RuntimeError) as error:  # PyOpenGL's ways of missing a library
            raise opengl_error(self._name, error) from error
        self._model = physics.model.ptr

    def render(self, physics: Any) -> NDArray[np.uint8]:
        return np.array(self._camera.render())


@functools.cache
def probe(renderer: str, timeout_seconds: float = PROBE_SECONDS) -> Probe:
    """Draw a few frames with ``renderer`` in a subprocess, which may abort without harm; cached in this process."""
    if renderer not in RENDERERS:
        raise UserError(f"renderer {renderer!r} is unknown; choose from {', '.join(RENDERERS)}")
    problem = package_problem() or (warp_problem() if renderer == "warp" else None)
    if problem:
        return Probe(renderer, ok=False, error=problem[0], fix=problem[1])
    environment = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    command = [sys.executable, "-m", "visrep.envs.rendering", renderer]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_seconds, env=environment)
    except subprocess.TimeoutExpired:
        return Probe(renderer, ok=False, error=f"no frame within {timeout_seconds:g} s", fix=FIXES[renderer])
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        return Probe(**json.loads(lines[-1]))
    said = [line for line in done.stderr.strip().splitlines() if line.strip()]
    reason = said[-1].strip() if said else f"the probe ended with code {done.returncode} and said nothing"
    return Probe(renderer, ok=False, error=reason, fix=FIXES[renderer])


def _probe_here(renderer: str, seconds: float = 1.0) -> Probe:
    """The subprocess' part of ``probe``."""
    from visrep.envs.dmc import make

    env: Any = make(PROBE_TASK, render=renderer)
    env.reset(seed=0)
    env.draw()  # the first frame loads textures
    frames, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        env.draw()
        frames += 1
    return Probe(renderer, ok=True, name=_device_name(renderer, env), frames_per_second=frames / seconds)


def _device_name(renderer: str, env: Any) -> str:
    if renderer == "warp":
        from visrep.envs.warp_renderer import renderer_name

        return renderer_name()
    from OpenGL import GL

    with env.physics.contexts.gl.make_current() as context:
        name = context.call(GL.glGetString, GL.GL_RENDERER)
    return str(name.decode())


if __name__ == "__main__":
    print(json.dumps(asdict(_probe_here(sys.argv[1]))))
