"""The command line: ``visrep <command> key=value ...``; ``train.py`` is ``visrep train``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from visrep.errors import UserError, nearest

USAGE = """visrep: see first, act later

usage: visrep <command> [key=value ...]

  train      reward-free pre-training, then the task, in one run (the reference's command)
  pretrain   the reward-free phase alone; leaves model/encoder.safetensors
  finetune   the task phase alone, on encoder=<run directory or encoder.safetensors>
  evaluate   play episodes with a finished run's policy: run=<run directory> [episodes=10]
  report     one self-contained HTML page: run=<run directory>
  doctor     what this machine can run, and the line that mends each problem
  demo       the main job on the built-in arena, in minutes; writes runs/demo/report.html

visrep <command> --help lists the command's keys. Example:
  visrep train env=cheetah_run num_expl_steps=250000 num_train_steps=500000
"""

Command = Callable[[list[str]], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (0 done, 1 the user must mend something, 130 interrupted)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    name, rest = words[0], words[1:]
    commands = _commands()
    if name not in commands:
        near = nearest(name, commands)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        print(f"visrep: unknown command {name!r}.{hint} Known: {', '.join(commands)}", file=sys.stderr)
        return 1
    try:
        return commands[name](rest)
    except UserError as error:
        print(f"visrep {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"visrep {name}: interrupted", file=sys.stderr)
        return 130


def train_main() -> int:
    """Entry of ``python train.py``."""
    return main(["train", *sys.argv[1:]])


def _commands() -> dict[str, Command]:
    return {
        "train": lambda words: _run_command("train", words),
        "pretrain": lambda words: _run_command("pretrain", words),
        "finetune": lambda words: _run_command("finetune", words),
        "evaluate": _evaluate,
        "report": _report,
        "doctor": _doctor,
        "demo": _demo,
    }


def _run_command(command: str, words: list[str]) -> int:
    from visrep.config import default_run_dir, parse
    from visrep.config_help import help_text
    from visrep.console import Console
    from visrep.runs.pretrained import inherited_settings
    from visrep.runs.session import run

    if _wants_help(words):
        print(help_text(command))
        return 0
    base = inherited_settings(words) if command == "finetune" else {}
    config = parse(words, command, base)  # type: ignore[arg-type]
    folder = config.run.run_dir
    run_dir = Path(folder) if folder is not None else default_run_dir(words, datetime.now())
    outcome = run(config, command, run_dir, Console())  # type: ignore[arg-type]
    return 0 if outcome.finished else 130


def _evaluate(words: list[str]) -> int:
    from visrep.console import Console
    from visrep.runs.replay_policy import evaluate_run

    values = _simple_keys("evaluate", words, {"run": str, "episodes": int, "seed": int, "video": str})
    return evaluate_run(Console(), **values)


def _report(words: list[str]) -> int:
    from visrep.results.report import report_run

    values = _simple_keys("report", words, {"run": str})
    print(report_run(Path(values["run"])))
    return 0


def _doctor(words: list[str]) -> int:
    from visrep.config import parse
    from visrep.doctor import doctor

    return doctor(parse(words, "train"))


def _demo(words: list[str]) -> int:
    from visrep.runs.demo import demo

    values = _simple_keys("demo", words, {"run_dir": str, "seed": int, "num_expl_steps": int, "num_train_steps": int}, ())
    return demo(**values)


def _wants_help(words: list[str]) -> bool:
    return any(word in ("-h", "--help") for word in words)


def _simple_keys(
    words: list[str], types: Mapping[str, type], required: Sequence[str] = ("run",)
) -> dict[str, Any]:
    """``key=value`` words of a command that has a few keys of its own."""
    values: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or key not in types:
            near = nearest(key, types)
            raise UserError(f"{word!r}: known keys are {', '.join(types)}" + (f"; did you mean {near[0]}?" if near else ""))
        try:
            values[key] = types[key](text)
        except ValueError as error:
            raise UserError(f"{key}={text}: expected a {types[key].__name__}") from error
    for key in required:
        if key not in values:
            raise UserError(f"missing {key}=...")
    return values


if __name__ == "__main__":
    sys.exit(main())
