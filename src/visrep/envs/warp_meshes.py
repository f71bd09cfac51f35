"""Surfaces that change while a model lives, as triangle meshes of MuJoCo Warp's ray tracer: terrain and skins.

Shapes: V vertices, F triangles of one skin.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import warp as wp
from mujoco_warp._src import bvh as mjw_bvh  # the height field's triangulation has no public name
from numpy.typing import NDArray

from visrep.envs.warp_scene import ShapeList


class HeightFields:
    """Keeps the tracer's copy of each visible height field equal to the model's: a task may draw new terrain."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._meshes: dict[int, Any] = {}  # a mesh must outlive its id in the context
        self._ids = [int(i) for i in np.flatnonzero(context.hfield_bvh_id.numpy())]
        self._heights: NDArray[np.float32] | None = None

    def upload(self, model: mujoco.MjModel) -> None:
        """Triangulate anew if a height has changed since the last call."""
        if not self._ids or (self._heights is not None and np.array_equal(self._heights, model.hfield_data)):
            return
        self._heights = model.hfield_data.copy()
        for field in self._ids:
            with wp.ScopedDevice("cpu"):
                mesh, half = mjw_bvh.build_hfield_bvh(model, field)
            self._meshes[field] = mesh
            self._context.hfield_bvh_id.numpy()[field] = mesh.id
            self._context.hfield_bounds_size.numpy()[field] = half


class Skins:
    """Skins appended to the tracer's tables as further meshes: skin k is mesh ``nmesh + k``."""

    def __init__(self, model: mujoco.MjModel, warp_model: Any, context: Any) -> None:
        self._meshes, self._nmesh = [], int(model.nmesh)
        for skin in range(model.nskin):
            vertices = slice(model.skin_vertadr[skin], model.skin_vertadr[skin] + model.skin_vertnum[skin])
            faces = model.skin_face[model.skin_faceadr[skin] :][: model.skin_facenum[skin]]  # [F, 3]
            self._append(model, skin, faces, warp_model, context)
            points: Any = wp.array(model.skin_vert[vertices], dtype=wp.vec3)
            mesh = wp.Mesh(points=points, indices=wp.array(faces.flatten(), dtype=wp.int32))
            self._meshes.append(mesh)
        ids = [*context.mesh_bvh_id.numpy().tolist(), *(mesh.id for mesh in self._meshes)]
        context.mesh_bvh_id = wp.array(ids, dtype=wp.uint64)
        context.mesh_bounds_size = _grown(context.mesh_bounds_size, np.zeros((model.nskin, 3)), wp.vec3)
        self._bounds = context.mesh_bounds_size.numpy()
        self._normals = warp_model.mesh_normal.numpy()
        self._normal_start = warp_model.mesh_normaladr.numpy()

    def upload(self, shapes: ShapeList, position: NDArray[Any], rotation: NDArray[Any]) -> None:
        """Vertices of the present pose, relative to their centre, which becomes the shape's position."""
        for slot, skin in shapes.skins:
            vertices, normals = shapes.skin_vertices(skin)  # [V, 3] each
            low, high = vertices.min(axis=0), vertices.max(axis=0)
            centre = 0.5 * (low + high)
            position[slot], rotation[slot] = centre, np.eye(3)
            self._bounds[self._nmesh + skin] = 0.5 * (high - low)
            np.subtract(vertices, centre, out=self._meshes[skin].points.numpy())
            start = self._normal_start[self._nmesh + skin]
            self._normals[start : start + len(normals)] = normals
            self._meshes[skin].refit()

    @staticmethod
    def _append(model: mujoco.MjModel, skin: int, faces: NDArray[np.int32], warp_model: Any, context: Any) -> None:
        """Add one skin's faces, texture coordinates and room for its normals to the tables over all meshes."""
        count = int(model.skin_vertnum[skin])
        textured = model.skin_texcoordadr[skin] >= 0
        texture_start = len(context.mesh_texcoord) if textured else -1
        if textured:
            coordinates = model.skin_texcoord[model.skin_texcoordadr[skin] :][:count]
            context.mesh_texcoord = _grown(context.mesh_texcoord, coordinates, wp.vec2)
        tables = {"mesh_faceadr": len(context.mesh_facenormal), "mesh_normaladr": len(warp_model.mesh_normal)}
        for name, start in tables.items():
            setattr(warp_model, name, _grown(getattr(warp_model, name), [start], int))
        context.mesh_texcoord_offsets = _grown(context.mesh_texcoord_offsets, [texture_start], int)
        context.mesh_facetexcoord = _grown(context.mesh_facetexcoord, faces, wp.vec3i)
        context.mesh_facenormal = _grown(context.mesh_facenormal, faces, wp.vec3i)
        warp_model.mesh_normal = _grown(warp_model.mesh_normal, np.zeros((count, 3)), wp.vec3)


def _grown(array: Any, rows: Any, dtype: Any) -> Any:
    old = array.numpy()
    new = np.asarray(rows, dtype=old.dtype).reshape(-1, *old.shape[1:])
    return wp.array(np.concatenate([old, new]), dtype=dtype)
