"""The toy's script: gets to every goal, and through every room where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from visrep.envs.make import make_script
from visrep.envs.toy import TASKS, make
from visrep.envs.toy_layouts import LAYOUTS
from visrep.errors import UserError


def walk(task: str, action_repeat: int, seed: int, agent_steps: int = 200) -> tuple[np.ndarray, float, bool]:
    """Positions [T+1, 2], return, and whether the goal was reached."""
    env, script, generator = make(task, 16, action_repeat), make_script(f"toy/{task}", action_repeat), None
    generator = np.random.default_rng(seed)
    state, success, total = env.reset(seed=seed)[1]["state"], False, 0.0
    script.begin()
    states = [state]
    for _ in range(agent_steps):
        action = script.action(state, generator)
        assert action.dtype == np.float32 and np.abs(action).max() <= 1
        _, reward, _, _, info = env.step(action)
        state, total = info["state"], total + reward
        success |= info.get("success", False)
        states.append(state)
    return np.array(states), total, success


@pytest.mark.parametrize("action_repeat", [1, 2, 4])
@pytest.mark.parametrize("task", sorted(task for task, (_, goal) in TASKS.items() if goal))
def test_reaches_the_goal_and_stays(task: str, action_repeat: int) -> None:
    for seed in range(5):
        states, total, success = walk(task, action_repeat, seed)
        assert success and total > 0
        goal = LAYOUTS[TASKS[task][0]].goals[str(TASKS[task][1])]
        np.testing.assert_allclose(states[-1], goal, atol=0.01)


def test_without_a_goal_it_wanders_through_the_rooms() -> None:
    env = make("maze", 16)
    states = np.concatenate([walk("maze", 1, seed, 600)[0] for seed in range(3)])
    cells = set(env.coverage_cells(states).tolist()) - {-1}
    assert len(cells) > 0.4 * env.num_cells  # uniform random actions see less than a fifth
    assert {int(x * 3) for x, _ in states} >= {0, 1, 2}
    assert not np.array_equal(walk("maze", 1, 0)[0], walk("maze", 1, 1)[0])
    np.testing.assert_array_equal(walk("maze", 1, 1)[0], walk("maze", 1, 1)[0])


def test_other_environments_have_none() -> None:
    for name in ("cheetah_run", "failing_env:on_trigger", "nothing/at_all"):
        with pytest.raises(UserError, match=r"has no scripted policy; .*toy/"):
            make_script(name, 1)
