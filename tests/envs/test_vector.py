"""VectorEnv: both ways agree bit for bit, resume continues exactly, crashes are survived and reported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import failing_env
import numpy as np
import psutil
import pytest

from visrep.envs.vector import MAX_FAILURES, EnvSpec, FirstRows, VectorEnv, VectorStep
from visrep.envs.vector_lane import episode_seed
from visrep.errors import UserError

SPEC = EnvSpec("toy/maze_center", image_size=16)
BOTH = pytest.mark.parametrize("processes", [False, True], ids=["in-process", "processes"])


def _actions(steps: int, lanes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, lanes, 2)).astype(np.float32)


def _flat(rows: VectorStep | FirstRows | None) -> Any:
    if rows is None:
        return None
    values = [_flat(v) if isinstance(v, FirstRows) else v for v in vars(rows).values()]
    return [(v.dtype.str, v.shape, v.tobytes()) if isinstance(v, np.ndarray) else v for v in values]


def _play(env: VectorEnv, actions: np.ndarray) -> list[Any]:
    return [_flat(env.step(a)) for a in actions]


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _wait_gone(pids: list[int], seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not all(map(_gone, pids)):
        time.sleep(0.02)
    return all(map(_gone, pids))


def test_processes_and_in_process_agree_bit_for_bit() -> None:
    runs = []
    for processes in (False, False, True):
        with VectorEnv(SPEC, 3, seed=7, processes=processes) as env:
            assert len(env.pids) == (3 if processes else 0)
            first = _flat(env.reset())
            runs.append([first, *_play(env, _actions(430, 3))])  # crosses two ends of episode
    assert runs[0] == runs[1]  # same seed twice
    assert runs[0] == runs[2]
    assert sum(step[7] is not None for step in runs[0][1:]) == 2


def test_lanes_and_seeds_differ_and_do_not_depend_on_the_number_of_lanes() -> None:
    with VectorEnv(SPEC, 4, 0) as four, VectorEnv(SPEC, 2, 0) as two, VectorEnv(SPEC, 4, 1) as other:
        frames = four.reset().frames
        np.testing.assert_array_equal(two.reset().frames, frames[:2])
        assert (other.reset().frames != frames).any()
    assert len({frame.tobytes() for frame in frames}) == 4
    assert len({episode_seed(0, i, j) for i in range(10) for j in range(10)}) == 100


def test_shapes_and_reset_rows_at_the_time_limit() -> None:
    with VectorEnv(SPEC, 2, 0) as env:
        assert not env.processes and env.frame_shape == (3, 16, 16) and env.action_dim == 2 and env.state_dim == 2
        assert env.num_cells > 300 and env.max_agent_steps == 200 and env.fingerprint["suite"] == "toy"
        assert env.action_space.shape == (2,) and env.observation_space.shape == (3, 16, 16)
        first = env.reset()
        assert first.frames.shape == (2, 3, 16, 16) and first.frames.dtype == np.uint8 and first.state is not None
        for t, action in enumerate(_actions(200, 2)):
            step = env.step(action)
            assert (step.is_last == (t == 199)).all() and not step.terminal.any()
            assert step.lanes.tolist() == [0, 1] and step.reward.dtype == np.float32
            assert step.success is not None and step.state is not None and step.state.shape == (2, 2)
            assert (step.reset is None) == (t < 199)
        assert step.reset is not None and step.reset.lanes.tolist() == [0, 1]
        assert (step.reset.frames != step.frames).any()
        expected = SPEC.make().reset(seed=episode_seed(0, 1, 1))[0].transpose(2, 0, 1)
        np.testing.assert_array_equal(step.reset.frames[1], expected)


@BOTH
def test_rows_stay_valid_after_later_steps(processes: bool) -> None:
    with VectorEnv(SPEC, 2, 0, processes=processes) as env:
        first = env.reset()
        kept = [_flat(first)]
        step = env.step(_actions(1, 2)[0])
        kept.append(_flat(step))
        _play(env, _actions(210, 2))
        assert kept == [_flat(first), _flat(step)]


@BOTH
def test_terminal_is_not_the_time_limit(processes: bool) -> None:
    with VectorEnv(EnvSpec("failing_env:terminates", 16), 1, 0, processes=processes) as env:
        env.reset()
        steps = [env.step(a) for a in _actions(4, 1)]
    assert [bool(s.terminal[0]) for s in steps] == [False, False, True, False]
    assert [bool(s.is_last[0]) for s in steps] == [False, False, True, False]
    assert [float(s.reward[0]) for s in steps] == [1.0, 2.0, 3.0, 1.0]
    assert steps[0].success is None  # a task without a goal does not report it


@BOTH
@pytest.mark.parametrize("before", [0, 1, 199, 200, 333])
def test_resume_continues_bit_for_bit(processes: bool, before: int) -> None:
    actions = _actions(before + 80, 2)
    with VectorEnv(SPEC, 2, seed=3, processes=processes) as env:
        current = env.reset()
        for action in actions[:before]:
            step = env.step(action)
            current = step.reset or FirstRows(step.lanes, step.frames, step.state)
        state = env.state_dict()
        rest = _play(env, actions[before:])
    assert (
        state["actions"].shape == (int(state["lengths"].sum()), 2) and state["lengths"].tolist() == [before % 200] * 2
    )
    with VectorEnv(SPEC, 2, seed=3, processes=processes) as env:
        assert _flat(env.load_state_dict(state)) == _flat(current)
        assert _flat_state(env.state_dict()) == _flat_state(state)
        assert _play(env, actions[before:]) == rest


def _flat_state(state: dict[str, Any]) -> list[Any]:
    return [v.tolist() if isinstance(v, np.ndarray) else v for v in state.values()]


def test_state_of_another_run_is_refused() -> None:
    with VectorEnv(SPEC, 2, 0) as env, VectorEnv(SPEC, 3, 0) as more:
        env.reset()
        with pytest.raises(UserError, match="num_envs=2"):
            more.load_state_dict(env.state_dict())


def test_replay_that_does_not_repeat_is_an_error() -> None:
    with VectorEnv(EnvSpec("failing_env:unseeded", 16), 1, 0) as env:
        env.reset()
        env.load_state_dict(env.state_dict())
        _play(env, _actions(5, 1))
        state = env.state_dict()
    with (
        VectorEnv(EnvSpec("failing_env:unseeded", 16), 1, 0) as env,
        pytest.raises(UserError, match="replayed to resume"),
    ):
        env.load_state_dict(state)


@BOTH
def test_exception_in_one_lane_leaves_the_others_alone(processes: bool) -> None:
    spec, actions = EnvSpec("failing_env:on_trigger", 16), _actions(40, 3)
    with VectorEnv(spec, 3, 0, processes=processes) as env:
        env.reset()
        calm = [env.step(a) for a in actions]
    actions[10, 1, 0] = failing_env.TRIGGER
    with VectorEnv(spec, 3, 0, processes=processes) as env:
        env.reset()
        steps = [env.step(a) for a in actions]
        state = env.state_dict()
    assert steps[10].lanes.tolist() == [0, 2] and len(steps[10].crashed) == 1
    assert "lane 1" in steps[10].crashed[0] and "the simulator diverged" in steps[10].crashed[0]
    assert steps[10].reset is not None and steps[10].reset.lanes.tolist() == [1]
    begun = spec.make().reset(seed=episode_seed(0, 1, 1))[0].transpose(2, 0, 1)
    np.testing.assert_array_equal(steps[10].reset.frames[0], begun)
    for step, quiet in zip(steps, calm, strict=True):
        for lane in (0, 2):
            i, j = step.lanes.tolist().index(lane), lane
            np.testing.assert_array_equal(step.frames[i], quiet.frames[j])
            assert step.is_last[i] == quiet.is_last[j]
    assert all(s.lanes.tolist() == [0, 1, 2] and not s.crashed for s in steps[11:])
    assert state["episodes"].tolist() == [0, 1, 0] and state["lengths"].tolist() == [40, 29, 40]


def test_killed_worker_is_restarted_and_reported() -> None:
    actions = _actions(30, 3)
    with VectorEnv(SPEC, 3, 0, processes=True) as env:
        env.reset()
        calm = [_flat(env.step(a)) for a in actions]
    with VectorEnv(SPEC, 3, 0, processes=True) as env:
        env.reset()
        _play(env, actions[:5])
        os.kill(env.pids[2], signal.SIGKILL)  # between two steps
        step = env.step(actions[5])
        assert step.lanes.tolist() == [0, 1] and "SIGKILL" in step.crashed[0] and "lane 2" in step.crashed[0]
        assert step.reset is not None and step.reset.lanes.tolist() == [2]
        rest = [env.step(a) for a in actions[6:]]
        assert all(not s.crashed and s.lanes.tolist() == [0, 1, 2] for s in rest)
        last = calm[-1][1]
        assert rest[-1].frames[:2].tobytes() == last[2][: len(last[2]) * 2 // 3]
        pids = env.pids
    assert _wait_gone(pids)


def test_worker_killed_during_a_step() -> None:
    spec, actions = EnvSpec("failing_env:killed", 16), _actions(3, 2)
    actions[1, 0, 0] = failing_env.TRIGGER
    with VectorEnv(spec, 2, 0, processes=True) as env:
        env.reset()
        steps = [env.step(a) for a in actions]
    assert [s.lanes.tolist() for s in steps] == [[0, 1], [1], [0, 1]] and "SIGKILL" in steps[1].crashed[0]


@BOTH
def test_lane_that_always_fails_ends_with_its_traceback(processes: bool) -> None:
    bad = np.full((2, 2), failing_env.TRIGGER, np.float32)
    env = VectorEnv(EnvSpec("failing_env:on_trigger", 16), 2, 0, processes=processes)
    env.reset()
    for _ in range(MAX_FAILURES):
        assert len(env.step(bad).crashed) == 2
    with pytest.raises(UserError, match=r"(?s)without one finished step.*in step.*the simulator diverged"):
        env.step(bad)
    assert env.pids == []
    with pytest.raises(RuntimeError, match="closed"):
        env.step(bad)


@BOTH
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("failing_env:broken_build", "no such model file"),
        ("failing_env:user_error", "^buy a camera first$"),
        ("failing_env:float_frames", "must give uint8 frames"),
        ("toy/mazee", "near: toy/maze"),
    ],
)
def test_environment_that_cannot_be_made(processes: bool, name: str, text: str) -> None:
    with pytest.raises(UserError, match=text):
        VectorEnv(EnvSpec(name, 16), 2, 0, processes=processes)


@BOTH
def test_reset_that_always_fails(processes: bool) -> None:
    env = VectorEnv(EnvSpec("failing_env:broken_reset", 16), 1, 0, processes=processes)
    with pytest.raises(UserError, match="the renderer lost its context"):
        env.reset()
    env.close()


@BOTH
def test_order_of_calls_and_shapes_is_checked(processes: bool) -> None:
    with VectorEnv(SPEC, 2, 0, processes=processes) as env:
        with pytest.raises(RuntimeError, match="reset"):
            env.send(_actions(1, 2)[0])
        env.reset()
        with pytest.raises(RuntimeError, match="send"):
            env.recv()
        with pytest.raises(ValueError, match=r"takes actions \[2, 2\], got \[3, 2\]"):
            env.send(_actions(1, 3)[0])
        env.send(_actions(1, 2)[0])
        with pytest.raises(RuntimeError, match="recv"):
            env.send(_actions(1, 2)[0])
        with pytest.raises(RuntimeError, match="under way"):
            env.state_dict()
        env.reset()  # a step under way is waited for and dropped
        env.step(_actions(1, 2)[0])
    with pytest.raises(UserError, match="num_envs"):
        VectorEnv(SPEC, 0, 0)


def test_the_learner_works_while_workers_step() -> None:
    with VectorEnv(SPEC, 2, 0, processes=True) as env, VectorEnv(SPEC, 2, 0, processes=False) as plain:
        env.reset(), plain.reset()
        for action in _actions(5, 2):
            mine = action.copy()
            env.send(mine)
            mine[:] = 9.0  # the caller may reuse its array
            time.sleep(0.01)
            assert _flat(env.recv()) == _flat(plain.step(action))


def test_interrupt_reaches_the_learner_only() -> None:
    with VectorEnv(SPEC, 2, 0, processes=True) as env:
        env.reset()
        for pid in env.pids:
            os.kill(pid, signal.SIGINT)
            assert os.getpgid(pid) != os.getpgid(0)  # so the terminal's Ctrl-C does not even get there
        assert not env.step(_actions(1, 2)[0]).crashed


def test_close_leaves_nothing() -> None:
    env = VectorEnv(SPEC, 3, 0, processes=True)
    env.reset()
    pids = env.pids
    env.send(_actions(1, 3)[0])  # also in the middle of a step
    env.close()
    env.close()
    assert len(pids) == 3 and all(map(_gone, pids))


def test_workers_end_with_a_killed_learner_and_do_not_import_torch() -> None:
    script = (
        "import os, sys, signal, psutil, torch\n"
        "from visrep.envs.vector import VectorEnv, EnvSpec\n"
        "env = VectorEnv(EnvSpec('toy/maze', 16), 2, 0, processes=True)\n"  # no __main__ guard needed
        "env.reset()\n"
        "linux = sys.platform == 'linux'\n"
        "maps = [m.path for pid in env.pids for m in psutil.Process(pid).memory_maps()] if linux else []\n"
        "print(*env.pids, any('libtorch' in m for m in maps), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=Path.cwd())
    *pids, torch_loaded = done.stdout.split()
    assert len(pids) == 2 and torch_loaded == "False", done.stderr
    assert _wait_gone([int(pid) for pid in pids])


def test_step_overhead() -> None:
    with VectorEnv(EnvSpec("toy/maze", 24), 16, 0) as env:
        env.reset()
        actions = _actions(100, 16)
        best = float("inf")
        for _ in range(3):
            began = time.process_time()
            for action in actions:
                env.step(action)
            best = min(best, (time.process_time() - began) / len(actions))
    assert best < 2e-3  # seconds for 16 lanes; about 0.3e-3 on an idle core
