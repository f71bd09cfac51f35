"""make_env: names, near misses, missing packages, own environments, frame stacks."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from visrep.envs import make as make_module
from visrep.envs.make import ENV_SUITES, Suite, full_name, is_cheap, list_envs, make_env
from visrep.envs.toy import ToyMaze
from visrep.envs.toy import make as make_toy
from visrep.errors import UserError


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A stand-in for the control suite, so that these tests need no simulator; returns the calls of its ``make``."""
    calls: list[dict[str, Any]] = []
    module = ModuleType("fake_control")

    def make(task: str, **options: Any) -> ToyMaze:
        calls.append({"task": task, **options})
        return make_toy("maze", image_size=options["image_size"])

    module.make, module.list_tasks = make, lambda: ["cheetah_run", "cheetah_run_backward", "walker_walk"]
    monkeypatch.setitem(sys.modules, "fake_control", module)
    monkeypatch.setitem(ENV_SUITES, "dmc", Suite("fake_control", extra="dmc"))
    return calls


def test_toy_by_name_with_all_options() -> None:
    env = make_env("toy/maze_center", image_size=32, action_repeat=2, seed=5, render="egl", camera=0)
    core = env.unwrapped
    assert isinstance(core, ToyMaze) and (core.image_size, core.action_repeat, core.task) == (32, 2, "maze_center")
    np.testing.assert_array_equal(env.reset()[0], make_env("toy/maze_center", image_size=32, seed=5).reset()[0])


def test_bare_names_are_control_tasks(control: list[dict[str, Any]]) -> None:
    make_env("cheetah_run", image_size=24, action_repeat=4, seed=3, render="osmesa", camera=1)
    make_env("dmc/cheetah_run", image_size=24)
    assert control[0] == {
        "task": "cheetah_run", "image_size": 24, "action_repeat": 4, "seed": 3, "render": "osmesa", "camera": 1
    }  # fmt: skip
    assert control[1]["task"] == "cheetah_run" and control[1]["camera"] is None
    assert full_name("cheetah_run") == "dmc/cheetah_run" and full_name("toy/maze") == "toy/maze"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("toy/mazee", "toy/maze"),
        ("toy/maze_centre", "toy/maze_center"),
        ("cheeta_run", "dmc/cheetah_run"),
        ("dmc/walker_wlak", "dmc/walker_walk"),
        ("maze", "toy/maze"),
        ("toys/maze", "toy/maze"),
    ],
)
def test_unknown_names_list_the_near_ones(name: str, near: str, control: list[dict[str, Any]]) -> None:
    with pytest.raises(UserError, match="unknown environment") as error:
        make_env(name)
    assert name in str(error.value) and near in str(error.value)


def test_missing_package_names_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENV_SUITES, "dmc", Suite("visrep.envs.dmc", extra="dmc", packages=("no_such_package",)))
    with pytest.raises(UserError, match=r"no_such_package.*pip install 'visrep\[dmc\]'"):
        make_env("cheetah_run")
    assert list_envs() and all(name.startswith("toy/") for name in list_envs())


def test_list_holds_every_suite(control: list[dict[str, Any]]) -> None:
    names = list_envs()
    assert {"toy/maze", "toy/maze_center", "toy/maze_far", "toy/open_center", "dmc/walker_walk"} <= set(names)
    assert len(names) == len(set(names))


def test_own_environment_by_module_and_factory() -> None:
    assert isinstance(make_env("failing_env:on_trigger", image_size=16).unwrapped, ToyMaze)
    with pytest.raises(UserError, match="no module 'no_such_module'"):
        make_env("no_such_module:make")
    with pytest.raises(UserError, match="no callable 'nothing'"):
        make_env("failing_env:nothing")


def test_an_unknown_renderer_is_refused_also_where_nothing_is_rendered() -> None:
    for name in ("toy/maze", "failing_env:on_trigger", "no_such_suite/task"):
        with pytest.raises(UserError, match="render=foo is unknown; choose auto, warp, egl, osmesa"):
            make_env(name, render="foo")


def test_frame_stack_repeats_the_first_frame() -> None:
    env = make_env("toy/maze", image_size=24, frame_stack=3)
    assert env.observation_space.shape == (3, 24, 24, 3)
    first = env.reset(seed=0)[0]
    assert (first == first[:1]).all()
    second = env.step(np.array([1.0, 1.0], np.float32))[0]
    np.testing.assert_array_equal(second[:2], first[:2])
    assert (second[2] != first[2]).any()


def test_only_toy_is_cheap() -> None:
    assert is_cheap("toy/maze") and not is_cheap("cheetah_run") and not is_cheap("failing_env:on_trigger")
    assert make_module.DEFAULT_SUITE in ENV_SUITES
