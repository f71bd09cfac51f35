"""The example scripts: one for every objective and every agent that has a page; each runs, and prints its table."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from visrep.objectives import OBJECTIVES
from visrep.policies.contract import POLICIES

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples"
SHARED = {"toy_data", "toy_agent"}
LONGEST = 120  # lines
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in SHARED)
# A few updates and little data, by the options that the scripts have.
SHRUNK = {"updates": "2", "recorded": "640", "agent-steps": "320"}


@pytest.fixture(autouse=True)
def _leaves_the_process_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The scripts write below the working directory, import each other's folder and set torch's threads."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(FOLDER))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_every_method_has_a_script() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "methods").glob("*.md")}
    assert set(OBJECTIVES) | set(POLICIES) | pages == set(SCRIPTS)


def test_they_are_short() -> None:
    lengths = {name: len((FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines()) for name in SCRIPTS}
    assert not {name: lines for name, lines in lengths.items() if lines > LONGEST}


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_runs_and_prints_its_table(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = FOLDER / f"{name}.py"
    source = path.read_text(encoding="utf-8")
    known = re.findall(r"(\w+)=[\d_]+", source.partition("options(__doc__")[2].partition(")")[0])
    chosen = [f"--{key}={value}" for key, value in SHRUNK.items() if key.replace("-", "_") in known]
    assert chosen, "an option that shrinks it"
    monkeypatch.setattr(sys, "argv", [str(path), *chosen])
    runpy.run_path(str(path), run_name="__main__")
    printed = capsys.readouterr().out
    assert "random" in printed, "what is compared with"
    assert max(len(re.findall(r"  +-?\d[\d.e+-]*", line)) for line in printed.splitlines()) >= 1, "a row of numbers"
    assert "nan" not in printed.lower()
