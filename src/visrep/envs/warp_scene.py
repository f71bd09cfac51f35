"""The list of shapes that MuJoCo itself would hand to OpenGL, as arrays that a ray tracer can take.

``mjv_updateScene`` needs no graphics library. It resolves everything that decides what is visible: geom groups, sites,
tendons (a slack one hangs as a chain of capsules), skins, colours with or without a material. Reading that list rather
than the model's geoms means that the ray tracer draws the same things as the rasteriser, whatever a task changes.

Shapes: N visible shapes in the list, V vertices of a skin, L lights.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

_GEOM = mujoco.mjtGeom
PLANE = int(_GEOM.mjGEOM_PLANE)
HFIELD, CAPSULE, CYLINDER = int(_GEOM.mjGEOM_HFIELD), int(_GEOM.mjGEOM_CAPSULE), int(_GEOM.mjGEOM_CYLINDER)
MESH, SKIN = int(_GEOM.mjGEOM_MESH), int(_GEOM.mjGEOM_SKIN)
# Lines, arrows, frames and labels are aids of the interactive viewer; tasks do not switch them on.
_DRAWN = frozenset(range(int(_GEOM.mjGEOM_SDF) + 1)) | {SKIN}
_SPOT, _DIRECTIONAL = int(mujoco.mjtLightType.mjLIGHT_SPOT), int(mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
_SEGMENTS_PER_TENDON = 32  # a slack tendon is drawn as that many capsules at most


class ShapeList:
    """Visible shapes of one model, refreshed from its data.

    Attributes:
        count: N.
        kinds: [N] int32 ``mjtGeom``; skins are given as meshes.
        surfaces: [N] int32 triangle mesh, numbered as in ``warp_tables``; -1 for shapes with a formula.
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
        self._listed = (-1, -1)
        self.count = 0
        self.kinds = self.surfaces = self.material_ids = np.zeros(0, np.int32)
        self.skins: list[tuple[int, int]] = []

    def update(self, data: Any, relist: bool) -> bool:
        """Refresh poses, sizes and colours from ``data``; True when the list itself was read anew."""
        mujoco.mjv_updateScene(
            self.model, data, self._option, self._perturb, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self.scene
        )
        if not relist and (self.scene.ngeom, self.scene.nlight) == self._listed:
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

    def half_extents(self, size: NDArray[Any], of_surfaces: NDArray[Any]) -> NDArray[Any]:
        """[N, 3] half sides of a box around each shape in its own frame, from the sizes that ``fill`` wrote."""
        half = size.copy()
        half[self._long, 1] = size[self._long, 0]
        half[self._long, 2] = size[self._long, 1] + size[self._long, 0]  # exact for capsules, generous for cylinders
        half[self._meshed] = of_surfaces[self.surfaces[self._meshed]]
        return half

    def light_values(self) -> dict[str, NDArray[Any]]:
        """Fields of ``warp_kernel.Lights`` [L, ...], the headlight included."""
        lights = self.scene.lights[: self.scene.nlight]
        self._light_views = [light.pos for light in lights], [light.dir for light in lights]
        spot = [
            (np.cos(np.deg2rad(light.cutoff)), light.exponent) if light.type == _SPOT else (-1.0, 0.0)
            for light in lights
        ]
        values = {name: [getattr(light, name) for light in lights] for name in ("ambient", "diffuse", "specular")}
        values["directional"] = [light.type == _DIRECTIONAL for light in lights]
        values["shadow"] = [light.castshadow for light in lights]
        values["attenuation"] = [light.attenuation for light in lights]
        values |= {"spot": spot, "position": self._light_views[0], "direction": self._light_views[1]}
        width = {"directional": (), "shadow": (), "spot": (2,)}
        return {name: np.array(rows, np.float32).reshape(-1, *width.get(name, (3,))) for name, rows in values.items()}

    def fill_lights(self, position: NDArray[Any], direction: NDArray[Any]) -> None:
        """Write [L, 3] arrays; the headlight moves with the camera, others may with bodies."""
        for views, out in zip(self._light_views, (position, direction), strict=True):
            if views:
                np.concatenate(views, out=out.reshape(-1))

    def skin_vertices(self, skin: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """World positions and normals of a skin, each [V, 3]."""
        start = 3 * int(self.scene.skinvertadr[skin])
        rows = slice(start, start + 3 * int(self.scene.skinvertnum[skin]))
        return self.scene.skinvert[rows].reshape(-1, 3), self.scene.skinnormal[rows].reshape(-1, 3)

    def _relist(self, data: Any) -> None:
        """Keep views of the list's own memory, so that a refresh is four concatenations."""
        model = self.model
        self._listed = (self.scene.ngeom, self.scene.nlight)
        shapes = [g for g in self.scene.geoms[: self.scene.ngeom] if int(g.type) in _DRAWN and g.rgba[3] > 0]
        self.count = len(shapes)
        kinds = np.array([g.type for g in shapes], np.int32)
        self.skins = [(i, int(g.objid)) for i, g in enumerate(shapes) if g.type == SKIN]
        self._long = np.flatnonzero((kinds == CAPSULE) | (kinds == CYLINDER))
        self.surfaces = np.array([_surface(model, g) for g in shapes], np.int32)
        self.material_ids = np.array([g.matid for g in shapes], np.int32)
        self._meshed = np.flatnonzero(self.surfaces >= 0)
        self.kinds = np.where(kinds == SKIN, MESH, kinds).astype(np.int32)
        # The list moves an infinite plane about with the camera, for the rasteriser's sake: take the model's own pose.
        # Its size of a mesh is its extent, where the ray tracer wants what the texture is scaled by.
        self._positions = [data.geom_xpos[g.objid] if g.type == PLANE else g.pos for g in shapes]
        self._rotations = [g.mat for g in shapes]
        self._sizes = [model.geom_size[g.objid] if g.type == MESH else g.size for g in shapes]
        self._colours = [g.rgba for g in shapes]


def _surface(model: Any, shape: Any) -> int:
    """Meshes come first, then height fields, then skins."""
    if shape.type == MESH:
        return int(shape.dataid) // 2  # even: the mesh, odd: its convex hull
    if shape.type == HFIELD:
        return int(model.nmesh + shape.dataid)
    if shape.type == SKIN:
        return int(model.nmesh + model.nhfield + shape.objid)
    return -1
