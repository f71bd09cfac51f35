"""Where MuJoCo Warp's shading differs from OpenGL's, brought closer by preparing its inputs; costs nothing per frame.

Three differences show at small images:

* OpenGL samples mipmaps, the tracer the full texture, so that stars and lines flicker: textures are averaged
  beforehand to about one texel per pixel.
* OpenGL multiplies the lit colour, highlight included, by the texture; the tracer adds the highlight on top, white:
  textured materials get none (what is lost is the highlight times a dark texture).
* OpenGL clamps the headlight's part at 1 before it multiplies the texture: textured planes are darkened by the excess.
  The headlight shines along the camera's axis, so that the factor is one number per plane.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import warp as wp
from numpy.typing import NDArray

_RGB = int(mujoco.mjtTextureRole.mjTEXROLE_RGB)
_SKYBOX = int(mujoco.mjtTexture.mjTEXTURE_SKYBOX)
_PLANE = int(mujoco.mjtGeom.mjGEOM_PLANE)


def textured_materials(model: mujoco.MjModel) -> NDArray[np.bool_]:
    """[number of materials] True where a colour texture is multiplied in."""
    return np.asarray(model.mat_texid[:, _RGB] >= 0)


def headlight_excess(model: mujoco.MjModel, normals: NDArray[Any], axis: NDArray[Any]) -> NDArray[np.float32]:
    """1 / max(1, headlight) as [n], for planes with ``normals`` [n, 3]; ``axis`` [3] points to the viewer."""
    light = model.vis.headlight
    if not light.active:
        return np.ones(len(normals), np.float32)
    facing = np.maximum(normals @ axis, 0.0)
    return (1.0 / np.maximum(1.0, light.ambient.max() + light.diffuse.max() * facing)).astype(np.float32)


def filter_textures(model: mujoco.MjModel, context: Any, camera: int, height: int) -> None:
    """Replace the context's textures by ones with about one texel per pixel of an image ``height`` pixels high."""
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)  # the model's reference pose, whatever episode is being played
    pixel = 2.0 * np.tan(np.deg2rad(model.cam_fovy[camera]) / 2) / height  # width of a pixel at distance 1
    distance = float(np.linalg.norm(data.cam_xpos[camera] - model.stat.center))
    for texture in range(model.ntex):
        if model.tex_type[texture] == _SKYBOX:
            texels_per_pixel = 0.5 * model.tex_width[texture] * pixel  # a face spans 2 at distance 1
        else:
            texels_per_pixel = _texels_per_metre(model, texture) * distance * pixel
        if model.tex_adr[texture] < 0 or model.tex_height[texture] % model.tex_width[texture]:
            continue  # kept outside the model, or not made of squares
        factor = _nearest_divisor(int(model.tex_width[texture]), texels_per_pixel)
        if factor > 1:
            small = _shrunk(model, texture, factor)
            context.textures_registry[texture] = wp.Texture2D(
                wp.array(small, dtype=float), filter_mode=wp.TextureFilterMode.LINEAR
            )
            if model.tex_type[texture] == _SKYBOX:
                context.skybox_face_width = wp.array([small.shape[1]], dtype=int)
    context.textures = wp.array(context.textures_registry, dtype=wp.Texture2D)


def _texels_per_metre(model: mujoco.MjModel, texture: int) -> float:
    """Of the planes that carry the texture; 0 where none does (bodies are small: their texture stays whole)."""
    materials = np.flatnonzero(model.mat_texid[:, _RGB] == texture)
    found = 0.0
    for geom in np.flatnonzero((model.geom_type == _PLANE) & np.isin(model.geom_matid, materials)):
        material, size = model.geom_matid[geom], float(model.geom_size[geom, 0])
        repeat = float(model.mat_texrepeat[material, 0])
        per_metre = 0.5 * repeat if size <= 0 or model.mat_texuniform[material] else 0.5 * repeat / size
        found = max(found, per_metre * float(model.tex_width[texture]))
    return found


def _shrunk(model: mujoco.MjModel, texture: int, factor: int) -> NDArray[np.float32]:
    """The texture averaged over squares of ``factor`` texels, [rows, columns, 4] in 0..1."""
    rows, columns = (
        int(model.tex_height[texture]),
        int(model.tex_width[texture]),
    )  # a cube: six faces, one below the other
    channels, start = int(model.tex_nchannel[texture]), int(model.tex_adr[texture])
    pixels = model.tex_data[start : start + rows * columns * channels].astype(np.float32) / 255.0
    means = pixels.reshape(rows // factor, factor, columns // factor, factor, channels).mean(axis=(1, 3))
    small = np.ones((*means.shape[:2], 4), np.float32)
    small[..., :channels] = means
    return small


def _nearest_divisor(width: int, ratio: float) -> int:
    """Of ``width``, so that the pattern keeps its place; at least 8 texels remain."""
    return min((d for d in range(1, width // 8 + 1) if width % d == 0), key=lambda d: abs(d - ratio), default=1)
