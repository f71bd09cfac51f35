"""Figures, tables, README.md and summary.md of encoders pre-trained on demonstrations, from ``data/`` alone.

    python benchmarks/atc_demonstrations/figures.py [probe|frozen|prediction]   (all without a name)

``data/`` comes from ``run.py``. With fewer than five seeds every run is listed and nothing is called a
result.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import spearmanr

import evidence
from evidence import FEW, LAST, Records, Section, aggregated, cell, final, save, seeds, table
from records import Row
from visrep.results import figures

HERE = Path(__file__).parent
NAMES = {
    "atc": "ATC", "atc-k3": "ATC, k = 3", "atc-k10": "ATC, k = 10", "atc-no-augmentation": "ATC, no augmentation",
    "atc-no-momentum": "ATC, no momentum", "atc-expert-data": "ATC, experts' episodes only",
    "atc-10k-updates": "ATC, 10,000 updates", "ac-10k-updates": "AC, 10,000 updates",
    "inverse-10k-updates": "inverse model, 10,000 updates",
    "atc-random-data": "ATC, random episodes only", "atc-latent-shift-0": "ATC, latents not shifted",
    "atc-latent-shift-1": "ATC, latents shifted by up to 1", "ac": "AC", "ats": "ATS",
    "curl": "CURL", "vae": "VAE", "vae_t": "VAE-T", "inverse": "inverse model", "sac_ae": "SAC-AE",
    "proto": "Proto-RL", "random": "random encoder",
}  # fmt: skip
CONTROLS = {"random": "random encoder", "pixels": "PCA of pixels", "state": "true state"}
SCORES = {
    "state": "state R²", "state_mlp": "state R², network", "state_knn": "state R², neighbours", "action": "action R²",
    "reward": "reward R²",
}  # fmt: skip


def tasks(records: Records) -> list[str]:
    """Tasks that have records."""
    return sorted({rows[0]["group"] for rows in records})


def of_stage(records: Records, stage: str, task: str) -> Records:
    """Records of one stage of one task."""
    return [rows for rows in records if rows[0]["stage"] == stage and rows[0]["group"] == task]


def probes(records: Records, task: str) -> dict[str, list[Row]]:
    """Probe rows by objective, and by control (which every probe repeats: the first run's are taken)."""
    found: dict[str, list[Row]] = {}
    for rows in of_stage(records, "pretrain", task):
        for row in rows:
            if row["kind"] == "probe" and row["role"] == "encoder":
                found.setdefault(rows[0]["label"], []).append(row)
            elif row["kind"] == "probe" and row["role"] in CONTROLS and len(found.get(row["role"], [])) < 1:
                found.setdefault(row["role"], []).append(row)
    order = list(NAMES)
    return dict(sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def _points(rows: Sequence[Row], score: str) -> list[float]:
    return [row[score]["point"] for row in rows if row.get(score)]


def probing(records: Records) -> str:
    """What a linear readout, a small network and neighbours find in the features."""
    parts = [
        "R² on held-out episodes of other data than the encoders were trained on (docs/probes.md). Controls of one run "
        "stand below the objectives."
    ]
    for task in tasks(records):
        rows = [
            [NAMES.get(label, CONTROLS.get(label, label)), str(len(found)),
             *(cell(_points(found, score), 2) or "–" for score in SCORES),
             cell([row["rankme"] for row in found if row["rankme"] is not None], 0) or "–"]
            for label, found in probes(records, task).items()
        ]  # fmt: skip
        parts.append(f"### {task}\n\n" + table(("code", "seeds", *SCORES.values(), "RankMe"), rows).strip())
    return "\n\n".join(parts)


HEAD = ("task", "frozen encoder", "seeds", "agent steps", f"return, mean of the last {LAST} evaluations")


def return_rows(records: Records) -> list[list[str]]:
    """Final return of every task and frozen encoder."""
    rows = []
    for task in tasks(records):
        found = evidence.groups(of_stage(records, "frozen", task), task, "eval", "episode_reward", NAMES)
        rows += [[task, NAMES[label], seeds(c), f"{min(curve.x[-1] for curve in c):,.0f}", cell(final(c))]
                 for label, c in found.items()]  # fmt: skip
    return rows


def frozen(records: Records) -> str:
    """Learning the task on frozen encoders, from stored latents."""
    pictures = []
    for task in tasks(records):
        found = evidence.groups(of_stage(records, "frozen", task), task, "eval", "episode_reward", NAMES)
        if found:
            lines = list(aggregated(found, NAMES).values())
            save(figures.aggregate_curves(lines, "evaluation return", task, None, (6.4, 3.8)), HERE, f"{task}_frozen")
            pictures.append(f"![return, {task}](figures/{task}_frozen.png)")
    return "\n\n".join([table(HEAD, return_rows(records)).strip(), *pictures])


def pairs(records: Records, task: str) -> list[tuple[str, float, float]]:
    """(objective, mean state R² by ridge, mean final return); the random encoder's R² is that of a probe's control."""
    scores = {label: _points(rows, "state") for label, rows in probes(records, task).items()}
    found = evidence.groups(of_stage(records, "frozen", task), task, "eval", "episode_reward", NAMES)
    returns = {label: float(np.mean(final(curves))) for label, curves in found.items()}
    return [(label, float(np.mean(scores[label])), value) for label, value in returns.items() if scores.get(label)]


def prediction(records: Records) -> str:
    """Whether the probe tells the return beforehand."""
    chosen = [task for task in tasks(records) if len(pairs(records, task)) > 2]
    if not chosen:
        return "Too few frozen runs yet."
    with mpl.rc_context(figures.STYLE):
        figure = Figure(figsize=(3.6 * len(chosen), 4.6), layout="constrained")
        FigureCanvasAgg(figure)
        notes = []
        for axes, task in zip(figure.subplots(1, len(chosen), squeeze=False)[0], chosen):
            points = pairs(records, task)
            for index, (label, score, value) in enumerate(points):
                name = f"{index + 1}  {NAMES[label]}"
                axes.plot(score, value, "o", color=figures.style_of(index)["color"], label=name)
                axes.annotate(str(index + 1), (score, value), fontsize=7, xytext=(4, 3), textcoords="offset points")
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), fontsize=7)
            axes.set(xlabel="state R² (ridge)", ylabel="final return", title=task)
            rank = spearmanr([p[1] for p in points], [p[2] for p in points]).statistic
            few = "" if len(points) >= FEW else ": too few for a conclusion"
            notes.append(f"- {task}: rank correlation {rank:.2f} over {len(points)} encoders{few}.")
    save(figure, HERE, "probe_against_return")
    return "\n\n".join(["\n".join(notes), "![probe against return](figures/probe_against_return.png)"])


def head_text(records: Records) -> str:
    """What ran, out of the records."""
    return (
        "# Encoders from demonstrations\n\nGenerated by `figures.py` from `data/`; each run's command, configuration "
        "and versions are in the first line of its file there. Every objective is pre-trained on random episodes, very "
        "noisy and noisy ones of an expert that learned from state (a third of each batch each), probed, and the task "
        "is learned on some of the frozen encoders from stored latents. Sizes are a CPU's (`sweep.yaml` says them), so "
        "nothing here compares with published numbers.\n"
    )


def summary(records: Records) -> str | None:
    """For the main README; None until a task has returns."""
    rows = return_rows(records)
    if not rows:
        return None
    return (
        "### Frozen encoders from demonstrations, small sizes\n\n"
        f"Evaluation return. Below {FEW} seeds a row is runs, not a result.\n\n{table(HEAD, rows)}\nProbes, "
        "curves and commands: [benchmarks/atc_demonstrations](benchmarks/atc_demonstrations/README.md).\n"
    )


SECTIONS = {
    "probe": Section("What the features know", probing, lambda head: True),
    "frozen": Section("Learning on frozen encoders", frozen, lambda head: True),
    "prediction": Section("Does the probe predict the return?", prediction, lambda head: True),
}


if __name__ == "__main__":
    sys.exit(evidence.main(__doc__, HERE, head_text, SECTIONS, summary))
