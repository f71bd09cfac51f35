"""The demo, cut short: four runs, a table, a page; again it is finished; other sizes are refused."""

from __future__ import annotations

import re

import pytest

from visrep.errors import UserError
from visrep.runs.demo import CONTROLS, MAIN, demo


@pytest.mark.slow
def test_demo_runs_reports_and_knows_when_it_is_finished(tmp_path, capsys):
    sizes = {"run_dir": str(tmp_path / "demo"), "num_expl_steps": 1200, "num_train_steps": 1200}
    assert demo(**sizes) == 0
    printed = capsys.readouterr().out
    assert re.search(r"cells visited without reward +1,200 +\d+ % +\d+ %", printed)
    assert "| train |" not in printed, "a line per episode drowns everything else"
    page = (tmp_path / "demo" / "report.html").read_text()
    assert page.count("<svg") >= 2 and "data:image/png" in page and "data:video/mp4" in page
    for name in (*MAIN, *CONTROLS):
        assert f'href="{name}/report.html"' in page and (tmp_path / "demo" / name / "report.html").exists()

    episodes = (tmp_path / "demo" / "task" / "train.csv").read_bytes()
    assert demo(**sizes) == 0
    again = capsys.readouterr().out
    assert again.count("finished already") == 2
    assert (tmp_path / "demo" / "task" / "train.csv").read_bytes() == episodes
    with pytest.raises(UserError, match="num_expl_steps"):
        demo(**sizes | {"num_expl_steps": 1300})
