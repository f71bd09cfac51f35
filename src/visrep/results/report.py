"""The page about one run, and the page that compares groups of runs, built from run directories alone.

Whatever a run did not record is named on the page; nothing that is missing stops the rest.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from visrep.console import format_seconds
from visrep.errors import UserError
from visrep.results import figures
from visrep.results.curves import AXIS_LABELS, Axis, Curve, curve_from_rows, quantities, read_rows, thin
from visrep.results.page import (
    Section,
    command,
    drawing,
    folded,
    gallery,
    missing,
    paragraph,
    picture,
    table,
    tiles,
    video,
    write_report,
)

__all__ = ["report_run", "run_pictures", "run_videos", "write_report"]

RECORDED = ("metrics.jsonl", "train.csv", "eval.csv")
RECORDS = ("config.yaml", "provenance.json", *RECORDED)  # any of them makes a page
LARGEST_PICTURE_BYTES = 3_000_000
LARGEST_VIDEO_BYTES = 4_000_000
VIDEOS = 4  # first and last evaluation and two between
Rows = list[dict[str, Any]]


def report_run(run_dir: Path) -> Path:
    """Build ``run_dir/report.html`` from the files of a run and return its path.

    Reads config.yaml, provenance.json, metrics.jsonl (or train.csv and eval.csv), probe/, figures/ and video/; each may
    be missing.

    Raises:
        UserError: there is no such directory, or a file in it is damaged.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise UserError(f"{run_dir} is not a directory; name the directory of a run")
    if not any((run_dir / name).exists() for name in RECORDS):
        raise UserError(f"{run_dir} is not a run directory: it has none of {', '.join(RECORDS)}")
    rows, config = _rows_or_none(run_dir), read_config(run_dir)
    marks, axis = _phase_marks(rows), axis_of(rows)
    acted = axis != "update"  # a run on recorded experience has no policy, no episodes and no videos to miss
    title = " · ".join(str(config[k]) for k in ("env", "method", "policy") if config.get(k)) or run_dir.resolve().name
    if not acted:
        title = f"{config.get('method', run_dir.resolve().name)} on recorded experience"
    sections = [
        Section("Summary", [_summary(rows), *_provenance(run_dir)]),
        *([Section("Learning", _learning(rows, axis, marks))] if acted else []),
        Section("Inside the learner", _metric_plots(rows, axis, marks)),
        *([Section("Probes", probes)] if (probes := _probes(run_dir)) else []),
        Section("Pictures", run_pictures(run_dir)),
        *([Section("Videos", run_videos(run_dir))] if acted else []),
        Section("Events", _events(rows)),
        Section("Configuration", _configuration(config)),
    ]
    return write_report(run_dir / "report.html", sections, title, f"run directory: {run_dir.resolve().name}")


def read_config(run_dir: Path) -> dict[str, Any]:
    """The keys of config.yaml, nested ones joined by dots; empty when there is none."""
    path = Path(run_dir) / "config.yaml"
    if not path.exists():
        return {}
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {error}") from error
    return dict(_flatten(values)) if isinstance(values, dict) else {}


def axis_of(rows: Rows) -> Axis:
    """Agent steps where they are known; the public code's CSV files hold frames only, offline runs updates only."""
    known: tuple[Axis, ...] = ("agent_step", "env_frames", "update")
    return next((axis for axis in known if any(axis in row for row in rows)), "agent_step")


def number(value: float) -> str:
    """Four significant digits, thousands set apart, no exponent for everyday sizes."""
    if not math.isfinite(value):
        return "not finite"
    if value and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.3g}"
    digits = 0 if abs(value) >= 1000 else 3 if abs(value) < 1 else 2
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            yield from _flatten({str(index + 1): item for index, item in enumerate(value)}, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _rows_or_none(run_dir: Path) -> Rows:
    if any((run_dir / name).exists() for name in RECORDED):
        return read_rows(run_dir)
    return []


def _of(rows: Rows, kind: str) -> Rows:
    return [row for row in rows if row["kind"] == kind]


def _phase_marks(rows: Rows) -> dict[str, float]:
    marks = {}
    for row in _of(rows, "event"):
        found = re.fullmatch(r"phase (\S+) begins", str(row.get("message")))
        if found and row.get("agent_step", 0) > 0:
            marks[found[1]] = float(row["agent_step"])
    return marks


def _summary(rows: Rows) -> str:
    if not rows:
        return missing("episodes and metrics")
    values: list[tuple[str, str]] = []
    for key in ("agent_step", "env_frames", "update"):
        counts = [row[key] for row in rows if math.isfinite(row.get(key, math.nan))]
        if counts:
            values.append((AXIS_LABELS[key], f"{int(max(counts)):,}"))
    if any("seconds" in row for row in rows):
        values.append(("run time", format_seconds(max(row.get("seconds", 0.0) for row in rows))))
    if _of(rows, "train"):
        values.append(("episodes", f"{len(_of(rows, 'train')):,}"))
    axis = axis_of(rows)
    for kind, key, label in (
        ("eval", "episode_reward", "evaluation return"),
        ("eval", "success", "success rate"),
        ("metrics", "state_coverage", "visited cells"),
    ):
        curve = curve_from_rows(_of(rows, kind), key, axis)
        if not len(curve.x):
            continue
        last, best = float(curve.values[-1]), float(curve.values.max())
        show = number if key == "episode_reward" else lambda v: f"{100 * v:.0f} %"
        values.append((f"last {label}" if kind == "eval" else label, show(last)))
        if kind == "eval" and best > last:
            values.append((f"best {label}", show(best)))
    for key, label in (("agent_steps_per_second", "agent steps/s"), ("updates_per_second", "updates/s")):
        curve = curve_from_rows(_of(rows, "metrics"), key, axis)
        if len(curve.x):
            values.append((f"{label}, median", number(float(sorted(curve.values)[len(curve.x) // 2]))))
    return tiles(values)


def _provenance(run_dir: Path) -> list[str]:
    path = run_dir / "provenance.json"
    if not path.exists():
        return [missing("versions, device and command (provenance.json)")]
    try:
        values = dict(_flatten(json.loads(path.read_text(encoding="utf-8"))))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    typed = values.pop("command", None)
    if (run_dir / "config.yaml").exists():  # they stand under Configuration
        values = {key: value for key, value in values.items() if not key.startswith("config.")}
    blocks = [command(str(typed))] if typed else []
    return [*blocks, folded("Versions, device, environment", table(("what", "value"), _pairs(values)))]


def _pairs(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(key, "–" if value is None else str(value)) for key, value in values.items()]


def _plot(figure: Any, caption: str) -> str:
    return drawing(figures.inline_svg(figure, caption), caption)


def _learning(rows: Rows, axis: Axis, marks: Mapping[str, float]) -> list[str]:
    def curve(kind: str, key: str, scale: float = 1.0) -> Curve:
        found = curve_from_rows(_of(rows, kind), key, axis)
        return Curve(found.x, scale * found.values)

    xlabel, plots, absent = AXIS_LABELS[axis], [], []
    evaluation, episodes = curve("eval", "episode_reward"), curve("train", "episode_reward")
    lines = {"evaluation": evaluation} if len(evaluation.x) else {}
    if len(episodes.x) > 100:
        lines["training, mean"] = thin(episodes, 40)
    dots = {"training episodes": thin(episodes, 600)} if len(episodes.x) else {}
    if lines or dots:
        figure = figures.run_curves(lines, "return per episode", marks=marks, points=dots, xlabel=xlabel)
        plots.append(_plot(figure, "Return per episode (task reward, also while it is not learned from)"))
    else:
        absent.append(missing("returns"))
    for kind, key, ylabel, caption in (
        ("eval", "success", "success (%)", "Share of evaluation episodes that reached the goal"),
        ("metrics", "state_coverage", "visited cells (%)", "Share of reachable cells visited since the start"),
        ("metrics", "state_cells_visited", "visited cells", "Distinct cells of the privileged state visited so far"),
        ("metrics", "intr_reward_mean", "intrinsic reward", "Mean exploration reward"),
    ):
        found = curve(kind, key, 100.0 if ylabel.endswith("(%)") else 1.0)
        if key == "state_cells_visited" and any("state_coverage" in row for row in rows):
            continue  # the same curve as a share
        if len(found.x):
            figure = figures.run_curves({key: thin(found)}, ylabel, marks=marks, xlabel=xlabel)
            plots.append(_plot(figure, caption))
    if not len(evaluation.x) and plots:
        absent.append(missing("evaluations"))
    return [gallery(plots), *absent]


def _metric_plots(rows: Rows, axis: Axis, marks: Mapping[str, float]) -> list[str]:
    mine = _of(rows, "metrics")
    plots = []
    for key in quantities(mine):
        curve = thin(curve_from_rows(mine, key, axis), 200)
        bad = sum(isinstance(row.get(key), float) and not math.isfinite(row[key]) for row in mine)
        caption = key.replace("_", " ") + (f" ({bad} values were not finite)" if bad else "")
        if not len(curve.x):
            plots.append(f"<figure>{missing(caption)}</figure>")
            continue
        ylabel = key.replace("_", " ")
        if key.endswith("_bytes"):
            curve, ylabel = Curve(curve.x, curve.values / 2**30), f"{ylabel.removesuffix(' bytes')} (GiB)"
        figure = figures.run_curves({key: curve}, ylabel, marks=marks, xlabel=AXIS_LABELS[axis], size=(4.4, 2.6))
        plots.append(_plot(figure, caption))
    return [gallery(plots, small=True)] if plots else [missing("losses and other metrics")]


def run_pictures(run_dir: Path) -> list[str]:
    """Blocks with the pictures in a run's figures/, each with its caption."""
    blocks, notes = [], []
    for path in sorted(p for p in (run_dir / "figures").glob("*") if p.suffix in (".png", ".svg", ".jpg")):
        megabytes = path.stat().st_size / 1e6
        if path.stat().st_size > LARGEST_PICTURE_BYTES:
            notes.append(paragraph(f"figures/{path.name} is left out for its size ({megabytes:.1f} MB)"))
            continue
        data, text = path.read_bytes(), path.with_suffix(".txt")
        caption = text.read_text(encoding="utf-8").strip() if text.exists() else path.stem.replace("_", " ")
        # The width stands at byte 16 of a PNG; small ones are frames whose pixels should stay sharp.
        small = path.suffix == ".png" and int.from_bytes(data[16:20], "big") < 700
        blocks.append(picture(data, path.suffix, caption, pixelated=small))
    return [gallery(blocks), *notes] if blocks or notes else [missing("pictures (figures/)")]


def _probes(run_dir: Path) -> list[str]:
    """The figures that ``visrep probe`` left in the run directory, one per dataset; nothing where it was not asked."""
    blocks = []
    for path in sorted((run_dir / "probe").glob("*/probe.png")):
        dataset = path.parent.name
        blocks.append(picture(path.read_bytes(), path.suffix, f"Probes on {dataset}; all: probe/{dataset}/probe.md"))
    return [gallery(blocks)] if blocks else []


def run_videos(run_dir: Path) -> list[str]:
    """Blocks with a few of a run's evaluation videos, the first and the last among them."""
    files = sorted((run_dir / "video").glob("*.mp4"), key=lambda p: (not p.stem.isdigit(), p.stem.zfill(20)))
    if not files:
        return [missing("videos (video/)")]
    step = (len(files) - 1) / max(1, VIDEOS - 1)
    chosen = [files[i] for i in sorted({round(k * step) for k in range(VIDEOS)})]
    blocks, notes = [], []
    for path in chosen:
        name = f"agent step {int(path.stem):,}" if path.stem.isdigit() else path.stem
        if path.stat().st_size <= LARGEST_VIDEO_BYTES:
            blocks.append(video(path.read_bytes(), f"first evaluation episode at {name}"))
        else:
            notes.append(paragraph(f"video/{path.name} is left out for its size ({path.stat().st_size / 1e6:.1f} MB)"))
    if len(files) > len(chosen):
        notes.append(paragraph(f"{len(files)} videos lie in video/; {len(chosen)} are shown"))
    return [gallery(blocks, small=True), *notes]


def _events(rows: Rows) -> list[str]:
    events = _of(rows, "event")
    if not events:
        return [paragraph("none") if rows else missing("events")]
    axis = axis_of(rows)
    lines = [(f"{row[axis]:,}", format_seconds(row["seconds"]), str(row["message"])) for row in events]
    shown = lines if len(lines) <= 40 else [*lines[:20], ("…", "…", f"{len(lines) - 40} more"), *lines[-20:]]
    return [table((AXIS_LABELS[axis], "time", "what happened"), shown)]


def _configuration(config: Mapping[str, Any]) -> list[str]:
    if not config:
        return [missing("configuration (config.yaml)")]
    return [folded(f"{len(config)} keys", table(("key", "value"), _pairs(config)))]
