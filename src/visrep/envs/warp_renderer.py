"""Draw MuJoCo scenes on one CPU core without any graphics library: MuJoCo Warp's ray tracer.

The tracer's own context holds meshes, textures, materials and lights; its list of geoms is replaced by ``ShapeList``,
so that sites, tendons and skins are drawn too. A frame is: refresh the list, copy poses into warp's arrays through
zero-copy numpy views, then replay one recorded graph (bounds, tree refit, ray casting), which skips warp's launch
overhead of some 300 µs. Known differences from OpenGL: no reflections, no anti-aliasing, no transparency, no haze.

Shapes: H W pixels, S slots for shapes (those beyond the list's N stay invisible).
"""

from __future__ import annotations

import warnings
from importlib import metadata

import mujoco
import numpy as np
import warp as wp
from numpy.typing import NDArray

from visrep.envs.rendering import quiet_stderr
from visrep.envs.warp_scene import PLANE, SPHERE, ShapeList

if wp.config.log_level == wp.LOG_INFO:  # warp's default: a line for every module loaded and every kernel compiled
    wp.config.log_level = wp.LOG_ERROR
with quiet_stderr():  # warp's native part writes to the terminal that there is no CUDA driver; this renderer wants none
    wp.init()

import mujoco_warp as mjw

from visrep.envs.warp_meshes import HeightFields, Skins
from visrep.envs.warp_shading import filter_textures, headlight_excess, textured_materials

_BELOW_EVERYTHING = -1.0e4  # metres: where unused slots wait

# What a task may change at the start of an episode: fields of the same name in both models, [1, n, ...] in warp's.
_RESET_FIELDS = (
    "mat_rgba", "mat_emission", "mat_specular", "mat_shininess", "mat_texrepeat", "mat_texid",
    "light_active", "light_castshadow", "light_ambient", "light_diffuse", "light_specular",
    "light_attenuation", "light_cutoff", "light_exponent",
)  # fmt: skip
# What the context is built from: a recompiled model with the same content keeps the context.
_CONTEXT_FIELDS = (
    "mesh_vert", "mesh_face", "mesh_texcoord", "tex_data", "tex_type", "cam_fovy", "cam_resolution", "light_type",
    "light_attenuation", "mat_texid", "hfield_size", "hfield_nrow", "hfield_ncol", "skin_vertnum",
)  # fmt: skip


def renderer_name() -> str:
    """Name and versions, for reports."""
    return f"mujoco-warp {metadata.version('mujoco-warp')} ray tracer on CPU (warp {metadata.version('warp-lang')})"


class WarpRenderer:
    """One camera of one model, drawn as uint8 [H, W, 3].

    Construction takes 0.1–0.5 s, plus 2–4 s the first time this machine sees the set of shape types (kernels are
    compiled, then kept in warp's cache folder).
    """

    def __init__(self, model: mujoco.MjModel, height: int, width: int, camera: int) -> None:
        self._height, self._width, self._camera = height, width, camera
        self._adopt(model)
        self._built = False

    def reset(self, model: mujoco.MjModel) -> None:
        """Start of an episode: the model may have been edited, or compiled anew."""
        if model is not self._model:
            previous = self._model
            self._adopt(model)
            self._built = self._built and all(
                np.array_equal(getattr(previous, name), getattr(model, name)) for name in _CONTEXT_FIELDS
            )
        self._edited = True

    def render(self, data: mujoco.MjData) -> NDArray[np.uint8]:
        """A new [H, W, 3] image of the state in ``data`` (its kinematics must be up to date)."""
        relisted = self._shapes.update(data, relist=self._edited)
        if not self._fits():
            self._build(data)
        if self._edited:
            self._upload_model()
        if relisted:
            self._upload_list()
        self._upload_poses(data)
        if relisted:  # another tree suits another list; and a replayed episode must not see an old episode's tree
            mjw.refit_bvh(self._m, self._d, self._rc)
            self._rc.bvh.rebuild()
        self._edited = False
        wp.capture_launch(self._graph)
        return self._bgra[:, :, 2::-1].copy()

    def _adopt(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._shapes = ShapeList(model, self._camera)
        self._edited = True

    def _fits(self) -> bool:
        return self._built and self._shapes.count <= self._slots and set(self._shapes.kinds) <= self._kinds

    def _build(self, data: mujoco.MjData) -> None:
        """Make the tracer's context with S slots and record the graph."""
        model, shapes = self._model, self._shapes
        self._slots = shapes.slots
        self._kinds = set(shapes.kinds.tolist())
        with wp.ScopedDevice("cpu"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about physics, which is not run here
                self._m, self._d = mjw.put_model(model), mjw.make_data(model)
            self._rc = mjw.create_render_context(
                model,
                cam_res=(self._width, self._height),
                cam_active=[self._camera],
                render_rgb=True,
                render_depth=False,
                render_seg=False,
                use_shadows=True,
                render_skybox=True,
            )
            filter_textures(model, self._rc, self._camera, self._height)
            self._replace_geoms()
            self._heights = HeightFields(self._rc)
            self._skins = Skins(model, self._m, self._rc) if shapes.skins else None
            self._upload_model()
            self._upload_list()
            self._upload_poses(data)
            mjw.refit_bvh(self._m, self._d, self._rc)
            mjw.render(self._m, self._d, self._rc)  # compiles; recording needs compiled kernels
            wp.capture_begin()
            mjw.refit_bvh(self._m, self._d, self._rc)
            mjw.render(self._m, self._d, self._rc)
            self._graph = wp.capture_end()
        self._bgra = self._rc.rgb_data.numpy().view(np.uint8).reshape(self._height, self._width, 4)
        self._edited = self._built = True

    def _replace_geoms(self) -> None:
        """Swap the arrays over the model's geoms for arrays over S slots."""
        m, d, rc, n = self._m, self._d, self._rc, self._slots
        m.geom_type = wp.zeros(n, dtype=int)
        m.geom_dataid, m.geom_matid = wp.zeros((1, n), dtype=int), wp.zeros((1, n), dtype=int)
        m.geom_size, m.geom_rgba = wp.zeros((1, n), dtype=wp.vec3), wp.zeros((1, n), dtype=wp.vec4)
        d.geom_xpos, d.geom_xmat = wp.zeros((1, n), dtype=wp.vec3), wp.zeros((1, n), dtype=wp.mat33)
        rc.geom_ray_types = tuple(sorted(self._kinds))
        rc.bvh_ngeom = n
        rc.enabled_geom_ids = wp.array(np.arange(n), dtype=int)
        rc.lower, rc.upper = wp.zeros(n, dtype=wp.vec3), wp.zeros(n, dtype=wp.vec3)
        rc.group = wp.zeros(n, dtype=int)
        rc.group_root = wp.array([-1], dtype=int)  # the whole tree
        rc.bvh = wp.Bvh(rc.lower, rc.upper, constructor="sah")
        rc.bvh_id = rc.bvh.id
        self._kind, self._data_id = m.geom_type.numpy(), m.geom_dataid.numpy()[0]
        self._material_id = m.geom_matid.numpy()[0]
        self._size, self._rgba = m.geom_size.numpy()[0], m.geom_rgba.numpy()[0]
        self._position, self._rotation = d.geom_xpos.numpy()[0], d.geom_xmat.numpy()[0]
        self._rotation[:] = np.eye(3)
        self._camera_views = (d.cam_xpos.numpy()[0], d.cam_xmat.numpy()[0])
        self._light_views = (d.light_xpos.numpy()[0], d.light_xdir.numpy()[0])

    def _upload_model(self) -> None:
        for name in _RESET_FIELDS:
            view = getattr(self._m, name).numpy()[0]
            view[...] = getattr(self._model, name).reshape(view.shape)
        self._textured = textured_materials(self._model)
        self._m.mat_specular.numpy()[0][self._textured] = 0.0
        self._heights.upload(self._model)

    def _upload_list(self) -> None:
        shapes, n = self._shapes, self._shapes.count
        self._kind[:n], self._data_id[:n], self._material_id[:n] = shapes.kinds, shapes.data_ids, shapes.material_ids
        rest = slice(n, None)
        self._kind[rest], self._data_id[rest], self._material_id[rest] = SPHERE, -1, -1
        self._size[rest], self._rgba[rest] = 0.0, 0.0
        has_texture = np.append(self._textured, False)[shapes.material_ids]  # -1, no material, reads the appended value
        self._planes = np.flatnonzero(has_texture & (shapes.kinds == PLANE))
        self._position[rest] = (0.0, 0.0, _BELOW_EVERYTHING)

    def _upload_poses(self, data: mujoco.MjData) -> None:
        self._shapes.fill(self._position, self._rotation, self._size, self._rgba)
        if self._skins is not None:
            self._skins.upload(self._shapes, self._position, self._rotation)
        axis = data.cam_xmat[self._camera].reshape(3, 3)[:, 2]
        self._rgba[self._planes, :3] *= headlight_excess(self._model, self._rotation[self._planes, :, 2], axis)[:, None]
        position, rotation = self._camera_views
        position[...], rotation[...] = data.cam_xpos, data.cam_xmat.reshape(-1, 3, 3)
        position, direction = self._light_views
        position[...], direction[...] = data.light_xpos, data.light_xdir
