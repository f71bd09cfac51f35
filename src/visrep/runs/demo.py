"""The main job on the built-in arena, in minutes: explore without reward, learn a task on top, compare with controls.

Two controls run meanwhile in one process in the background, so the demo keeps two cores busy: uniform random actions
for the exploration, and DrQ-v2 from scratch for the task.
"""

from __future__ import annotations

import contextlib
import html
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from visrep.config import Command, Config, parse
from visrep.console import Console
from visrep.errors import UserError
from visrep.results import figures
from visrep.results.curves import Curve, curve_from_rows, read_rows
from visrep.results.page import Section, drawing, gallery, paragraph, table, write_report
from visrep.results.report import report_run, run_pictures, run_videos
from visrep.runs.pretrained import inherited_settings
from visrep.runs.session import run

EXPLORATION_STEPS = 45_000
TASK_STEPS = 20_000
HIGH = 0.9
LAST = 3  # evaluations that make up the final success: one alone is noisy
COMMON = ("device=cpu", "threads=1", "log_save_tb=false")
# The goal is met seldom at first: 3-step returns and a quicker target critic carry its reward back in time.
LEARN = ("updates_per_agent_step=0.125", "n_step=3", "critic_target_tau=0.05")
EVALUATE = ("eval_frequency=2000", "num_eval_episodes=10")
MAIN = ("explore", "task")
CONTROLS = ("random", "scratch")
LOG = "controls.log"
HEAD = ("", "agent steps", "Proto-RL, then the task", "control")
Results = list[tuple[str, ...]]  # rows under HEAD


@dataclass(frozen=True)
class Demo:
    """The four runs of a demo; ``folder`` holds a directory for each.

    Attributes:
        folder: of the whole demo.
        seed: of every run.
        exploration_steps: agent steps without reward.
        task_steps: agent steps with reward.
    """

    folder: Path
    seed: int
    exploration_steps: int
    task_steps: int

    def settings(self, name: str) -> tuple[Command, Config]:
        """Command and configuration of one run; the task's are known once the exploration has begun."""
        explores = (f"num_expl_steps={self.exploration_steps}", "num_eval_episodes=0")
        learns = (f"num_train_steps={self.task_steps}", *LEARN, *EVALUATE)
        words: dict[str, tuple[Command, tuple[str, ...]]] = {
            "explore": ("pretrain", ("preset=toy_maze", *explores)),
            "random": ("pretrain", ("preset=toy_maze", "method=random", *explores)),
            # The explorer knows its way already: no uniform actions to begin with.
            "task": ("finetune", (f"encoder={self.folder / 'explore'}", "num_random_steps=0", "intr_coef=1", *learns)),
            "scratch": (
                "finetune",
                ("preset=toy_maze+drqv2_toy", f"std_schedule=linear(1.0,0.1,{self.task_steps // 2})", *learns),
            ),
        }
        command, chosen = words[name]
        everything = [*chosen, *COMMON, f"seed={self.seed}"]
        return command, parse(everything, command, inherited_settings(everything))

    def run(self, name: str, console: Console) -> bool:
        """Begin, continue or recognise as finished one run; False when it was interrupted."""
        command, config = self.settings(name)
        return run(config, command, self.folder / name, console, console_episodes=False)

    def curve(self, name: str, kind: str, key: str) -> Curve:
        """A recorded share of one run in per cent."""
        curve = curve_from_rows(read_rows(self.folder / name, kind), key)
        return Curve(curve.x, 100.0 * curve.values)

    def minutes(self) -> float:
        """Run time of the main job, over all invocations."""
        return sum(max(row["seconds"] for row in read_rows(self.folder / name)) for name in MAIN) / 60.0


def demo(
    run_dir: str = "runs/demo",
    seed: int = 1,
    num_expl_steps: int = EXPLORATION_STEPS,
    num_train_steps: int = TASK_STEPS,
) -> int:
    """Run the demo, or go on with it; returns the exit status (0 finished, 130 interrupted).

    Args:
        run_dir: folder for its four run directories and report.html.
        seed: of every run.
        num_expl_steps: agent steps of exploration without reward.
        num_train_steps: agent steps of the task, with reward.
    """
    job, console = Demo(Path(run_dir), seed, num_expl_steps, num_train_steps), Console()
    titles = ("1/2  explore the arena without reward: Proto-RL", "2/2  learn to reach its centre on the frozen encoder")
    with _controls_beside(job) as controls:
        for name, title in zip(MAIN, titles):
            console.line(f"\n{title}")
            if not job.run(name, console):
                return 130
        _wait(controls, job, console)
    rows = _results(job)
    _print_table(rows, console)
    console.line(f"{job.minutes():.1f} minutes for both phases; pictures in {_report(job, rows)}")
    return 0


# -- the controls -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _controls_beside(job: Demo) -> Iterator[subprocess.Popen[bytes]]:
    """Run the controls in a process of their own; when the block is left they write a checkpoint and end too."""
    job.folder.mkdir(parents=True, exist_ok=True)
    numbers = [str(n) for n in (job.seed, job.exploration_steps, job.task_steps)]
    command = [sys.executable, "-m", "visrep.runs.demo", str(job.folder), *numbers]
    with open(job.folder / LOG, "wb") as log:
        # A session of its own: Ctrl-C reaches the controls once, from here.
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait()


def _wait(controls: subprocess.Popen[bytes], job: Demo, console: Console) -> None:
    log = job.folder / LOG
    if controls.poll() is None:
        console.line(f"waiting for the controls, whose progress is in {log}")
    if controls.wait() != 0:
        raise UserError(f"the control runs ended with status {controls.returncode}: {log} says why")


def _run_controls(job: Demo) -> int:
    """What the background process does; it stops when the demo's own process is gone."""
    demo_process = os.getppid()

    def watch() -> None:
        while os.getppid() == demo_process:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()
    return 0 if all(job.run(name, Console()) for name in CONTROLS) else 130


# -- what came out ----------------------------------------------------------------------------------------------------


def _results(job: Demo) -> Results:
    def first(curve: Curve) -> str:
        steps = [x for x, value in zip(curve.x, curve.values) if value >= 100.0 * HIGH]
        return f"{steps[0]:,.0f} steps" if steps else "never"

    covered = [job.curve(name, "metrics", "state_coverage") for name in ("explore", "random")]
    success = [job.curve(name, "eval", "success") for name in ("task", "scratch")]
    reach = f"episodes that reach the centre, last {LAST} evaluations"
    return [
        ("cells visited without reward", f"{job.exploration_steps:,}", *(f"{c.values[-1]:.0f} %" for c in covered)),
        (reach, f"{job.task_steps:,}", *(f"{c.values[-LAST:].mean():.0f} %" for c in success)),
        (f"first evaluation with at least {100 * HIGH:.0f} %", "", *(first(c) for c in success)),
    ]


def _print_table(rows: Results, console: Console) -> None:
    widths = [max(len(row[column]) for row in (HEAD, *rows)) for column in range(len(HEAD))]
    console.line("")
    for row in (HEAD, *rows):
        console.line("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    console.line("controls: uniform random actions (cells), DrQ-v2 from scratch (centre)")


def _report(job: Demo, rows: Results) -> Path:
    """The page: results, curves, pictures, videos, and a page of its own for every run."""
    links = [
        f'<a href="{name}/{report_run(job.folder / name).name}">{html.escape(title)}</a>'
        for name, title in (
            ("explore", "exploration with Proto-RL"), ("task", "the task on top of it"),
            ("random", "control: random actions"), ("scratch", "control: DrQ-v2 from scratch"),
        )
    ]  # fmt: skip
    text = paragraph(
        "A point in an arena of three rooms sees itself only as a small picture. First it explores without any reward: "
        "Proto-RL learns a representation of the pictures and pays the agent for what is new in it. Then the encoder "
        "is frozen and the agent learns to reach the centre of the arena, which only now pays a reward. The controls "
        "are uniform random actions for the first part, and DrQ-v2, which has the reward alone, for the second."
    )
    sections = [
        Section("Results", [text, table(HEAD, rows), _curves(job)]),
        Section("Where it went", run_pictures(job.folder / "explore")),
        Section("The task on top", run_videos(job.folder / "task")),
        Section("Random actions instead", run_pictures(job.folder / "random")),
        Section("Every number of the runs", ["<p>" + ", ".join(links) + "</p>"]),
    ]
    steps = f"{job.exploration_steps:,} agent steps without reward and {job.task_steps:,} with it"
    subtitle = f"{steps}, seed {job.seed}, {job.minutes():.1f} minutes"
    return write_report(job.folder / "report.html", sections, "See first, act later", subtitle)


def _curves(job: Demo) -> str:
    """Coverage and success against their controls."""
    plots = []
    for kind, key, ylabel, pair, caption in (
        ("metrics", "state_coverage", "visited cells (%)", {"explore": "Proto-RL", "random": "random actions"},
         "Share of the arena's cells visited so far, without reward"),
        ("eval", "success", "success (%)", {"task": "on the pre-trained encoder", "scratch": "DrQ-v2 from scratch"},
         "Share of 10 evaluation episodes that reach the centre, over agent steps with reward"),
    ):  # fmt: skip
        curves = {label: job.curve(name, kind, key) for name, label in pair.items()}
        plots.append(drawing(figures.inline_svg(figures.run_curves(curves, ylabel), caption), caption))
    return gallery(plots)


if __name__ == "__main__":
    folder, *counts = sys.argv[1:]
    sys.exit(_run_controls(Demo(Path(folder), *map(int, counts))))
