"""The names of the physics state fit its values, joint by joint."""

from __future__ import annotations

import pytest

pytest.importorskip("dm_control")

from visrep.envs.dmc import SUITE_TASKS
from visrep.envs.dmc_state import state_layout


@pytest.mark.parametrize(
    "domain", ["cartpole", "ball_in_cup", "cheetah", "finger", "humanoid", "manipulator", "quadruped", "reacher"]
)
def test_every_value_has_a_name(domain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    from dm_control import suite

    physics = suite.load(domain, SUITE_TASKS[domain][0]).physics
    layout = state_layout(physics.model)
    names, angles = layout["state_names"], layout["angles"]
    state = physics.get_state()
    assert len(names) == len(set(names)) == len(state)
    for joint in range(physics.model.njnt):
        name = physics.model.id2name(joint, "joint")
        first = int(physics.model.jnt_qposadr[joint])
        assert names[first].split()[1] == name
        assert (first in angles) == (physics.model.jnt_type[joint] == 3)
        assert names[physics.model.nq + int(physics.model.jnt_dofadr[joint])].startswith(f"qvel {name}")
    assert all(index < physics.model.nq for index in angles)
