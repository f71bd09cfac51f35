"""What the values of MuJoCo's physics state mean: positions, velocities, activations, in this order.

Shapes: J joints, K state values.
"""

from __future__ import annotations

from typing import Any

# Of a free, a ball, a sliding and a hinge joint (mjtJoint): names of its positions and of its velocities.
_POSITIONS = (("x", "y", "z", "qw", "qx", "qy", "qz"), ("qw", "qx", "qy", "qz"), ("",), ("",))
_VELOCITIES = (("x", "y", "z", "rx", "ry", "rz"), ("rx", "ry", "rz"), ("",), ("",))
_HINGE = 3


def state_layout(model: Any) -> dict[str, list[Any]]:
    """Names of the K values of ``physics.get_state()`` and the indices of those that are angles in radians.

    A hinge is not wrapped: after a whole turn its value differs and the image does not, so whoever reads it out of
    images wants its sine and cosine.

    Args:
        model: dm_control's wrapper of an MjModel.

    Returns:
        "state_names": K texts such as ``qpos hinge_1``; "angles": indices into them.
    """
    positions: list[str] = []
    velocities: list[str] = []
    angles: list[int] = []
    for joint in range(model.njnt):
        kind, name = int(model.jnt_type[joint]), model.id2name(joint, "joint") or f"joint {joint}"
        if kind == _HINGE:
            angles.append(len(positions))
        positions += [f"qpos {name} {part}".rstrip() for part in _POSITIONS[kind]]
        velocities += [f"qvel {name} {part}".rstrip() for part in _VELOCITIES[kind]]
    return {"state_names": positions + velocities + [f"act {index}" for index in range(model.na)], "angles": angles}
