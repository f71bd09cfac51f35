"""What docs/sweeps.md shows is valid and says the truth about its own example."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from visrep.cli import main
from visrep.sweeps.plan import plan
from visrep.sweeps.spec import StageCommand, SweepSpec, read_sweep

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")


def test_the_file_on_the_page_is_a_sweep(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    (tmp_path / "sweep.yaml").write_text(text)
    names = [job.name for job in plan(read_sweep(tmp_path / "sweep.yaml"))]
    counts = {stage: sum(name.startswith(stage) for name in names) for stage in ("collect", "pretrain", "finetune")}
    assert counts == {"collect": 2, "pretrain": 2 * 2 * 3, "finetune": 3 * 2 * 3}


def test_the_commands_on_the_page_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    lines = re.findall(r"^visrep (sweep [^#\n]*)", PAGE, flags=re.MULTILINE)
    assert len(lines) == 3
    for line in lines[1:]:  # the first one, which runs the jobs, has a test of its own
        assert main(line.split()) == 0
    said = capsys.readouterr().out
    assert "finetune/objective=atc_seed=1: not started, waits for pretrain/objective=atc_seed=1" in said
    jobs = int(re.search(r"(\d+) jobs, about", PAGE)[1])  # type: ignore[index]
    assert said.count("\nvisrep ") + said.startswith("visrep ") == jobs


def test_every_key_and_command_is_on_the_page() -> None:
    table = PAGE.split("## Done")[0]
    for name in (*SweepSpec.model_fields, *StageCommand.__args__):  # type: ignore[attr-defined]
        assert re.search(rf"\b{name}\b", table), name
