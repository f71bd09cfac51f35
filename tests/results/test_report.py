"""Figures and pages: self-contained, complete where runs are complete, and without a crash where they are not."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

from visrep.errors import UserError
from visrep.log import RunLog
from visrep.results import figures
from visrep.results.comparison import report_runs
from visrep.results.curves import AggregateCurve, Curve
from visrep.results.page import Section, paragraph, table, write_report
from visrep.results.report import number, report_run
from visrep.results.statistics import Estimate
from visrep.video import write_video

VOID = {"meta", "img", "link", "br", "input", "path", "use", "rect"}


class Page(HTMLParser):
    """Collects what the tests ask about and checks that tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href"):
                self.links.append(value or "")
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.stack.pop() == tag


def read(path: Path) -> tuple[str, Page]:
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.stack == [] and len(page.ids) == len(set(page.ids))
    assert all(link.startswith(("data:", "#")) for link in page.links), "the page must need nothing but itself"
    assert "script" not in page.tags
    targets = set(re.findall(r"url\(#([^)]+)\)", text)) | {link[1:] for link in page.links if link.startswith("#")}
    assert targets <= set(page.ids)
    return text, page


def make_run(folder: Path, seed: int = 0, steps: int = 10, success: bool = True, env: str = "toy/maze_center") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"env": env, "method": "proto", "seed": seed, "lr": 1e-4}))
    log = RunLog(folder, action_repeat=2, tensorboard=False, eval_columns=("success",))
    log.event(0, "phase pretrain begins")
    for i in range(1, steps + 1):
        log.train(100 * i, i, i + seed, 55.0)
        loss = math.nan if i == 3 else 1 / i
        log.metrics(100 * i, {"critic_loss": loss, "state_coverage": i / 20, "ram_bytes": 2**30})
        if i % 5 == 0:
            log.evaluation(100 * i, i, 10.0 * i + seed, success=0.5 if success else None)
    log.event(500, "phase finetune begins")
    log.event(501, "worker <3> & others were restarted")
    log.close()
    return folder


def add_pictures(run: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, size=(12, 20, 20, 3), dtype=np.uint8)
    for step in (0, 500, 1000, 1500, 2000, 2500):
        write_video(run / "video" / f"{step}.mp4", frames[:3])
    background = np.full((64, 64, 3), 200, np.uint8)
    positions = np.array([[0.1, 0.9], [0.5, 0.5]])
    usage = np.array([0.9, 0.1])
    figures.save(figures.prototype_map(positions, background, usage), run / "figures/map.png", "Where <prototypes> lie")
    figures.save(figures.coverage_map(positions, np.array([3, 0]), background, 0.2), run / "figures/coverage.svg")
    figures.save(figures.frame_sheet(frames, columns=5), run / "figures/frames.png")
    (run / "provenance.json").write_text(
        json.dumps({"command": "visrep train env=toy/maze_center", "device": "cpu", "versions": {"torch": "2.13.0"}})
    )


def test_a_complete_run_gives_a_complete_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    add_pictures(run)
    text, page = read(report_run(run))
    assert "not recorded" not in text
    for expected in (
        "toy/maze_center · proto",
        "visrep train env=toy/maze_center",
        "versions.torch",
        "1 values were not finite",
        "worker &lt;3&gt; &amp; others",
        "Where &lt;prototypes&gt; lie",
        "visited cells (%)",
        "ram (GiB)",
        "6 videos lie in video/; 4 are shown",
        "first evaluation episode at agent step 2,500",
        ">finetune<",  # the phase change in the curves
    ):
        assert expected in text, expected
    assert page.tags.count("video") == 4 and page.tags.count("img") == 3


def test_probes_of_the_encoder_are_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    before, _ = read(report_run(run))
    for dataset in ("walks", "jumps"):
        figures.save(figures.frame_sheet(np.zeros((2, 8, 8, 3), np.uint8)), run / "probe" / dataset / "probe.png")
    text, page = read(report_run(run))
    assert ">Probes<" in text and "Probes" not in before and page.tags.count("img") == 2
    assert text.index("Probes on jumps; all: probe/jumps/probe.md") < text.index("Probes on walks; ")


def test_a_run_without_events_says_none(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    kept = [line for line in (run / "metrics.jsonl").read_text().splitlines() if json.loads(line)["kind"] != "event"]
    (run / "metrics.jsonl").write_text("\n".join(kept) + "\n")
    text, _ = read(report_run(run))
    assert ">none<" in text and "events: not recorded" not in text


def test_what_a_run_did_not_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "provenance.json").write_text("{}")
    text, _ = read(report_run(tmp_path))
    for what in ("episodes and metrics", "returns", "losses", "pictures", "videos", "events", "config.yaml"):
        assert re.search(rf"{what}[^<]*: not recorded", text), what
    with pytest.raises(UserError, match="not a directory"):
        report_run(tmp_path / "absent")
    (tmp_path / "provenance.json").unlink()
    with pytest.raises(UserError, match="not a run directory"):
        report_run(tmp_path)


@pytest.mark.parametrize("missing", ["config.yaml", "metrics.jsonl", "train.csv", "eval.csv"])
def test_any_one_file_may_be_missing(tmp_path: Path, missing: str) -> None:
    run = make_run(tmp_path / "run", success=False)
    (run / missing).unlink()
    text, _ = read(report_run(run))
    assert "Return per episode" in text


def test_damaged_files_are_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "config.yaml").write_text("a: [")
    with pytest.raises(UserError, match=r"config\.yaml is not YAML"):
        report_run(run)


def test_the_comparison_shows_groups_intervals_and_what_is_missing(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"a{i}", seed=i) for i in range(3)]
    runs += [make_run(tmp_path / f"b{i}", seed=-20 - i, success=False) for i in range(2)]
    runs.append(make_run(tmp_path / "c", steps=8))
    runs.append(make_run(tmp_path / "d", env="toy/maze_left"))
    labels = ["proto"] * 3 + ["random"] * 2 + ["single", "proto"]
    text, _ = read(report_runs(runs, labels, tmp_path / "out" / "comparison.html"))
    for expected in ("7 runs in 3 groups", "proto (n = 3)", "toy/maze_center: evaluation return", "random: success",
                     "toy/maze_left: evaluation return", "Runs end at different", "1.00 (1.00–1.00)"):  # fmt: skip
        assert expected in text, expected
    row = re.search(r"<tr><td>proto</td>(.*?)</tr>", text)
    assert row is not None and "<td class=num>101</td>" in row[1]  # IQM of 100, 101, 102
    assert re.search(r"<td>single</td><td class=num>1</td><td class=num>50</td><td>–</td>", text)
    first = (tmp_path / "out" / "comparison.html").read_text()
    report_runs(runs, labels, tmp_path / "out" / "comparison.html")
    strip = re.compile(r"f\d+-")
    assert strip.sub("", first) == strip.sub("", (tmp_path / "out" / "comparison.html").read_text())


def test_comparisons_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 runs and 2 labels"):
        report_runs([tmp_path], ["a", "b"], tmp_path / "x.html")
    with pytest.raises(UserError, match="not a run directory"):
        report_runs([tmp_path], ["a"], tmp_path / "x.html")


def test_pages_are_escaped_and_written_whole(tmp_path: Path) -> None:
    sections = [Section("A & B", [paragraph("<b>"), table(("x", "y"), [("name", "-3.5")])]), Section("Empty")]
    path = write_report(tmp_path / "sub" / "x.html", sections, "<Title>", "it's")
    text, page = read(path)
    assert "&lt;Title&gt;" in text and "A &amp; B" in text and "not recorded" in text and "b" not in page.tags
    assert "<td class=num>-3.5</td>" in text and [p.name for p in path.parent.iterdir()] == ["x.html"]


def test_figures_say_what_they_show(tmp_path: Path) -> None:
    x = np.arange(0.0, 5e5, 1e5)
    lines = [AggregateCurve(name, x, x / 1e5, x / 1e5 - 1, x / 1e5 + 1, 5) for name in ("proto", "apt")]
    svg = figures.inline_svg(figures.aggregate_curves(lines, "return", references={"expert": 3.0}), 'a "label"')
    for expected in ("agent steps", "return", "proto (n = 5)", "400k", "expert", "currentColor", "a &quot;label&quot;"):
        assert expected in svg, expected
    assert figures.INK not in svg
    ElementTree.fromstring(svg)
    estimates = {"proto": Estimate(np.array(0.9), np.array(0.8), np.array(1.0))}
    bar = figures.save(figures.bars(estimates, "success (%)", runs={"proto": 5}), tmp_path / "bar.svg")
    assert "proto (n = 5)" in bar.read_text()
    curve = {"p": Estimate(np.array([1.0, 0.5]), np.array([0.9, 0.4]), np.array([1.0, 0.6]))}
    assert figures.save(figures.profiles([0.0, 0.5], curve), tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_equal_figures_give_equal_files(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        figures.save(figures.run_curves({"x": Curve(np.arange(3.0), np.arange(3.0))}, "y"), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_frame_sheet_places_every_frame() -> None:
    frames = np.arange(1, 6, dtype=np.uint8)[:, None, None, None] * np.ones((5, 4, 3, 3), np.uint8)
    sheet = figures.frame_sheet(frames, columns=3, gap=1)
    assert sheet.shape == (9, 11, 3)
    assert (sheet[0, 0, 0], sheet[0, 4, 0], sheet[5, 4, 0]) == (1, 2, 5)
    assert sheet[4, 0, 0] == sheet[8, 10, 0] == 255


def test_numbers_are_written_for_people() -> None:
    values = (0.0, 0.5, -3.456, 123.456, 12345.6, 1e-6, 2.5e9, math.nan)
    assert [number(v) for v in values] == ["0", "0.5", "-3.46", "123.46", "12,346", "1e-06", "2.5e+09", "not finite"]
