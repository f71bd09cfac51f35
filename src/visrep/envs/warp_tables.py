"""What the ray tracer keeps of a model between frames: triangle meshes and textures, in warp's arrays.

Surfaces are numbered: the model's meshes, then its height fields, then its skins.

Shapes: V vertices, F triangles.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import warp as wp
from numpy.typing import NDArray

_RGB = int(mujoco.mjtTextureRole.mjTEXROLE_RGB)
_MAX_LEVELS = 13  # of a texture 4096 wide
_SKYBOX = int(mujoco.mjtTexture.mjTEXTURE_SKYBOX)
# A model compiled anew with these unchanged keeps its tables.
_CONTENT = (
    "mesh_vert", "mesh_face", "mesh_texcoord", "tex_data", "tex_type", "hfield_size", "hfield_nrow", "hfield_ncol",
    "skin_face", "cam_fovy",
)  # fmt: skip


class Surfaces:
    """Triangle meshes and the tables over their faces; height fields and skins are brought up to date on demand.

    Attributes:
        half_extents: [number of surfaces, 3] of a box around the surface's own origin.
        tables: fields of ``warp_kernel.Scene``.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._first_hfield, self._first_skin = int(model.nmesh), int(model.nmesh + model.nhfield)
        self._meshes: list[Any] = []
        self._first: dict[str, list[int]] = {"face": [], "normal": [], "uv": []}
        self._face_normal: list[NDArray[Any]] = []
        self._face_uv: list[NDArray[Any]] = []
        self._normals = [model.mesh_normal]
        self._uvs = [model.mesh_texcoord]
        for mesh in range(model.nmesh):
            self._add_mesh(model, mesh)
        for field in range(model.nhfield):
            faces = _grid_faces(int(model.hfield_nrow[field]), int(model.hfield_ncol[field]))
            self._add(_grid_points(model, field), faces, normal=-1, uv=-1)
        for skin in range(model.nskin):
            self._add_skin(model, skin)
        normals, uvs = np.concatenate(self._normals), np.concatenate(self._uvs)
        self.tables = {
            "meshes": wp.array([m.id for m in self._meshes], dtype=wp.uint64),
            **{f"first_{name}": wp.array(np.array(first, np.int32), dtype=int) for name, first in self._first.items()},
            "face_normal": _rows(self._face_normal, wp.vec3i),
            "face_uv": _rows(self._face_uv, wp.vec3i),
            "normals": wp.array(normals.astype(np.float32), dtype=wp.vec3),
            "uvs": wp.array(uvs.astype(np.float32), dtype=wp.vec2),
        }
        points = [m.points.numpy() for m in self._meshes]
        self.half_extents = np.array([np.abs(p).max(axis=0) for p in points], np.float32).reshape(-1, 3)
        self._heights = model.hfield_data.copy()

    def update_heights(self, model: mujoco.MjModel) -> None:
        """Follow the heights, which a task may draw anew at reset."""
        if np.array_equal(self._heights, model.hfield_data):
            return
        self._heights = model.hfield_data.copy()
        for field in range(model.nhfield):
            self._move(self._first_hfield + field, _grid_points(model, field))

    def move_skin(self, skin: int, vertices: NDArray[Any], normals: NDArray[Any]) -> NDArray[np.float32]:
        """Give a skin its present vertices and normals, [V, 3] each in world frame; returns the vertices' centre."""
        centre: NDArray[np.float32] = 0.5 * (vertices.min(axis=0) + vertices.max(axis=0))
        self._move(self._first_skin + skin, vertices - centre)
        first = self._first["normal"][self._first_skin + skin]
        self.tables["normals"].numpy()[first : first + len(normals)] = normals
        return centre

    def _move(self, surface: int, points: NDArray[Any]) -> None:
        mesh = self._meshes[surface]
        mesh.points.numpy()[:] = points
        mesh.refit()
        self.half_extents[surface] = np.abs(points).max(axis=0)

    def _add(self, points: NDArray[Any], faces: NDArray[Any], normal: int, uv: int) -> None:
        points_array: Any = wp.array(points.astype(np.float32), dtype=wp.vec3)
        indices: Any = wp.array(np.ascontiguousarray(faces, np.int32).ravel(), dtype=wp.int32)
        self._meshes.append(wp.Mesh(points=points_array, indices=indices))
        self._first["face"].append(sum(map(len, self._face_normal)))
        self._first["normal"].append(normal)
        self._first["uv"].append(uv)
        self._face_normal.append(faces)
        self._face_uv.append(faces)

    def _add_mesh(self, model: mujoco.MjModel, mesh: int) -> None:
        rows = slice(model.mesh_faceadr[mesh], model.mesh_faceadr[mesh] + model.mesh_facenum[mesh])
        vertices = slice(model.mesh_vertadr[mesh], model.mesh_vertadr[mesh] + model.mesh_vertnum[mesh])
        uv = int(model.mesh_texcoordadr[mesh])
        self._add(model.mesh_vert[vertices], model.mesh_face[rows], int(model.mesh_normaladr[mesh]), uv)
        self._face_normal[-1] = model.mesh_facenormal[rows]
        if uv >= 0:
            self._face_uv[-1] = model.mesh_facetexcoord[rows]

    def _add_skin(self, model: mujoco.MjModel, skin: int) -> None:
        count, start = int(model.skin_vertnum[skin]), int(model.skin_vertadr[skin])
        faces = model.skin_face[model.skin_faceadr[skin] :][: model.skin_facenum[skin]]
        uv = -1
        if model.skin_texcoordadr[skin] >= 0:
            uv = sum(map(len, self._uvs))
            self._uvs.append(model.skin_texcoord[model.skin_texcoordadr[skin] :][:count])
        self._add(model.skin_vert[start : start + count], faces, sum(map(len, self._normals)), uv)
        self._normals.append(np.zeros((count, 3)))


class Textures:
    """Textures with smaller copies (mipmaps); cubes have none.

    The texels of a skybox keep their angle, so that it is averaged beforehand to about one texel per pixel.
    """

    def __init__(self, model: mujoco.MjModel, pixel_width: float) -> None:
        levels = [_levels(_pixels(model, i, pixel_width)) for i in range(model.ntex)]
        skies = np.flatnonzero(model.tex_type == _SKYBOX)
        first = np.zeros((max(len(levels), 1), _MAX_LEVELS), np.int32)
        parts, count = [], 0
        for texture, images in enumerate(levels):
            for level, image in enumerate(images):
                first[texture, level] = count
                packed = image.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
                parts.append(packed.ravel())
                count += packed.size
        sizes = [(images[0].shape[1], images[0].shape[0], len(images)) for images in levels]
        self.tables = {
            "texels": wp.array(np.concatenate([*parts, np.zeros(1, np.uint32)]), dtype=wp.uint32),
            "first_texel": wp.array(first, dtype=int),
            "texture_size": _rows([np.array(sizes, np.int32).reshape(-1, 3)], wp.vec3i),
            "sky": int(skies[0]) if len(skies) else -1,
        }


def same_content(old: mujoco.MjModel, new: mujoco.MjModel) -> bool:
    """Whether the tables of one model serve the other."""
    return all(np.array_equal(getattr(old, name), getattr(new, name)) for name in _CONTENT)


def material_tables(model: mujoco.MjModel, materials: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Per-shape fields of ``Scene`` from the materials' indices [S]; -1, no material, takes MuJoCo's defaults."""
    none = materials < 0
    index = np.where(none, 0, materials)

    def pick(values: NDArray[Any], default: Any) -> NDArray[Any]:
        if not model.nmat:
            return np.broadcast_to(np.asarray(default), (len(materials), *np.shape(default)))
        mask = none.reshape(-1, *[1] * (values.ndim - 1))
        return np.where(mask, np.asarray(default), values[index])

    finish = [pick(model.mat_emission, 0.0), pick(model.mat_specular, 0.5), pick(model.mat_shininess, 0.5)]
    return {
        "texture": pick(model.mat_texid[:, _RGB], -1),
        "repeat": pick(model.mat_texrepeat, (1.0, 1.0)),
        "uniform": pick(model.mat_texuniform, 0),
        "finish": np.stack(finish, axis=1),
    }


def _rows(parts: list[NDArray[Any]], dtype: Any) -> Any:
    return wp.array(np.concatenate([*parts, np.zeros((0, 3), np.int32)]).astype(np.int32), dtype=dtype)


def _grid_points(model: mujoco.MjModel, field: int) -> NDArray[np.float32]:
    """[rows * columns, 3] of a height field in its own frame."""
    rows, columns = int(model.hfield_nrow[field]), int(model.hfield_ncol[field])
    x_half, y_half, height, _ = model.hfield_size[field]
    start = model.hfield_adr[field]
    x, y = np.meshgrid(np.linspace(-x_half, x_half, columns), np.linspace(-y_half, y_half, rows))
    z = height * model.hfield_data[start : start + rows * columns]
    return np.stack([x.ravel(), y.ravel(), z], axis=1).astype(np.float32)


def _grid_faces(rows: int, columns: int) -> NDArray[np.int32]:
    """Two triangles per cell, counter-clockwise from above."""
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    lower = np.stack([corner, corner + 1, corner + columns + 1], axis=1)
    upper = np.stack([corner, corner + columns + 1, corner + columns], axis=1)
    return np.concatenate([lower, upper]).astype(np.int32)


def _pixels(model: mujoco.MjModel, texture: int, pixel_width: float) -> NDArray[np.uint8]:
    """[rows, columns, 3] of a texture at full size, or of a skybox at the image's resolution."""
    rows, columns = int(model.tex_height[texture]), int(model.tex_width[texture])  # a cube: six faces in a column
    channels, start = int(model.tex_nchannel[texture]), int(model.tex_adr[texture])
    pixels = model.tex_data[start : start + rows * columns * channels].reshape(rows, columns, channels)
    if model.tex_type[texture] == _SKYBOX:
        # a face spans 2 m at 1 m distance
        pixels = shrunk(pixels, nearest_divisor(columns, 0.5 * columns * pixel_width))
    colour: NDArray[np.uint8] = pixels[..., :3] if channels >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    return colour


def _levels(image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """The image and its halvings, each level's size rounded down; a cube stays alone."""
    images = [image]
    while image.shape[0] != 6 * image.shape[1] and max(images[-1].shape[:2]) > 1 and len(images) < _MAX_LEVELS:
        last = images[-1].astype(np.float32)
        rows, columns = max(last.shape[0] // 2, 1), max(last.shape[1] // 2, 1)
        by_row = [last[i : i + 2 * rows - 1 : 2][:rows] for i in (0, min(1, last.shape[0] - 1))]
        rows_halved = 0.5 * (by_row[0] + by_row[1])
        by_column = [rows_halved[:, j : j + 2 * columns - 1 : 2][:, :columns] for j in (0, min(1, last.shape[1] - 1))]
        images.append(np.rint(0.5 * (by_column[0] + by_column[1])).astype(np.uint8))
    return images


def shrunk(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """[rows, columns, channels] averaged over squares of ``factor``, which divides both."""
    rows, columns, channels = pixels.shape
    squares = pixels.reshape(rows // factor, factor, columns // factor, factor, channels)
    return np.rint(squares.mean(axis=(1, 3), dtype=np.float64)).astype(np.uint8)


def nearest_divisor(width: int, ratio: float) -> int:
    """The divisor of ``width`` nearest to ``ratio``: cube faces keep their borders. At least 8 texels remain."""
    return min((d for d in range(1, width // 8 + 1) if width % d == 0), key=lambda d: abs(d - ratio), default=1)
