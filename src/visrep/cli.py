"""The command line: ``visrep <command> key=value ...``; ``train.py`` is ``visrep train``."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from visrep.command_keys import OWN_KEYS, read_keys
from visrep.command_keys import help_text as own_help_text
from visrep.errors import EXIT_STATUS, UserError, nearest

USAGE = """visrep: see first, act later

usage: visrep <command> [key=value ...]

  train      reward-free pre-training, then the task, in one run (the reference's command)
  pretrain   the reward-free phase alone; leaves model/encoder.safetensors
  finetune   the task phase alone, on encoder=<run directory or encoder.safetensors>
  evaluate   play episodes with a finished run's policy: run=<run directory> [episodes=10]
  report     one self-contained HTML page: run=<run directory>
  compare    one page for many runs, seeds as groups with intervals: runs=<folders or patterns> [by=method,...]
  collect    record episodes into a dataset: env=<env> out=<folder> episodes=<n> [policy=random|<run>] [num_envs=4]
             or save a run's replay whole: replay=<run directory> out=<folder> [phase=pretrain|finetune]
  sweep      many runs from one file, side by side, and their table: file=<sweep.yaml> [status=true]
  probe      what an encoder knows, before any RL: encoder=<run or file>[,...] data=<dataset> [samples=10000]
  export     an encoder for other code: encoder=<run or file> to=onnx|standalone|sb3|torchrl [out=<path>]
  doctor     what this machine can run, and the line that mends each problem
  demo       the main job on the built-in arena, in minutes; writes runs/demo/report.html

visrep <command> --help lists the command's keys. Example:
  visrep train env=cheetah_run num_expl_steps=250000 num_train_steps=500000
"""

Command = Callable[[list[str]], int]
RUNS = ("train", "pretrain", "finetune")  # commands that write checkpoints

# What the system refuses for reasons that lie outside of the program.
SYSTEM_REFUSALS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENAMETOOLONG}
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed, 2 the user must mend something, 130 interrupted."""
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
        return EXIT_STATUS
    if _wants_help(rest):
        print(_help(name))
        return 0
    try:
        return commands[name](rest)
    except UserError as error:
        print(f"visrep {name}: {error}", file=sys.stderr)
        return EXIT_STATUS
    except OSError as error:
        if error.errno not in SYSTEM_REFUSALS:
            raise
        hint = "; the newest checkpoint is as it was, the same command continues from it" if name in RUNS else ""
        print(f"visrep {name}: {error}{hint}", file=sys.stderr)
        return EXIT_STATUS
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
        "compare": _compare,
        "collect": _collect,
        "sweep": _sweep,
        "probe": _probe,
        "export": _export,
        "doctor": _doctor,
        "demo": _demo,
    }


def _run_command(command: Literal["train", "pretrain", "finetune"], words: list[str]) -> int:
    from visrep.allocator import keep_freed_memory
    from visrep.config import default_run_dir, parse
    from visrep.console import Console
    from visrep.runs.offline import pretrain_on_data
    from visrep.runs.pretrained import dataset_settings, inherited_settings
    from visrep.runs.session import run

    base = inherited_settings(words) if command == "finetune" else dataset_settings(words)
    config = parse(words, command, base)
    folder = config.run.run_dir
    run_dir = Path(folder).expanduser() if folder is not None else default_run_dir(words, datetime.now())
    keep_freed_memory()
    if config.run.data is not None:
        finished = pretrain_on_data(config, run_dir, Console())
    else:
        finished = run(config, command, run_dir, Console())
    return 0 if finished else 130


def _evaluate(words: list[str]) -> int:
    from visrep.console import Console
    from visrep.runs.replay_policy import evaluate_run

    return evaluate_run(Console(), **read_keys("evaluate", words))


def _report(words: list[str]) -> int:
    from visrep.results.report import report_run

    print(report_run(Path(read_keys("report", words)["run"])))
    return 0


def _compare(words: list[str]) -> int:
    from visrep.results.comparison import report_runs
    from visrep.results.grouping import find_runs, group_labels

    keys = read_keys("compare", words)
    runs = find_runs(keys["runs"])
    by = [key.strip() for key in keys.get("by", "").split(",") if key.strip()]
    print(report_runs(runs, group_labels(runs, by), Path(keys.get("out", "comparison.html")).expanduser()))
    return 0


def _probe(words: list[str]) -> int:
    from visrep.console import Console
    from visrep.probes.run import probe
    from visrep.runs.compose import choose_device
    from visrep.runs.directory import command_line, versions

    keys = read_keys("probe", words)
    device, _ = choose_device(keys.pop("device", "auto"))
    provenance = {"command": command_line(), "versions": versions(), "device": str(device)}
    probe(provenance=provenance, console=Console(), device=device, **keys)
    return 0


def _export(words: list[str]) -> int:
    from visrep.export.targets import export_encoder

    print(export_encoder(**read_keys("export", words)))
    return 0


def _collect(words: list[str]) -> int:
    from visrep.collecting.collect import collect
    from visrep.collecting.replay import ReplayRequest, collect_replay
    from visrep.collecting.request import Request
    from visrep.console import Console

    keys = read_keys("collect", words)
    replay = ReplayRequest.of(keys)
    return collect(Console(), Request(**keys)) if replay is None else collect_replay(Console(), replay)


def _sweep(words: list[str]) -> int:
    from visrep.sweeps.command import sweep

    return sweep(**read_keys("sweep", words))


def _doctor(words: list[str]) -> int:
    from visrep.config import parse
    from visrep.doctor import doctor

    return doctor(parse(words, "train"))


def _demo(words: list[str]) -> int:
    from visrep.runs.demo import demo

    return demo(**read_keys("demo", words))


def _wants_help(words: list[str]) -> bool:
    return any(word in ("-h", "--help") for word in words)


def _help(name: str) -> str:
    from visrep.config_help import help_text

    if name in OWN_KEYS:
        return own_help_text(name)
    if name == "doctor":
        return "visrep doctor [key=value ...]: judges this machine by the keys of a run, see visrep train --help"
    return help_text(name)  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())
