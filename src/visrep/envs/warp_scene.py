"""The list of shapes that MuJoCo itself would hand to OpenGL, as arrays that a ray tracer can take.

``mjv_updateScene`` needs no graphics library. It resolves everything that decides what is visible: geom groups, sites,
tendons (a slack one hangs as a chain of capsules), skins, colours with or without a material. Reading that list rather
than the model's geoms means that the ray tracer draws the same things as the rasteriser, whatever a task changes.

Shapes: N visible shapes in the list, V vertices of a skin.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

_GEOM = mujoco.mjtGeom
PLANE, SPHERE = int(_GEOM.mjGEOM_PLANE), int(_GEOM.mjGEOM_SPHERE)
CAPSULE, CYLINDER = int(_GEOM.mjGEOM_CAPSULE), int(_GEOM.mjGEOM_CYLINDER)
MESH, SKIN = int(_GEOM.mjGEOM_MESH), int(_GEOM.mjGEOM_SKIN)
# Lines, arrows, frames and labels are aids of the interactive viewer; tasks do not switch them on.
_DRAWN = frozenset(range(int(_GEOM.mjGEOM_SDF) + 1)) | {SKIN}
_SEGMENTS_PER_TENDON = 32  # a slack tendon is drawn as that many capsules at most


class ShapeList:
    """Visible shapes of one model, refreshed from its data.

    Attributes:
        count: N.
        kinds: [N] int32 ``mjtGeom``; skins are given as meshes.
        data_ids: [N] int32 mesh or height field; skin k is ``model.nmesh + k``; -1 otherwise.
        material_ids: [N] int32, -1 without material.
        skins: (index in the list, skin id) of the visible skins.
    """

    def __init__(self, model: Any, camera: int) -> None:
        self.model = model
        # fixed tendons (of joints) have no path through space, hence nothing to draw
        self._tendons = sum(int(model.wrap_type[start] != mujoco.mjtWrap.mjWRAP_JOINT) for start in model.tendon_adr)
        self.capacity = model.ngeom + model.nsite + model.nskin + self._tendons * _SEGMENTS_PER_TENDON + 64
        self.scene = mujoco.MjvScene(model, maxgeom=self.capacity)
        self._option = mujoco.MjvOption()
        self._option.flags[mujoco.mjtVisFlag.mjVIS_RANGEFINDER] = False  # as dm_control does
        self._perturb = mujoco.MjvPerturb()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = camera
        self._listed = -1
        self.count = 0
        self.kinds = self.data_ids = self.material_ids = np.zeros(0, np.int32)
        self.skins: list[tuple[int, int]] = []

    @property
    def slots(self) -> int:
        """Room for the present list with every visible tendon slack."""
        return self.count + _SEGMENTS_PER_TENDON * self._tendons

    def update(self, data: Any, relist: bool) -> bool:
        """Refresh poses, sizes and colours from ``data``; True when the list itself was read anew."""
        mujoco.mjv_updateScene(
            self.model, data, self._option, self._perturb, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self.scene
        )
        if not relist and self.scene.ngeom == self._listed:
            return False
        self._relist(data)
        return True

    def fill(self, position: NDArray[Any], rotation: NDArray[Any], size: NDArray[Any], rgba: NDArray[Any]) -> None:
        """Write the first N rows of [.., 3], [.., 3, 3], [.., 3] and [.., 4] float32 arrays."""
        n = self.count
        np.concatenate(self._positions, out=position.reshape(-1)[: 3 * n], casting="same_kind")
        np.concatenate(self._rotations, out=rotation.reshape(-1, 3)[: 3 * n], casting="same_kind")
        np.concatenate(self._colours, out=rgba.reshape(-1)[: 4 * n])
        np.concatenate(self._sizes, out=size.reshape(-1)[: 3 * n], casting="same_kind")
        # the list gives (radius, radius, half length), the ray tracer wants (radius, half length, -)
        size[self._long, 1] = size[self._long, 2]

    def skin_vertices(self, skin: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """World positions and normals of a skin, each [V, 3]."""
        start = 3 * int(self.scene.skinvertadr[skin])
        rows = slice(start, start + 3 * int(self.scene.skinvertnum[skin]))
        return self.scene.skinvert[rows].reshape(-1, 3), self.scene.skinnormal[rows].reshape(-1, 3)

    def _relist(self, data: Any) -> None:
        """Keep views of the list's own memory, so that a refresh is four concatenations."""
        model = self.model
        self._listed = self.scene.ngeom
        shapes = [g for g in self.scene.geoms[: self._listed] if int(g.type) in _DRAWN and g.rgba[3] > 0]
        self.count = len(shapes)
        kinds = np.array([g.type for g in shapes], np.int32)
        self.skins = [(i, int(g.objid)) for i, g in enumerate(shapes) if g.type == SKIN]
        self._long = np.flatnonzero((kinds == CAPSULE) | (kinds == CYLINDER))
        self.data_ids = np.array([_data_id(model, g) for g in shapes], np.int32)
        self.material_ids = np.array([g.matid for g in shapes], np.int32)
        self.kinds = np.where(kinds == SKIN, MESH, kinds).astype(np.int32)
        # The list moves an infinite plane about with the camera, for the rasteriser's sake: take the model's own pose.
        # Its size of a mesh is its extent, where the ray tracer wants what the texture is scaled by.
        self._positions = [data.geom_xpos[g.objid] if g.type == PLANE else g.pos for g in shapes]
        self._rotations = [g.mat for g in shapes]
        self._sizes = [model.geom_size[g.objid] if g.type == MESH else g.size for g in shapes]
        self._colours = [g.rgba for g in shapes]


def _data_id(model: Any, shape: Any) -> int:
    if shape.type == MESH:
        return int(shape.dataid) // 2  # even: the mesh, odd: its convex hull
    if shape.type == SKIN:
        return int(model.nmesh + shape.objid)
    return int(shape.dataid)
