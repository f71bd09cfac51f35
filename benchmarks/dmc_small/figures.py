"""Figures, tables, README.md and summary.md of the small DeepMind Control runs, from ``data/`` alone.

    python benchmarks/dmc_small/figures.py [coverage|return|collapse]   (all without a name)

``data/`` comes from ``run.py``. With fewer than five seeds every run is listed and nothing is called a result.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import evidence
from evidence import FEW, LAST, Records, Section, aggregated, at, cell, command, final, save, seeds, table
from visrep.results import figures
from visrep.results.curves import Curve

HERE = Path(__file__).parent
PROTO, SCRATCH, TIED, RANDOM = "proto", "drqv2_scratch", "proto_tied_temperature", "random"
NAMES = {
    PROTO: "Proto-RL",
    TIED: "Proto-RL, tied temperature",
    RANDOM: "random actions",
    SCRATCH: "DrQ-v2 from scratch",
}
SMALL = ("image_size", "encoder_channels", "batch_size", "hidden_dim", "num_protos", "updates_per_agent_step")
Curves = dict[str, list[Curve]]


def tasks(records: Records) -> list[str]:
    """Environments that have records."""
    return list(dict.fromkeys(rows[0]["group"] for rows in records))


def free_steps(records: Records, task: str) -> int:
    """Agent steps without reward at the start of the task's exploring runs."""
    heads = [rows[0] for rows in records if rows[0]["group"] == task and rows[0]["label"] != SCRATCH]
    return int(heads[0]["config"]["num_expl_steps"]) if heads else 0


def covered(records: Records, task: str) -> Curves:
    """Distinct state cells over the agent steps without reward."""
    found = evidence.groups(records, task, "metrics", "state_cells_visited", NAMES)
    found.pop(SCRATCH, None)
    return _cut(found, free_steps(records, task))


def returns(records: Records, task: str) -> Curves:
    """Evaluation returns over agent steps with reward: those of an exploring run begin where its reward does."""
    found = evidence.groups(records, task, "eval", "episode_reward", NAMES)
    start = free_steps(records, task)
    shifted = {PROTO: [Curve(c.x - start, c.values) for c in found.get(PROTO, [])], SCRATCH: found.get(SCRATCH, [])}
    learned = {label: [Curve(c.x[c.x >= 0], c.values[c.x >= 0]) for c in several] for label, several in shifted.items()}
    return {label: kept for label, several in learned.items() if (kept := [c for c in several if len(c.x)])}


def losses(records: Records, task: str) -> Curves:
    """The representation's loss while it is trained, with targets of their own temperature and of the tied one."""
    found = evidence.groups(records, task, "metrics", "repr_loss", NAMES)
    return _cut({label: found[label] for label in (PROTO, TIED) if label in found}, free_steps(records, task))


def _cut(curves: Mapping[str, Sequence[Curve]], end: float) -> Curves:
    return {label: [Curve(c.x[c.x <= end], c.values[c.x <= end]) for c in several] for label, several in curves.items()}


def uniform_loss(records: Records) -> tuple[str, float]:
    """Name and value of the loss where every image is assigned to all prototypes alike."""
    count = int(next(rows[0]["config"]["num_protos"] for rows in records if rows[0]["label"] == PROTO))
    return f"ln({count})", math.log(count)


def _draw(curves: Curves, task: str, name: str, ylabel: str, references: Mapping[str, float] | None = None) -> str:
    lines = list(aggregated(curves, NAMES).values())
    save(figures.aggregate_curves(lines, ylabel, task, references, (6.4, 3.8)), HERE, f"{task}_{name}")
    return f"![{ylabel}, {task}](figures/{task}_{name}.png)"


def compared(task: str, quantity: str, mine: Sequence[float], other: Sequence[float], name: str) -> str:
    """One line that says whether Proto-RL's mean is higher, lower or the same as the other's."""
    a, b = (sum(values) / len(values) for values in (mine, other))
    word = "the same as" if f"{a:.0f}" == f"{b:.0f}" else "higher than" if a > b else "lower than"
    count = min(len(mine), len(other))
    few = "" if count >= FEW else f", {count} seed{'s' * (count > 1)}: a run, not a result"
    return f"- {task}: Proto-RL's {quantity} is {word} that of {name} ({a:,.0f} against {b:,.0f}{few})."


def coverage(records: Records) -> str:
    """Distinct state cells that exploration visits."""
    rows, pictures, notes = [], [], []
    for task in tasks(records):
        curves, end = covered(records, task), free_steps(records, task)
        if not curves:
            continue
        pictures.append(_draw(curves, task, "coverage", "state cells visited"))
        rows += [[task, NAMES[label], seeds(c), f"{end:,}", cell(at(c, end))] for label, c in curves.items()]
        if PROTO in curves and RANDOM in curves:
            mine, other = at(curves[PROTO], end), at(curves[RANDOM], end)
            notes.append(compared(task, "number of cells", mine, other, NAMES[RANDOM]))
    text = (
        "Distinct cells of the privileged state (codes of a hash with 20 bits) visited without reward. A cell has no "
        "set size: counts compare runs of one task and say nothing between tasks."
    )
    head = ("task", "exploration", "seeds", "agent steps", "cells visited")
    return "\n\n".join([text, table(head, rows).strip(), "\n".join(notes), *pictures])


RETURN_HEAD = ("task", "arm", "seeds", "agent steps with reward", "final return", "best return")


def return_rows(records: Records) -> list[list[str]]:
    """Final and best evaluation return of every task and arm."""
    return [
        [task, NAMES[label], seeds(c), f"{min(curve.x[-1] for curve in c):,.0f}", cell(final(c)),
         cell([float(curve.values.max()) for curve in c])]
        for task in tasks(records) for label, c in returns(records, task).items()
    ]  # fmt: skip


def learning(records: Records) -> str:
    """Evaluation return over agent steps with reward."""
    pictures, notes = [], []
    for task in tasks(records):
        curves = returns(records, task)
        if not curves:
            continue
        pictures.append(_draw(curves, task, "return", "evaluation return"))
        if PROTO in curves and SCRATCH in curves:
            notes.append(compared(task, "final return", final(curves[PROTO]), final(curves[SCRATCH]), NAMES[SCRATCH]))
    explored = free_steps(records, tasks(records)[0])
    episodes = records[0][0]["config"]["num_eval_episodes"]
    text = (
        f"Returns of {episodes} evaluation episodes over agent steps with reward; Proto-RL had {explored:,} "
        "agent steps without reward before, which the axis does not count. Final is the mean of a run's last "
        f"{LAST} evaluations; best is its highest one, which favours whoever varies most."
    )
    return "\n\n".join([text, table(RETURN_HEAD, return_rows(records)).strip(), "\n".join(notes), *pictures])


def collapse(records: Records) -> str:
    """The representation's loss against that of an assignment which tells no images apart."""
    name, uniform = uniform_loss(records)
    rows, pictures = [], []
    for task in tasks(records):
        curves = losses(records, task)
        if not curves:
            continue
        pictures.append(_draw(curves, task, "collapse", "representation loss", {name: uniform}))
        rows += [[task, NAMES[label], seeds(c), cell([float(curve.values[-1]) for curve in c], 2)]
                 for label, c in curves.items()]  # fmt: skip
    text = (
        f"An encoder that maps all images to one point assigns each to all prototypes alike, at a loss of {name} = "
        f"{uniform:.2f}: a curve on that line tells no images apart. The tied temperature (Sinkhorn targets at the "
        "temperature of the predictions, as in the reference) is not what `preset=proto_dmc_small` has. The two losses "
        "have different targets, so only their distance to the line compares."
    )
    head = ("task", "exploration", "seeds", "loss at the end of exploration")
    return "\n\n".join([text, table(head, rows).strip(), *pictures])


def head_text(records: Records) -> str:
    """What ran, out of the records."""
    config = next((rows[0]["config"] for rows in records if rows[0]["label"] == PROTO), records[0][0]["config"])
    small = " ".join(f"{key}={config[key]}" for key in SMALL if key in config)
    lines = {command(rows[0]).replace(f"env={rows[0]['group']}", "env=TASK") for rows in records}
    return (
        "# DeepMind Control on a CPU\n\nGenerated by `figures.py` from `data/`; each run's command, configuration and "
        "versions are in the first line of its file there. `preset=proto_dmc_small` is smaller than the paper's "
        f"setting (`{small}`), so nothing here compares with published numbers. The commands:\n\n```\n"
        + "\n".join(sorted(lines)) + "\n```\n"
    )  # fmt: skip


def summary(records: Records) -> str | None:
    """For the main README; None until a task has returns."""
    rows = []
    for row in return_rows(records):
        found = covered(records, row[0])
        label = next(key for key, name in NAMES.items() if name == row[1])
        cells = cell(at(found[label], free_steps(records, row[0]))) if label in found else "–"
        random = cell(at(found[RANDOM], free_steps(records, row[0]))) if RANDOM in found and label in found else "–"
        rows.append([*row[:3], *row[4:], cells, random])
    if not rows:
        return None
    steps = " or ".join(sorted({row[3] for row in return_rows(records)}))
    head = (*RETURN_HEAD[:3], *RETURN_HEAD[4:], "cells visited without reward", "cells of random actions")
    return (
        "### DeepMind Control on a CPU, small preset\n\nEvaluation return after "
        f"{steps} agent steps with reward (final: mean of the last {LAST} evaluations). Below {FEW} seeds a row is a "
        "run, not a result; images and networks are smaller than the paper's.\n\n"
        f"{table(head, rows)}\nCurves, commands and the loss with the reference's tied temperature: "
        "[benchmarks/dmc_small](benchmarks/dmc_small/README.md).\n"
    )


SECTIONS = {
    "coverage": Section("What exploration covers", coverage, lambda head: head["label"] != SCRATCH),
    "return": Section("Learning the task", learning, lambda head: True),
    "collapse": Section("Does the representation collapse?", collapse, lambda head: head["label"] in (PROTO, TIED)),
}


if __name__ == "__main__":
    sys.exit(evidence.main(__doc__, HERE, head_text, SECTIONS, summary))
