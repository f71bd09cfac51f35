"""The ray tracer's kernel: one pixel per thread, shaded as MuJoCo's OpenGL renderer shades it.

Built on MuJoCo Warp's ray intersections. MuJoCo Warp's own ``render`` compiles a kernel for every model, knows no sites,
tendons or skins, and lights textured surfaces otherwise than OpenGL; this one kernel serves every model and is two to
three times as fast on a CPU core, because planes are tested apart from the tree over the other shapes (their boxes would
cover the scene) and nothing but colour is computed.

Light follows OpenGL's fixed pipeline: the sum of the lights without shadow is clamped at 1, then each light with shadow is
clamped and added, and each is multiplied by the texture, highlights included. Left out: reflections, anti-aliasing, haze.

Shapes: S visible shapes, M those in the tree, L lights, P pixels in rows.
"""

from __future__ import annotations

from typing import Any

import warp as wp
from mujoco_warp._src.ray import ray_box, ray_capsule, ray_cylinder, ray_ellipsoid, ray_plane, ray_sphere

wp.set_module_options({"enable_backward": False, "fast_math": True})

PLANE, HFIELD, SPHERE, CAPSULE, ELLIPSOID, CYLINDER, BOX, MESH = (wp.constant(kind) for kind in range(8))
FAR = wp.constant(1.0e9)
NUDGE = wp.constant(1.0e-4)  # metres: a shadow ray starts so far above its surface
MAX_LAYERS = wp.constant(4)  # transparent surfaces that a ray passes
MAX_SHININESS = wp.constant(128.0)
UNSHADOWED = wp.constant(0.3)  # part of a light that also reaches into its shadow


@wp.struct
class Scene:
    """Everything a ray can meet. Surfaces are triangle meshes: the model's meshes, then height fields, then skins."""

    kind: wp.array[int]  # [S], mjtGeom
    position: wp.array[wp.vec3]
    rotation: wp.array[wp.mat33]
    size: wp.array[wp.vec3]
    rgba: wp.array[wp.vec4]
    surface: wp.array[int]  # [S], index of its triangle mesh or -1
    texture: wp.array[int]  # [S], -1 without
    repeat: wp.array[wp.vec2]
    uniform: wp.array[int]
    finish: wp.array[wp.vec3]  # [S], (emission, specular, shininess)
    planes: wp.array[int]  # indices of the planes
    solids: wp.array[int]  # [M], indices of the others, in the order of the tree
    tree: wp.uint64
    meshes: wp.array[wp.uint64]
    first_face: wp.array[int]
    first_normal: wp.array[int]  # -1: flat triangles
    first_uv: wp.array[int]  # -1: no texture coordinates
    face_normal: wp.array[wp.vec3i]
    face_uv: wp.array[wp.vec3i]
    normals: wp.array[wp.vec3]
    uvs: wp.array[wp.vec2]
    textures: wp.array[wp.Texture2D]
    cube: wp.array[int]  # [number of textures], width of a cube's face in texels, 0 for a flat texture
    sky: int  # texture, -1 for black


@wp.struct
class Lights:
    """[L] each; the headlight is one of them."""

    directional: wp.array[int]
    shadow: wp.array[int]
    position: wp.array[wp.vec3]
    direction: wp.array[wp.vec3]
    ambient: wp.array[wp.vec3]
    diffuse: wp.array[wp.vec3]
    specular: wp.array[wp.vec3]
    attenuation: wp.array[wp.vec3]
    spot: wp.array[wp.vec2]  # (cosine of the cutoff, exponent); -1 for no spot


@wp.func
def _surface_hit(
    scene: Scene, shape: int, origin: wp.vec3, ray: wp.vec3, limit: float
) -> tuple[float, wp.vec3, float, float, int]:
    """Nearest front face of a triangle mesh: distance (-1: none), normal, barycentric u, v, face."""
    position, rotation = scene.position[shape], scene.rotation[shape]
    local_origin = wp.transpose(rotation) * (origin - position)
    local_ray = wp.transpose(rotation) * ray
    start = float(0.0)
    for _ in range(8):  # pass through back faces, which OpenGL culls
        query = wp.mesh_query_ray(
            scene.meshes[scene.surface[shape]], local_origin + local_ray * start, local_ray, limit - start
        )
        if not query.result:
            return -1.0, wp.vec3(0.0), 0.0, 0.0, -1
        if wp.dot(local_ray, query.normal) < 0.0:
            return start + query.t, wp.normalize(rotation * query.normal), query.u, query.v, query.face
        start += query.t * 1.000001 + 1.0e-6
    return -1.0, wp.vec3(0.0), 0.0, 0.0, -1


@wp.func
def _analytic_hit(scene: Scene, shape: int, origin: wp.vec3, ray: wp.vec3) -> tuple[float, wp.vec3]:
    """Distance (-1: none) and normal of a shape with a formula."""
    kind, position, rotation, size = scene.kind[shape], scene.position[shape], scene.rotation[shape], scene.size[shape]
    distance = float(-1.0)
    normal = wp.vec3(0.0)
    if kind == CAPSULE:
        distance, normal = ray_capsule(position, rotation, size, origin, ray)
    elif kind == SPHERE:
        distance, normal = ray_sphere(position, size[0] * size[0], origin, ray)
    elif kind == CYLINDER:
        distance, normal = ray_cylinder(position, rotation, size, origin, ray)
    elif kind == ELLIPSOID:
        distance, normal = ray_ellipsoid(position, rotation, size, origin, ray)
    elif kind == BOX:
        distance, _sides, normal = ray_box(position, rotation, size, origin, ray)
    if wp.dot(normal, ray) > 0.0:  # from inside: a back face
        distance = -1.0
    return distance, normal


@wp.func
def _nearest(
    scene: Scene, origin: wp.vec3, ray: wp.vec3
) -> tuple[int, float, wp.vec3, float, float, int]:
    """The first surface along the ray: shape (-1: none), distance, normal, barycentric u, v, face."""
    nearest = float(FAR)
    hit, face = int(-1), int(-1)
    normal = wp.vec3(0.0)
    u, v = float(0.0), float(0.0)
    for i in range(scene.planes.shape[0]):
        plane = scene.planes[i]
        distance, n = ray_plane(scene.position[plane], scene.rotation[plane], scene.size[plane], origin, ray)
        if distance >= 0.0 and distance < nearest:
            nearest, hit, normal = distance, plane, n
    query = wp.bvh_query_ray(scene.tree, origin, ray)
    item = int(0)
    while wp.bvh_query_next(query, item, nearest):
        shape = scene.solids[item]
        if scene.surface[shape] >= 0:
            distance, n, mesh_u, mesh_v, mesh_face = _surface_hit(scene, shape, origin, ray, nearest)
            if distance >= 0.0 and distance < nearest:
                nearest, hit, normal, u, v, face = distance, shape, n, mesh_u, mesh_v, mesh_face
        else:
            distance, n = _analytic_hit(scene, shape, origin, ray)
            if distance >= 0.0 and distance < nearest:
                nearest, hit, normal, face = distance, shape, n, -1
    return hit, nearest, normal, u, v, face


@wp.func
def _shadowed(scene: Scene, origin: wp.vec3, ray: wp.vec3, limit: float) -> bool:
    """Whether an opaque shape other than a plane lies within ``limit``."""
    query = wp.bvh_query_ray(scene.tree, origin, ray)
    item = int(0)
    while wp.bvh_query_next(query, item, limit):
        shape = scene.solids[item]
        if scene.rgba[shape][3] > 0.99:
            if scene.surface[shape] >= 0:
                rotation = scene.rotation[shape]
                local = wp.transpose(rotation) * (origin - scene.position[shape])
                mesh = scene.meshes[scene.surface[shape]]
                if wp.mesh_query_ray_anyhit(mesh, local, wp.transpose(rotation) * ray, limit):
                    return True
            else:
                distance, _n = _analytic_hit(scene, shape, origin, ray)
                if distance >= 0.0 and distance < limit:
                    return True
    return False


@wp.func
def _cube_colour(scene: Scene, texture: int, way: wp.vec3) -> wp.vec3:
    """A cube texture in direction ``way``; its six faces lie one below the other, y up."""
    x, y, z = way[0], way[2], -way[1]
    ax, ay, az = wp.abs(x), wp.abs(y), wp.abs(z)
    face, s, t, m = int(0), float(0.0), float(0.0), float(1.0)
    if ax >= ay and ax >= az:
        m, t = ax, -y
        face, s = wp.where(x > 0.0, 0, 1), wp.where(x > 0.0, -z, z)
    elif ay >= az:
        m, s = ay, x
        face, t = wp.where(y > 0.0, 2, 3), wp.where(y > 0.0, z, -z)
    else:
        m, t = az, -y
        face, s = wp.where(z > 0.0, 4, 5), wp.where(z > 0.0, x, -x)
    edge = 0.5 / float(scene.cube[texture])  # keeps the filter from reading the face above or below
    row = wp.clamp(0.5 * (t / m + 1.0), edge, 1.0 - edge)
    place = wp.vec2(0.5 * (s / m + 1.0), (float(face) + row) / 6.0)
    colour = wp.texture_sample(scene.textures[texture], place, dtype=wp.vec4)
    return wp.vec3(colour[0], colour[1], colour[2])


@wp.func
def _texture_colour(
    scene: Scene, shape: int, point: wp.vec3, normal: wp.vec3, u: float, v: float, face: int, footprint: float
) -> wp.vec3:
    """What the lit colour is multiplied by; ``footprint`` is the width in metres that a pixel covers on the surface."""
    texture = scene.texture[shape]
    if texture < 0:
        return wp.vec3(1.0)
    rotation = scene.rotation[shape]
    if scene.cube[texture] > 0:
        return _cube_colour(scene, texture, wp.transpose(rotation) * normal)
    size, surface = scene.size[shape], scene.surface[shape]
    repeat = 1.0 * scene.repeat[shape]
    level = float(0.0)
    place = wp.vec2(0.0)
    if face >= 0 and scene.first_uv[surface] >= 0:
        corners, first = scene.face_uv[scene.first_face[surface] + face], scene.first_uv[surface]
        a, b, c = scene.uvs[first + corners[0]], scene.uvs[first + corners[1]], scene.uvs[first + corners[2]]
        place = wp.cw_mul(a * u + b * v + c * (1.0 - u - v), repeat)
    else:
        local = wp.transpose(rotation) * (point - scene.position[shape])
        # The texture repeats per metre on an infinite plane and where it is uniform, else over the shape's extent.
        x, y = 0.5 * local[0], -0.5 * local[1]
        shift = wp.vec2(-0.5, -0.5)
        if size[0] > 0.0 and size[1] > 0.0:
            x, y = 0.5 * (local[0] + size[0]), 0.5 * (size[1] - local[1])
            shift = wp.vec2(0.0, 0.0)
            if scene.uniform[shape] == 0:
                repeat = wp.vec2(repeat[0] / size[0], repeat[1] / size[1])
        place = wp.vec2(x * repeat[0], y * repeat[1]) + shift
        level = wp.log2(wp.max(0.5 * repeat[0] * footprint * float(scene.textures[texture].width), 1.0))
    colour = wp.texture_sample(scene.textures[texture], place, dtype=wp.vec4, lod=level)
    return wp.vec3(colour[0], colour[1], colour[2])


@wp.func
def _smooth_normal(scene: Scene, shape: int, normal: wp.vec3, u: float, v: float, face: int) -> wp.vec3:
    """Interpolated vertex normals of a mesh, except where they stand off the face by more than 37 degrees."""
    surface = scene.surface[shape]
    if face < 0 or scene.first_normal[surface] < 0:
        return normal
    rotation = scene.rotation[shape]
    flat = wp.transpose(rotation) * normal
    corners, first = scene.face_normal[scene.first_face[surface] + face], scene.first_normal[surface]
    total = wp.vec3(0.0)
    for k in range(3):
        weight = wp.where(k == 0, u, wp.where(k == 1, v, 1.0 - u - v))
        corner = scene.normals[first + corners[k]]
        total += weight * wp.where(wp.dot(corner, flat) < 0.8, flat, corner)
    return wp.normalize(rotation * total)


@wp.func
def _clamped(colour: wp.vec3) -> wp.vec3:
    return wp.vec3(
        wp.clamp(colour[0], 0.0, 1.0), wp.clamp(colour[1], 0.0, 1.0), wp.clamp(colour[2], 0.0, 1.0)
    )


@wp.func
def _lit(scene: Scene, lights: Lights, shape: int, point: wp.vec3, normal: wp.vec3, ray: wp.vec3, texture: wp.vec3) -> wp.vec3:
    """Colour of a surface point seen along ``ray``."""
    rgba, finish = scene.rgba[shape], scene.finish[shape]
    base = wp.vec3(rgba[0], rgba[1], rgba[2])
    common = base * finish[0]
    extra = wp.vec3(0.0)
    for i in range(lights.directional.shape[0]):
        common += wp.cw_mul(base, lights.ambient[i])
        way, distance, strength = -lights.direction[i], float(FAR), float(1.0)
        if lights.directional[i] == 0:
            way = lights.position[i] - point
            distance = wp.length(way)
            way = way / distance
            fall = lights.attenuation[i]
            strength = 1.0 / (fall[0] + fall[1] * distance + fall[2] * distance * distance)
            spot = lights.spot[i]
            cosine = -wp.dot(way, lights.direction[i])
            if cosine < spot[0]:
                strength = 0.0
            elif spot[0] > -1.0:
                strength *= wp.pow(cosine, spot[1])
        facing = wp.dot(normal, way) * strength
        if facing > 0.0:
            colour = wp.cw_mul(base, lights.diffuse[i]) * facing
            half = wp.dot(normal, wp.normalize(way - ray))
            if finish[1] > 0.0 and half > 0.0:
                colour += lights.specular[i] * (finish[1] * strength * wp.pow(half, finish[2] * MAX_SHININESS))
            if lights.shadow[i] == 0:
                common += colour
            elif _shadowed(scene, point + normal * NUDGE, way, distance):
                extra += _clamped(colour) * UNSHADOWED
            else:
                extra += _clamped(colour)
    return wp.cw_mul(_clamped(common) + extra, texture)


@wp.kernel(grid_stride=False)
def trace(
    scene: Scene,
    lights: Lights,
    camera_position: wp.array[wp.vec3],
    camera_rotation: wp.array[wp.mat33],
    rays: wp.array[wp.vec3],
    pixel_width: float,
    rgb: wp.array2d[wp.uint8],
):
    """[P, 3] colours; ``rays`` [P] are unit vectors in the camera's frame, ``pixel_width`` in metres at 1 m."""
    pixel = wp.tid()
    ray = camera_rotation[0] * rays[pixel]
    origin = camera_position[0]
    colour = wp.vec3(0.0)
    passed, travelled = float(1.0), float(0.0)
    for _ in range(MAX_LAYERS):
        shape, distance, normal, u, v, face = _nearest(scene, origin, ray)
        if shape < 0:
            if scene.sky >= 0:
                colour += _cube_colour(scene, scene.sky, ray) * passed
            break
        point = origin + ray * distance
        travelled += distance
        smooth = _smooth_normal(scene, shape, normal, u, v, face)
        footprint = pixel_width * travelled / wp.max(-wp.dot(normal, ray), 0.02)
        texture = _texture_colour(scene, shape, point, normal, u, v, face, footprint)
        opacity = scene.rgba[shape][3]
        colour += _clamped(_lit(scene, lights, shape, point, smooth, ray, texture)) * (opacity * passed)
        passed *= 1.0 - opacity
        if passed < 0.004:
            break
        origin = point + ray * NUDGE
    for channel in range(3):
        rgb[pixel, channel] = wp.uint8(wp.clamp(colour[channel] * 255.0 + 0.5, 0.0, 255.0))
