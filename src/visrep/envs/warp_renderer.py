"""Draw MuJoCo scenes on one CPU core without any graphics library: a ray tracer made of MuJoCo Warp's parts.

A frame: MuJoCo lists what is visible (``warp_scene``), poses go into warp's arrays through zero-copy NumPy views, the
tree over the shapes is refitted, and one recorded launch of the kernel (``warp_kernel``) writes the image.

Shapes: H W pixels, N visible shapes, L lights.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

import mujoco
import numpy as np
import warp as wp
from numpy.typing import NDArray

from visrep.envs.rendering import quiet_stderr
from visrep.envs.warp_scene import PLANE, ShapeList
from visrep.errors import UserError

if wp.config.log_level == wp.LOG_INFO:  # warp's default: a line for every module loaded and every kernel compiled
    wp.config.log_level = wp.LOG_ERROR
with quiet_stderr():  # warp's native part writes to the terminal that there is no CUDA driver; this renderer wants none
    wp.init()

from visrep.envs.warp_kernel import Lights, Scene, trace
from visrep.envs.warp_tables import Surfaces, Textures, material_tables, same_content

_SHAPE_TYPES = {
    "kind": int, "surface": int, "texture": int, "uniform": int, "position": wp.vec3, "rotation": wp.mat33,
    "size": wp.vec3, "rgba": wp.vec4, "repeat": wp.vec2, "finish": wp.vec3,
}  # fmt: skip
_LIGHT_TYPES = {
    "directional": int, "shadow": int, "position": wp.vec3, "direction": wp.vec3, "ambient": wp.vec3,
    "diffuse": wp.vec3, "specular": wp.vec3, "attenuation": wp.vec3, "spot": wp.vec2,
}  # fmt: skip


def renderer_name() -> str:
    """Name and versions, for reports."""
    return f"ray tracer on CPU (mujoco-warp {metadata.version('mujoco-warp')}, warp {metadata.version('warp-lang')})"


class WarpRenderer:
    """One camera of one model, drawn as uint8 [H, W, 3].

    The first one on a machine compiles the kernel, in about ten seconds; warp keeps it in its cache folder.

    Raises:
        UserError: the camera is orthographic or has a sensor of its own.
    """

    def __init__(self, model: mujoco.MjModel, height: int, width: int, camera: int) -> None:
        self._height, self._width, self._camera = height, width, camera
        self._model: mujoco.MjModel
        self._rgb: Any = wp.zeros((height * width, 3), dtype=wp.uint8, device="cpu")
        self._image = self._rgb.numpy().reshape(height, width, 3)
        self._camera_pose = (_array(np.zeros((1, 3)), wp.vec3), _array(np.zeros((1, 3, 3)), wp.mat33))
        self._load(model)

    def reset(self, model: mujoco.MjModel) -> None:
        """Start of an episode: the model may have been edited, or compiled anew."""
        if model is not self._model:
            if same_content(self._model, model):
                self._model, self._shapes = model, ShapeList(model, self._camera)
            else:
                self._load(model)
        self._surfaces.update_heights(model)
        self._edited = True

    def render(self, data: mujoco.MjData) -> NDArray[np.uint8]:
        """A new [H, W, 3] image of the state in ``data`` (its kinematics must be up to date)."""
        relisted = self._shapes.update(data, relist=self._edited)
        if relisted:
            self._allocate()
        boxes = self._upload(data)
        # The tree is built anew with the list: a replayed episode must not depend on the episodes before it.
        if relisted:
            self._plant(*boxes)
        else:
            self._bounds[0][:], self._bounds[1][:] = boxes
            self._tree.refit()
        self._box[:] = boxes[0].min(axis=0), boxes[1].max(axis=0)
        self._edited = False
        self._launch.launch()
        return self._image.copy()

    def _load(self, model: mujoco.MjModel) -> None:
        """Take over what stays the same between frames."""
        camera = self._camera
        if model.cam_projection[camera] != mujoco.mjtProjection.mjPROJ_PERSPECTIVE or model.cam_sensorsize[camera, 1]:
            raise UserError(f"render=warp draws plain perspective cameras only, unlike camera={camera}: use render=egl")
        tangent = float(np.tan(np.deg2rad(model.cam_fovy[camera]) / 2))
        self._pixel_width = 2.0 * tangent / self._height
        self._rays = _array(_pixel_rays(self._height, self._width, tangent), wp.vec3)
        with wp.ScopedDevice("cpu"):
            self._surfaces = Surfaces(model)
            self._textures = Textures(model, self._pixel_width)
        self._model, self._shapes = model, ShapeList(model, camera)
        self._edited = True

    def _allocate(self) -> None:
        """Arrays for the present list of shapes and lights."""
        shapes, n = self._shapes, self._shapes.count
        values = {name: np.zeros((n, *np.shape(dtype()))) for name, dtype in _SHAPE_TYPES.items()}
        values |= {"kind": shapes.kinds, "surface": shapes.surfaces} | material_tables(self._model, shapes.material_ids)
        scene = {name: _array(values[name], dtype) for name, dtype in _SHAPE_TYPES.items()}
        self._poses = tuple(scene[name].numpy() for name in ("position", "rotation", "size", "rgba"))
        self._solids = np.flatnonzero(shapes.kinds != PLANE)
        scene["planes"] = _array(np.flatnonzero(shapes.kinds == PLANE), int)
        scene["solids"] = _array(self._solids, int)
        lights = shapes.light_values()
        self._light_arrays = {name: _array(lights[name], dtype) for name, dtype in _LIGHT_TYPES.items()}
        self._scene = scene | self._surfaces.tables | self._textures.tables

    def _upload(self, data: mujoco.MjData) -> tuple[NDArray[Any], NDArray[Any]]:
        """Poses, sizes and colours of this frame; returns the low and high corners that the tree is made of."""
        position, rotation, size, rgba = self._poses
        shapes = self._shapes
        shapes.fill(position, rotation, size, rgba)
        for index, skin in shapes.skins:
            position[index] = self._surfaces.move_skin(skin, *shapes.skin_vertices(skin))
            rotation[index] = np.eye(3)
        half = shapes.half_extents(size, self._surfaces.half_extents)[self._solids]
        reach = np.einsum("nij,nj->ni", np.abs(rotation[self._solids]), half)
        centre = position[self._solids]
        for array, value in zip(self._camera_pose, (data.cam_xpos, data.cam_xmat), strict=True):
            view = array.numpy()
            view[...] = value[self._camera].reshape(view.shape)
        shapes.fill_lights(self._light_arrays["position"].numpy(), self._light_arrays["direction"].numpy())
        if not len(centre):  # a tree needs an item: one that no ray meets
            return np.full((1, 3), 1.0e8), np.full((1, 3), 1.0e8)
        return centre - reach, centre + reach

    def _plant(self, low: NDArray[Any], high: NDArray[Any]) -> None:
        """Build the tree and record the launch."""
        boxes = (_array(low, wp.vec3), _array(high, wp.vec3))
        self._bounds = tuple(box.numpy() for box in boxes)
        self._tree = wp.Bvh(*boxes, constructor="sah")
        box = _array(np.zeros((2, 3)), wp.vec3)
        self._box = box.numpy()
        scene, lights = Scene(), Lights()
        for name, value in {**self._scene, "tree": self._tree.id, "box": box}.items():
            setattr(scene, name, value)
        for name, value in self._light_arrays.items():
            setattr(lights, name, value)
        self._structs: Any = (
            wp.array([scene], dtype=Scene, device="cpu"),
            wp.array([lights], dtype=Lights, device="cpu"),
        )
        inputs = [*self._structs, *self._camera_pose, self._rays, self._pixel_width, self._rgb]
        self._launch = wp.launch(trace, dim=len(self._rays), inputs=inputs, device="cpu", record_cmd=True)


def _pixel_rays(height: int, width: int, tangent: float) -> NDArray[np.float64]:
    """[H * W, 3] unit vectors through the pixels' centres, in rows from the top; the camera looks along -z."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width * 2 - 1, 1 - (np.arange(height) + 0.5) / height * 2)
    rays = np.stack([x * tangent * width / height, y * tangent, np.full_like(x, -1.0)], axis=2).reshape(-1, 3)
    unit: NDArray[np.float64] = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    return unit


def _array(values: NDArray[Any], dtype: Any) -> Any:
    kind = np.int32 if dtype is int else np.float32
    return wp.array(np.ascontiguousarray(values, kind), dtype=dtype, device="cpu")
