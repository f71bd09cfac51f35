"""Choosing a renderer, probing it, and what the ray tracer draws."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("dm_control")
pytest.importorskip("mujoco_warp")

import mujoco

from visrep.envs import rendering
from visrep.envs.rendering import Probe, probe, resolve_renderer
from visrep.errors import UserError

SCENE = """
<mujoco>
  <asset>
    <texture name="checker" type="2d" builtin="checker" rgb1="0 0 0" rgb2="1 1 1" width="64" height="64"/>
    <material name="checker" texture="checker" texrepeat="4 4"/>
    <hfield name="terrain" nrow="9" ncol="9" size="1 1 .5 .1"/>
  </asset>
  <visual><headlight ambient=".5 .5 .5" diffuse=".8 .8 .8"/></visual>
  <worldbody>
    <camera name="top" pos="0 0 4" fovy="45"/>
    <geom name="floor" type="plane" size="3 3 .1" material="checker" pos="0 0 -.2"/>
    <geom name="terrain" type="hfield" hfield="terrain" rgba=".2 .2 .2 1"/>
    <site name="mark" pos="-1.2 0 .5" size=".3" rgba="0 1 0 1"/>
    <body name="ball" mocap="true" pos="1.2 0 .5"><geom name="ball" size=".3" rgba="1 0 0 1"/></body>
  </worldbody>
</mujoco>
"""
IN_A_PROCESS = """
import sys
{before}
from visrep.envs import dmc
env = dmc.make("cheetah_run", render="{render}", image_size=48)
frame, _ = env.reset(seed=0)
env.step(env.action_space.sample())
{after}
"""


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**inherited, **environment}, timeout=120
    )


@pytest.fixture
def decide(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Ask for auto on a machine of our making."""

    def ask(nvidia: bool, probes: dict[str, Probe], warp: bool = True) -> str:
        rendering._automatic.cache_clear()
        monkeypatch.setattr(rendering, "_nvidia_device", lambda: nvidia)
        monkeypatch.setattr(rendering, "_compile_kernel", lambda: None)
        monkeypatch.setattr(rendering, "probe", lambda name: probes[name])
        monkeypatch.setattr(rendering, "warp_problem", lambda: None if warp else ("absent", rendering.FIXES["warp"]))
        return resolve_renderer("auto")

    yield ask
    rendering._automatic.cache_clear()


def works(name: str, device: str) -> Probe:
    return Probe(name, ok=True, name=device, frames_per_second=1.0)


def fails(name: str) -> Probe:
    return Probe(name, ok=False, error="no library", fix=rendering.FIXES[name])


def test_auto_takes_egl_on_nvidia_only(decide: Any) -> None:
    assert decide(True, {"egl": works("egl", "NVIDIA H100 PCIe/PCIe/SSE2")}) == "egl"
    assert decide(True, {"egl": works("egl", "llvmpipe (LLVM 15)")}) == "warp"
    assert decide(True, {"egl": fails("egl")}) == "warp"
    assert decide(False, {}) == "warp"


def test_auto_falls_back_to_software_and_then_says_what_to_install(decide: Any) -> None:
    assert decide(False, {"egl": fails("egl"), "osmesa": works("osmesa", "llvmpipe")}, warp=False) == "osmesa"
    with pytest.raises(UserError, match="apt-get install"):
        decide(False, {"egl": fails("egl"), "osmesa": fails("osmesa")}, warp=False)


@pytest.mark.parametrize("renderer", ["egl", "osmesa"])
def test_absent_renderer_is_an_error_with_its_install_line(renderer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "probe", fails)
    with pytest.raises(UserError, match=rendering.FIXES[renderer]):
        resolve_renderer(renderer)


def test_first_use_compiles_in_a_subprocess_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARP_CACHE_PATH", str(tmp_path))
    probed: list[str] = []
    monkeypatch.setattr(rendering, "probe", lambda name: probed.append(name) or works(name, "tracer"))
    rendering._compile_kernel.cache_clear()
    with pytest.warns(UserWarning, match="compiles its kernel"):
        assert resolve_renderer("warp") == "warp"
    assert resolve_renderer("warp") == "warp" and probed == ["warp"]
    rendering._compile_kernel.cache_clear()


def test_absent_ray_tracer_is_an_error_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_version", lambda name: "" if name == "mujoco-warp" else "3.17.0")
    with pytest.raises(UserError, match="pip install 'mujoco-warp"):
        resolve_renderer("warp")
    with pytest.raises(UserError, match="pip install 'mujoco-warp"):
        rendering.prepare_process("warp")
    with pytest.raises(UserError, match="vulkan"):
        resolve_renderer("vulkan")


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (subprocess.TimeoutExpired("python", 1.0), "within 1 s"),
        (
            subprocess.CompletedProcess([], -6, "", "noise\nan OpenGL library has not been loaded\n"),
            "an OpenGL library",
        ),
        (subprocess.CompletedProcess([], -11, "", ""), "code -11"),
    ],
)
def test_probe_survives_what_the_subprocess_does(outcome: Any, error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> Any:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(rendering.subprocess, "run", run)
    found = probe.__wrapped__("egl", timeout_seconds=1.0)
    assert not found.ok and error in found.error and found.fix == rendering.FIXES["egl"]


def test_probe_of_the_ray_tracer() -> None:
    found = probe("warp")
    assert found.ok and "ray tracer" in found.name and found.frames_per_second > 20, found.error


def test_opengl_and_ray_tracer_show_the_same_scene() -> None:
    frames = {}
    for name in ("egl", "osmesa", "warp"):
        done = run_python(IN_A_PROCESS.format(before="", render=name, after="print(frame.tobytes().hex())"))
        if done.returncode == 0:
            frames[name] = np.frombuffer(bytes.fromhex(done.stdout.split()[-1]), np.uint8).astype(float)
        elif name == "warp" or "UserError" not in done.stderr:
            raise AssertionError(done.stderr)
    if len(frames) < 2:
        pytest.skip("neither EGL nor OSMesa works here")
    for name, frame in frames.items():
        assert np.abs(frame - frames["warp"]).mean() < 4.0, name


def test_importing_and_listing_settles_no_graphics() -> None:
    code = (
        "import os, sys; from visrep.envs import dmc, make, rendering; assert dmc.list_tasks(); "
        "assert 'MUJOCO_GL' not in os.environ; assert not {'dm_control', 'mujoco', 'warp'} & set(sys.modules)"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_ray_tracer_runs_quietly_where_no_graphics_package_can_be_imported() -> None:
    blocked = "sys.modules['OpenGL'] = sys.modules['glfw'] = None"
    done = run_python(IN_A_PROCESS.format(before=blocked, render="warp", after="assert frame.std() > 10"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and done.stderr == ""


@pytest.mark.parametrize(
    ("variable", "before", "render", "message"),
    [
        ("osmesa", "", "egl", "contradicts MUJOCO_GL=osmesa"),
        ("disabled", "import dm_control.suite", "egl", "already loaded in this process"),
    ],
)
def test_contradicting_graphics_are_errors(variable: str, before: str, render: str, message: str) -> None:
    done = run_python(IN_A_PROCESS.format(before=before, render=render, after=""), MUJOCO_GL=variable)
    assert "UserError" in done.stderr and message in done.stderr


@pytest.fixture(scope="module")
def scene() -> Any:
    """(model, data, renderer) of a small scene seen from above, +x to the right."""
    from visrep.envs.warp_renderer import WarpRenderer

    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data, WarpRenderer(model, 40, 40, camera=0)


def draw(scene: Any, reset: bool = True) -> np.ndarray:
    model, data, renderer = scene
    mujoco.mj_forward(model, data)
    if reset:
        renderer.reset(model)
    return renderer.render(data).astype(int)


def strongest(image: np.ndarray, channel: int) -> np.ndarray:
    """Columns where ``channel`` stands out against both others."""
    others = np.delete(image, channel, axis=2).max(axis=2)
    return np.unique(np.nonzero(image[:, :, channel] > others + 60)[1])


def test_bodies_and_sites_are_drawn_where_they_are(scene: Any) -> None:
    data = scene[1]
    image = draw(scene)
    assert strongest(image, 0).min() > 20 and strongest(image, 1).max() < 20
    data.mocap_pos[0] = (-1.2, 0.8, 0.5)
    assert strongest(draw(scene, reset=False), 0).max() < 20  # it moved within the episode
    data.mocap_pos[0] = (1.2, 0, 0.5)
    np.testing.assert_array_equal(draw(scene), image)


def test_edits_of_the_model_show_after_reset(scene: Any) -> None:
    model, _, _ = scene
    image = draw(scene)
    model.site_rgba[0] = (0, 0, 0, 0)  # as finger_spin hides its target: the list gets shorter
    assert strongest(draw(scene), 1).size == 0
    model.site_rgba[0] = (0, 1, 0, 1)
    model.geom_rgba[model.geom("ball").id] = (0, 0, 1, 1)
    model.geom_size[model.geom("ball").id] = 0.6
    changed = draw(scene)
    assert strongest(changed, 0).size == 0 and len(strongest(changed, 2)) > len(strongest(image, 0))
    model.geom_rgba[model.geom("ball").id], model.geom_size[model.geom("ball").id] = (1, 0, 0, 1), 0.3
    terrain = model.hfield_data.copy()
    model.hfield_data[:] = np.eye(9).ravel()
    assert np.abs(draw(scene) - image).max() > 10
    model.hfield_data[:] = terrain
    np.testing.assert_array_equal(draw(scene), image)


def test_recompiled_model_keeps_the_tables_and_another_model_gets_its_own(scene: Any) -> None:
    _, _, renderer = scene
    image, surfaces = draw(scene), renderer._surfaces
    for text, kept in ((SCENE, True), (SCENE.replace('fovy="45"', 'fovy="60"'), False)):
        model = mujoco.MjModel.from_xml_string(text)
        other = draw((model, mujoco.MjData(model), renderer))
        assert (renderer._surfaces is surfaces) == kept
        assert np.array_equal(other, image) == kept
    renderer.reset(scene[0])


def test_light_is_clamped_before_the_texture_as_in_opengl(scene: Any) -> None:
    """Under a headlight of 1.3 white squares are white, and black ones stay black, without a highlight."""
    corner = draw(scene)[:6, :6]
    assert (corner == 0).mean() > 0.3 and (corner == 255).mean() > 0.3  # the rest is filtered borders


def test_transparent_shapes_let_the_background_through(scene: Any) -> None:
    model = scene[0]
    ball = model.geom("ball").id
    solid = draw(scene)
    model.geom_rgba[ball, 3] = 0.0
    without = draw(scene)
    model.geom_rgba[ball, 3] = 0.5
    half = draw(scene)
    model.geom_rgba[ball, 3] = 1.0
    seen = np.abs(solid - without).max(axis=2) > 100
    assert seen.any()
    np.testing.assert_allclose(half[seen], 0.5 * (solid + without)[seen], atol=2)


def test_smaller_copies_of_a_texture_keep_its_mean_and_its_place() -> None:
    from visrep.envs.warp_tables import _levels, nearest_divisor, shrunk

    image = np.zeros((12, 10, 3), np.uint8)
    image[:6, :5] = 200
    levels = _levels(image)
    assert [level.shape[:2] for level in levels] == [(12, 10), (6, 5), (3, 2), (1, 1)]
    assert (levels[1][:3, :2] == 200).all() and (levels[1][3:] == 0).all()
    assert len(_levels(np.zeros((48, 8, 3), np.uint8))) == 1  # a cube's faces must not mix
    small = shrunk(image[:, :10], 2)
    assert small.shape == (6, 5, 3) and small.mean() == image.mean()
    assert [nearest_divisor(300, ratio) for ratio in (0.0, 3.4, 9.0, 1000.0)] == [1, 3, 10, 30]


def test_orthographic_cameras_are_refused() -> None:
    from visrep.envs.warp_renderer import WarpRenderer

    model = mujoco.MjModel.from_xml_string(SCENE.replace('fovy="45"', 'projection="orthographic" fovy="4"'))
    with pytest.raises(UserError, match="render=egl"):
        WarpRenderer(model, 8, 8, camera=0)
