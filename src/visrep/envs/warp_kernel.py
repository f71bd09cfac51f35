# ruff: noqa: RUF046, UP018
# mypy: ignore-errors
"""The ray tracer's kernel: one pixel per thread, shaded as MuJoCo's OpenGL renderer shades it.

Built on MuJoCo Warp's ray intersections. MuJoCo Warp's own ``render`` compiles a kernel for every model, knows no
sites, tendons or skins, and lights textured surfaces otherwise than OpenGL. This one kernel serves every model and
takes about half the time on a CPU core: planes are tested apart from the tree over the other shapes, where their boxes
would cover everything.

In the kernel language ``float(0.0)`` declares a variable and ``0.0`` a constant, and a struct is passed in an array of
one because its fields would otherwise be copied at each call.

Light follows OpenGL's fixed pipeline: the sum of the lights without shadow is clamped at 1, then each light with shadow
is clamped and added, and the sum, highlights included, is multiplied by the texture. Textures are sampled from the
nearest mipmap. Left out: mirror images in floors, anti-aliasing, haze.

Shapes: S visible shapes, M those in the tree, L lights, P pixels in rows.
"""

from __future__ import annotations

import warp as wp
from mujoco_warp._src.ray import ray_box, ray_capsule, ray_cylinder, ray_ellipsoid, ray_sphere

wp.set_module_options({"enable_backward": False, "fast_math": True})

PLANE, HFIELD, SPHERE, CAPSULE, ELLIPSOID, CYLINDER, BOX, MESH = (wp.constant(kind) for kind in range(8))
FAR = wp.constant(1.0e9)
NUDGE = wp.constant(1.0e-4)  # metres: a shadow ray starts so far above its surface
MAX_LAYERS = wp.constant(4)  # transparent surfaces that a ray passes
MAX_SHININESS = wp.constant(128.0)


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
    box: wp.array[wp.vec3]  # low and high corner of all solids: most rays miss it, and asking the tree is dear
    meshes: wp.array[wp.uint64]
    first_face: wp.array[int]
    first_normal: wp.array[int]  # -1: flat triangles
    first_uv: wp.array[int]  # -1: no texture coordinates
    face_normal: wp.array[wp.vec3i]
    face_uv: wp.array[wp.vec3i]
    normals: wp.array[wp.vec3]
    uvs: wp.array[wp.vec2]
    texels: wp.array[wp.uint32]  # 0xRRGGBB of all textures, each with its smaller copies behind it
    first_texel: wp.array2d[int]  # [number of textures, levels]
    texture_size: wp.array[wp.vec3i]  # (width, height, levels); a cube's six faces lie one below the other
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
    scene: wp.array[Scene], shape: int, origin: wp.vec3, ray: wp.vec3, limit: float
) -> tuple[float, wp.vec3, float, float, int]:
    """Nearest front face of a triangle mesh: distance (-1: none), normal, barycentric u, v, face."""
    position, rotation = scene[0].position[shape], scene[0].rotation[shape]
    local_origin = wp.transpose(rotation) * (origin - position)
    local_ray = wp.transpose(rotation) * ray
    start = float(0.0)
    for _ in range(8):  # pass through back faces, which OpenGL culls
        query = wp.mesh_query_ray(
            scene[0].meshes[scene[0].surface[shape]], local_origin + local_ray * start, local_ray, limit - start
        )
        if not query.result:
            return -1.0, wp.vec3(0.0), 0.0, 0.0, -1
        if wp.dot(local_ray, query.normal) < 0.0:
            return start + query.t, wp.normalize(rotation * query.normal), query.u, query.v, query.face
        start += query.t * 1.000001 + 1.0e-6
    return -1.0, wp.vec3(0.0), 0.0, 0.0, -1


@wp.func
def _analytic_hit(scene: wp.array[Scene], shape: int, origin: wp.vec3, ray: wp.vec3) -> tuple[float, wp.vec3]:
    """Distance (-1: none) and normal of a shape with a formula."""
    kind, position, rotation, size = (
        scene[0].kind[shape],
        scene[0].position[shape],
        scene[0].rotation[shape],
        scene[0].size[shape],
    )
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
def _plane_hit(scene: wp.array[Scene], shape: int, origin: wp.vec3, ray: wp.vec3) -> tuple[float, wp.vec3]:
    """Distance (-1: none) and normal of a plane's front; a size of zero is endless."""
    rotation, size = scene[0].rotation[shape], scene[0].size[shape]
    normal = wp.vec3(rotation[0, 2], rotation[1, 2], rotation[2, 2])
    approach = wp.dot(normal, ray)
    offset = origin - scene[0].position[shape]
    above = wp.dot(normal, offset)
    if approach > -1.0e-9 or above < 0.0:
        return -1.0, normal
    distance = -above / approach
    local = wp.transpose(rotation) * (offset + distance * ray)
    if (size[0] > 0.0 and wp.abs(local[0]) > size[0]) or (size[1] > 0.0 and wp.abs(local[1]) > size[1]):
        distance = -1.0
    return distance, normal


@wp.func
def _misses_box(scene: wp.array[Scene], origin: wp.vec3, ray: wp.vec3, limit: float) -> bool:
    low, high = scene[0].box[0], scene[0].box[1]
    near, far = float(0.0), limit
    for axis in range(3):
        inverse = 1.0 / wp.where(wp.abs(ray[axis]) < 1.0e-12, 1.0e-12, ray[axis])
        a, b = (low[axis] - origin[axis]) * inverse, (high[axis] - origin[axis]) * inverse
        near, far = wp.max(near, wp.min(a, b)), wp.min(far, wp.max(a, b))
    return near > far


@wp.func
def _nearest(scene: wp.array[Scene], origin: wp.vec3, ray: wp.vec3) -> tuple[int, float, wp.vec3, float, float, int]:
    """The first surface along the ray: shape (-1: none), distance, normal, barycentric u, v, face."""
    nearest = float(FAR)
    hit, face = int(-1), int(-1)
    normal = wp.vec3(0.0)
    u, v = float(0.0), float(0.0)
    for i in range(scene[0].planes.shape[0]):
        plane = scene[0].planes[i]
        distance, n = _plane_hit(scene, plane, origin, ray)
        if distance >= 0.0 and distance < nearest:
            nearest, hit, normal = distance, plane, n
    if _misses_box(scene, origin, ray, nearest):
        return hit, nearest, normal, u, v, face
    query = wp.bvh_query_ray(scene[0].tree, origin, ray)
    item = int(0)
    while wp.bvh_query_next(query, item, nearest):
        shape = scene[0].solids[item]
        if scene[0].surface[shape] >= 0:
            distance, n, mesh_u, mesh_v, mesh_face = _surface_hit(scene, shape, origin, ray, nearest)
            if distance >= 0.0 and distance < nearest:
                nearest, hit, normal, u, v, face = distance, shape, n, mesh_u, mesh_v, mesh_face
        else:
            distance, n = _analytic_hit(scene, shape, origin, ray)
            if distance >= 0.0 and distance < nearest:
                nearest, hit, normal, face = distance, shape, n, -1
    return hit, nearest, normal, u, v, face


@wp.func
def _shadowed(scene: wp.array[Scene], origin: wp.vec3, ray: wp.vec3, limit: float) -> bool:
    """Whether an opaque shape other than a plane lies within ``limit``."""
    if _misses_box(scene, origin, ray, limit):
        return False
    query = wp.bvh_query_ray(scene[0].tree, origin, ray)
    item = int(0)
    while wp.bvh_query_next(query, item, limit):
        shape = scene[0].solids[item]
        if scene[0].rgba[shape][3] > 0.99:
            if scene[0].surface[shape] >= 0:
                rotation = scene[0].rotation[shape]
                local = wp.transpose(rotation) * (origin - scene[0].position[shape])
                mesh = scene[0].meshes[scene[0].surface[shape]]
                if wp.mesh_query_ray_anyhit(mesh, local, wp.transpose(rotation) * ray, limit):
                    return True
            else:
                distance, _n = _analytic_hit(scene, shape, origin, ray)
                if distance >= 0.0 and distance < limit:
                    return True
    return False


@wp.func
def _texel(scene: wp.array[Scene], index: int) -> wp.vec3:
    packed = int(scene[0].texels[index])
    return wp.vec3(float((packed >> 16) & 255), float((packed >> 8) & 255), float(packed & 255))


@wp.func
def _sample(scene: wp.array[Scene], texture: int, level: int, x: float, y: float, top: int, rows: int) -> wp.vec3:
    """Bilinear colour 0..1 at texel coordinates within one level, repeating within ``rows`` rows from ``top``."""
    columns = wp.max(scene[0].texture_size[texture][0] >> level, 1)
    start = scene[0].first_texel[texture, level] + top * columns
    left, upper = wp.floor(x - 0.5), wp.floor(y - 0.5)
    fx, fy = x - 0.5 - left, y - 0.5 - upper
    i0, j0 = int(left), int(upper)  # -1 at the border; a remainder would cost more than all the rest
    i1, j1 = wp.where(i0 + 1 == columns, 0, i0 + 1), wp.where(j0 + 1 == rows, 0, j0 + 1)
    i0, j0 = wp.where(i0 < 0, columns - 1, i0), wp.where(j0 < 0, rows - 1, j0)
    above = wp.lerp(_texel(scene, start + j0 * columns + i0), _texel(scene, start + j0 * columns + i1), fx)
    below = wp.lerp(_texel(scene, start + j1 * columns + i0), _texel(scene, start + j1 * columns + i1), fx)
    return wp.lerp(above, below, fy) * wp.static(1.0 / 255.0)


@wp.func
def _cube_colour(scene: wp.array[Scene], texture: int, way: wp.vec3) -> wp.vec3:
    """A cube texture in direction ``way``; y is up in its frame."""
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
    width = scene[0].texture_size[texture][0]
    last = float(width) - 0.5  # stay within the face
    column = wp.clamp(0.5 * (s / m + 1.0) * float(width), 0.5, last)
    row = wp.clamp(0.5 * (t / m + 1.0) * float(width), 0.5, last)
    return _sample(scene, texture, 0, column, row, face * width, width)


@wp.func
def _texture_colour(
    scene: wp.array[Scene], shape: int, point: wp.vec3, normal: wp.vec3, u: float, v: float, face: int, footprint: float
) -> wp.vec3:
    """What the lit colour is multiplied by; ``footprint`` is the width in metres that a pixel covers on the surface."""
    texture = scene[0].texture[shape]
    if texture < 0:
        return wp.vec3(1.0)
    rotation = scene[0].rotation[shape]
    texels = scene[0].texture_size[texture]
    if texels[1] == 6 * texels[0]:
        return _cube_colour(scene, texture, wp.transpose(rotation) * normal)
    size, surface = scene[0].size[shape], scene[0].surface[shape]
    repeat = 1.0 * scene[0].repeat[shape]
    level = int(0)
    place = wp.vec2(0.0)
    if face >= 0 and scene[0].first_uv[surface] >= 0:
        corners, first = scene[0].face_uv[scene[0].first_face[surface] + face], scene[0].first_uv[surface]
        a, b, c = scene[0].uvs[first + corners[0]], scene[0].uvs[first + corners[1]], scene[0].uvs[first + corners[2]]
        place = wp.cw_mul(a * u + b * v + c * (1.0 - u - v), repeat)
    else:
        local = wp.transpose(rotation) * (point - scene[0].position[shape])
        # The texture repeats per metre on an infinite plane and where it is uniform, else over the shape's extent.
        x, y = 0.5 * local[0], -0.5 * local[1]
        shift = wp.vec2(-0.5, -0.5)
        if size[0] > 0.0 and size[1] > 0.0:
            x, y = 0.5 * (local[0] + size[0]), 0.5 * (size[1] - local[1])
            shift = wp.vec2(0.0, 0.0)
            if scene[0].uniform[shape] == 0:
                repeat = wp.vec2(repeat[0] / size[0], repeat[1] / size[1])
        place = wp.vec2(x * repeat[0], y * repeat[1]) + shift
        per_pixel = wp.max(0.5 * repeat[0] * footprint * float(texels[0]), 1.0)
        level = wp.min(int(wp.log2(per_pixel) + 0.5), texels[2] - 1)
    width, height = wp.max(texels[0] >> level, 1), wp.max(texels[1] >> level, 1)
    x, y = place[0] - wp.floor(place[0]), place[1] - wp.floor(place[1])
    # rounding may give exactly 1
    x, y = wp.min(x, 0.999999), wp.min(y, 0.999999)
    return _sample(scene, texture, level, x * float(width), y * float(height), 0, height)


@wp.func
def _smooth_normal(scene: wp.array[Scene], shape: int, normal: wp.vec3, u: float, v: float, face: int) -> wp.vec3:
    """Interpolated vertex normals of a mesh, except where they stand off the face by more than 37 degrees."""
    surface = scene[0].surface[shape]
    if face < 0 or scene[0].first_normal[surface] < 0:
        return normal
    rotation = scene[0].rotation[shape]
    flat = wp.transpose(rotation) * normal
    corners, first = scene[0].face_normal[scene[0].first_face[surface] + face], scene[0].first_normal[surface]
    total = wp.vec3(0.0)
    for k in range(3):
        weight = wp.where(k == 0, u, wp.where(k == 1, v, 1.0 - u - v))
        corner = scene[0].normals[first + corners[k]]
        total += weight * wp.where(wp.dot(corner, flat) < 0.8, flat, corner)
    return wp.normalize(rotation * total)


@wp.func
def _clamped(colour: wp.vec3) -> wp.vec3:
    return wp.vec3(wp.clamp(colour[0], 0.0, 1.0), wp.clamp(colour[1], 0.0, 1.0), wp.clamp(colour[2], 0.0, 1.0))


@wp.func
def _lit(
    scene: wp.array[Scene],
    lights: wp.array[Lights],
    shape: int,
    point: wp.vec3,
    normal: wp.vec3,
    ray: wp.vec3,
    texture: wp.vec3,
) -> wp.vec3:
    """Colour of a surface point seen along ``ray``."""
    rgba, finish = scene[0].rgba[shape], scene[0].finish[shape]
    base = wp.vec3(rgba[0], rgba[1], rgba[2])
    common = base * finish[0]
    extra = wp.vec3(0.0)
    for i in range(lights[0].directional.shape[0]):
        common += wp.cw_mul(base, lights[0].ambient[i])
        way, distance, strength = -lights[0].direction[i], float(FAR), float(1.0)
        if lights[0].directional[i] == 0:
            way = lights[0].position[i] - point
            distance = wp.length(way)
            way = way / distance
            fall = lights[0].attenuation[i]
            strength = 1.0 / (fall[0] + fall[1] * distance + fall[2] * distance * distance)
            spot = lights[0].spot[i]
            cosine = -wp.dot(way, lights[0].direction[i])
            if cosine < spot[0]:
                strength = 0.0
            elif spot[0] > -1.0:
                strength *= wp.pow(cosine, spot[1])
        facing = wp.dot(normal, way) * strength
        if facing > 0.0:
            colour = wp.cw_mul(base, lights[0].diffuse[i]) * facing
            half = wp.dot(normal, wp.normalize(way - ray))
            exponent = finish[2] * MAX_SHININESS
            if half > 0.0 and exponent * (1.0 - half) < 7.0:  # beyond, half ** exponent < exp(-7) cannot be seen
                colour += lights[0].specular[i] * (finish[1] * strength * wp.pow(half, exponent))
            if lights[0].shadow[i] == 0:
                common += colour
            elif not _shadowed(scene, point + normal * NUDGE, way, distance):
                extra += _clamped(colour)
    return wp.cw_mul(_clamped(common) + extra, texture)


@wp.kernel(grid_stride=False)
def trace(
    scene: wp.array[Scene],
    lights: wp.array[Lights],
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
            if scene[0].sky >= 0:
                colour += _cube_colour(scene, scene[0].sky, ray) * passed
            break
        point = origin + ray * distance
        travelled += distance
        smooth = _smooth_normal(scene, shape, normal, u, v, face)
        footprint = pixel_width * travelled / wp.max(-wp.dot(normal, ray), 0.02)
        texture = _texture_colour(scene, shape, point, normal, u, v, face, footprint)
        opacity = scene[0].rgba[shape][3]
        colour += _clamped(_lit(scene, lights, shape, point, smooth, ray, texture)) * (opacity * passed)
        passed *= 1.0 - opacity
        if passed < 0.004:
            break
        origin = point + ray * NUDGE
    for channel in range(3):
        rgb[pixel, channel] = wp.uint8(wp.clamp(colour[channel] * 255.0 + 0.5, 0.0, 255.0))
