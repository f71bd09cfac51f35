"""The report of visrep doctor."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import pytest
from rich.console import Console

from visrep import doctor as module
from visrep.config import parse
from visrep.envs.rendering import FIXES, Probe


def works(name: str) -> Probe:
    return Probe(name, ok=True, name=f"device of {name}", frames_per_second=123.4)


def fails(name: str) -> Probe:
    return Probe(name, ok=False, error="no library", fix=FIXES[name])


def report(probe: Any, *words: str, env: str = "toy/maze") -> tuple[int, str]:
    console = Console(record=True, width=120, file=open("/dev/null", "w"))  # noqa: SIM115
    return module.doctor(parse([f"env={env}", *words]), console, probe), console.export_text()


def test_a_healthy_machine() -> None:
    code, text = report(works)
    assert code == 0
    for expected in ("torch", "cores usable", "device of egl", "123", "replay rows", "a run is possible"):
        assert expected in text
    assert "problem" not in text


def test_absent_renderers_name_the_whole_install_line_and_are_not_fatal() -> None:
    code, text = report(fails)
    assert code == 0
    for fix in FIXES.values():
        assert f"mend it with: {fix}\n" in text


def test_experience_that_does_not_fit() -> None:
    code, text = report(works, "replay_buffer_capacity=100000000")
    assert code == 0 and "does not fit" in text and "replay_buffer_capacity=" in text.split("mend it with")[1]


def test_unknown_environment_names_the_near_ones() -> None:
    code, text = report(works, env="toy/mazes")
    assert code == 0 and "toy/maze" in text.split("problem")[1]


def test_mujoco_4_gets_the_line_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from visrep.envs import rendering

    monkeypatch.setattr(rendering, "_version", lambda name: "4.0.0")
    assert "mend it with: pip install 'mujoco>=3.17,<4'\n" in report(works)[1]


def test_a_missing_core_package_is_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "safetensors":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(module.metadata, "version", version)
    code, text = report(works)
    assert code == 1 and "mend it with: pip install 'safetensors>=0.5'\n" in text and "no run is possible" in text
