"""docs/exporting.md runs as it stands."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from visrep.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "exporting.md"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_commands_and_code_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "encoder", raising=False)
    lines = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]
    assert len(lines) == 3
    for command, *words in lines:
        assert command == "visrep" and main(words) == 0, words
    scope: dict[str, object] = {"__name__": "page"}
    code = blocks("python")
    assert len(code) == 5
    for text in code:
        exec(text, scope)
    assert scope["model"].num_timesteps == 300  # type: ignore[attr-defined]
    monkeypatch.delitem(sys.modules, "encoder")
