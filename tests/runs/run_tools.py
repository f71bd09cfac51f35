"""Starting, killing and comparing small runs.

Runs happen in processes forked from one server that has imported everything, so that a kill costs no new imports.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from visrep.envs.make import ENV_SUITES, Suite
from visrep.envs.toy import ToyMaze
from visrep.runs.checkpoints import CheckpointStore

# A run of a second: short, small, and with nothing that other tests look at.
SMALL = (
    "preset=toy_maze+tiny", "env=short/toy", "num_envs=1", "updates_per_agent_step=0.25", "threads=1",
    "num_expl_steps=120", "num_train_steps=240", "num_random_steps=24", "num_seed_steps=24", "batch_size=12",
    "hidden_dim=16", "eval_frequency=100", "log_frequency_step=20", "checkpoint_frequency=40", "save_frequency=80",
    "keep=actor", "log_save_tb=false", "save_video=false", "image_size=16",
)  # fmt: skip
TIMES = ("seconds", "fps", "agent_steps_per_second", "updates_per_second", "ram_bytes")
SERVER = multiprocessing.get_context("forkserver")
# The first optimiser would import torch._dynamo, which takes a second.
SERVER.set_forkserver_preload(["visrep.cli", "visrep.runs.session", "torch._dynamo"])


class ShortToy(ToyMaze):
    """The open arena with episodes of 30 agent steps."""

    def __init__(self, **options: Any) -> None:
        super().__init__("open_center", **options)
        self.max_agent_steps = 30


def make_short(
    image_size: int = 84,
    action_repeat: int = 1,
    render: str = "auto",
    camera: int | None = None,
    seed: int = 0,
) -> ShortToy:
    """``env=run_tools:make_short``: vectors do not know it to be cheap, so more than one get worker processes."""
    return ShortToy(image_size=image_size, action_repeat=action_repeat, seed=seed)


def make(task: str, **options: Any) -> ShortToy:
    """``env=short/toy``, a suite of its own (see ``add_suite``) that is cheap: vectors stay in the process."""
    return make_short(**options)


def list_tasks() -> list[str]:
    """Tasks of the suite."""
    return ["toy"]


def add_suite(monkeypatch: Any = None) -> None:
    """Make ``short/toy`` known, for good or until ``monkeypatch`` is undone."""
    if monkeypatch is None:
        ENV_SUITES["short"] = Suite("run_tools", cheap=True)
    else:
        monkeypatch.setitem(ENV_SUITES, "short", Suite("run_tools", cheap=True))


def words(run_dir: Path | str | None, *more: str) -> list[str]:
    """The small run's ``key=value`` words; later ones replace earlier ones."""
    keys = {word.partition("=")[0]: word for word in (*SMALL, *more)}
    return [*keys.values(), *([] if run_dir is None else [f"run_dir={run_dir}"])]


def start(
    command: Sequence[str], die_at: int | None = None, region: str = "save", count_file: Path | None = None
) -> Any:
    """Start ``visrep <command>`` in a process of its own and return that process; see ``_count_events``."""
    process = SERVER.Process(target=_child, args=(list(command), die_at, region, count_file))
    process.start()
    return process


def finish(process: Any, seconds: float = 120.0) -> int:
    """Wait for the process; its exit status, negative where a signal ended it."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"the run did not end within {seconds:.0f} s")
    return int(process.exitcode)


def _child(command: list[str], die_at: int | None, region: str, count_file: Path | None) -> None:
    from visrep.cli import main

    add_suite()
    events = 0
    if die_at is not None or count_file is not None:
        events_seen = _count_events(region, die_at)
        status = main(command)
        events = events_seen()
    else:
        status = main(command)
    if count_file is not None:
        count_file.write_text(str(events))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _count_events(region: str, die_at: int | None) -> Any:
    """Count calls and returns of functions, C functions included, inside ``region``; SIGKILL this process at one.

    Regions: "save" is the writing of checkpoints with everything that belongs to them; "step 50" everything after agent
    step 50; "torn checkpoint", "torn rows", "torn model" and "torn video" count the writes of such files and kill with
    half of one written.
    """
    import visrep.runs.session as session

    if region.startswith("torn "):
        assert die_at is not None
        _tear(region.removeprefix("torn "), die_at)
        return lambda: 0
    events = 0

    def profile(*_: object) -> None:
        nonlocal events
        events += 1
        if events == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint, stepped = session._checkpoint, session.Monitor.stepped

    def counted(*arguments: Any) -> None:
        sys.setprofile(profile)
        try:
            checkpoint(*arguments)
        finally:
            sys.setprofile(None)

    def counted_from(monitor: Any, step: Any) -> None:
        stepped(monitor, step)
        if monitor.counters.agent_step >= int(region.removeprefix("step ")):
            sys.setprofile(profile)

    if region == "save":
        session._checkpoint = counted
    else:
        session.Monitor.stepped = counted_from  # type: ignore[method-assign]
    return lambda: events


def _tear(what: str, nth: int) -> None:
    """SIGKILL this process when half of the n-th file of a kind has been written."""
    import visrep.data.files
    import visrep.files
    import visrep.runs.checkpoints
    import visrep.video

    if what == "video":  # written by a library: what is left is a whole file that has not got its name yet
        visrep.video.os = SimpleNamespace(getpid=os.getpid, replace=lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        return
    module: Any = {"checkpoint": visrep.runs.checkpoints, "model": visrep.files, "rows": visrep.data.files.os}[what]
    name = "pwrite" if what == "rows" else "write_synced"
    original, left = getattr(module, name), nth

    def write(target: Any, data: Any, *offset: int) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            if offset:
                original(target, bytes(data[: len(data) // 2]), *offset)
            else:
                target.write_bytes(bytes(data[: len(data) // 2]))
            os.kill(os.getpid(), signal.SIGKILL)
        return original(target, data, *offset)

    setattr(module, name, write)


# -- what a run left --------------------------------------------------------------------------------------------------


def rows(path: Path) -> list[dict[str, str]]:
    """A CSV file's rows without their times."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{key: text for key, text in row.items() if key not in TIMES} for row in csv.DictReader(file)]


def records(run_dir: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl without times, speeds and memory."""
    lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIMES} for line in lines]


def events(run_dir: Path) -> list[str]:
    """Messages of the recorded events."""
    return [record["message"] for record in records(run_dir) if record["kind"] == "event"]


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file."""
    return load_file(path)


def final_state(run_dir: Path) -> dict[str, Any]:
    """The newest checkpoint, without what counts time and the length of files that hold times."""
    state = CheckpointStore(run_dir / "state").load()
    for part in ("bytes", "seconds", "tensorboard"):
        del state["parts"]["log"][part]
    return state


def stored_rows(run_dir: Path, phase: str, state: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Every readable replay row of a phase by column, lane after lane, oldest first."""
    found = [run_dir / "state" / f"store-{phase}{kind}" for kind in ("-live", "")]
    folder = next(path for path in found if path.is_dir())
    columns = {}
    for file in sorted(folder.glob("*.npy")):
        rings = np.load(file, mmap_mode="r")  # [lanes, ring, ...]
        kept = [
            rings[lane][np.arange(max(0, count - state["window"]), count) % state["ring"]]
            for lane, count in enumerate(state["counts"])
        ]
        columns[file.stem] = np.concatenate(kept)
    return columns


def assert_same_run(one: Path, other: Path, saves_differ: bool = False) -> None:
    """Everything that two runs left is equal bit for bit, but for times.

    Args:
        one: a run directory.
        other: another.
        saves_differ: one of them saved at other moments (Ctrl-C), so the row counts at the save before differ.
    """
    models = sorted(path.name for path in (one / "model").iterdir())
    assert models == sorted(path.name for path in (other / "model").iterdir())
    for name in models:
        assert_same(tensors(one / "model" / name), tensors(other / "model" / name), name)
    first, second = final_state(one), final_state(other)
    assert_same(
        stored_rows(one, "finetune", first["parts"]["store"]),
        stored_rows(other, "finetune", second["parts"]["store"]),
        "rows",
    )
    if saves_differ:
        for state in (first, second):
            del state["parts"]["store"]["previous"]
    assert_same(first, second, "state")
    for name in ("train.csv", "eval.csv"):
        assert rows(one / name) == rows(other / name), name
    assert records(one) == records(other)
    assert [p.name for p in sorted((one / "video").iterdir())] == [p.name for p in sorted((other / "video").iterdir())]
    for video in (one / "video").iterdir():
        assert video.read_bytes() == (other / "video" / video.name).read_bytes(), video.name


def assert_same(one: Any, other: Any, where: str) -> None:
    """Nested plain data, tensors and arrays are equal bit for bit; says where they are not."""
    for path, left, right in _differences(one, other, where):
        raise AssertionError(f"{path} differs: {left} and {right}")


def _differences(one: Any, other: Any, where: str) -> Iterator[tuple[str, str, str]]:
    if type(one) is not type(other):
        yield where, f"a {type(one).__name__}", f"a {type(other).__name__}"
    elif isinstance(one, dict):
        if list(one) != list(other):
            yield where, str(list(one)), str(list(other))
            return
        for key in one:
            yield from _differences(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        if len(one) != len(other):
            yield where, f"{len(one)} items", f"{len(other)} items"
            return
        for index, (left, right) in enumerate(zip(one, other)):
            yield from _differences(left, right, f"{where}[{index}]")
    elif isinstance(one, torch.Tensor | np.ndarray):
        left, right = np.ascontiguousarray(one), np.ascontiguousarray(other)
        if (left.dtype, left.shape) != (right.dtype, right.shape) or left.tobytes() != right.tobytes():
            yield where, _summary(left), _summary(right)
    elif one != other and not (one != one and other != other):  # NaN is itself here
        yield where, repr(one)[:80], repr(other)[:80]


def _summary(array: np.ndarray[Any, Any]) -> str:
    return f"{array.dtype} {list(array.shape)} {array.reshape(-1)[:4].tolist()}"
