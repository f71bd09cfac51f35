"""What a run writes down: metrics.jsonl (the truth), train.csv, eval.csv and TensorBoard, all of them resumable.

Files and units follow the public Proto-RL code: CSV columns episode, episode_reward, fps, step come first, ``step`` and
TensorBoard's x axis count env frames (agent steps × action repeat), one row per finished episode or evaluation.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import torch
from torch import Tensor

from visrep.errors import UserError

Value = float | int | str | bool | None


class LineConsole(Protocol):
    """What the log needs from a console (``visrep.console.Console`` is one)."""

    def line(self, text: str, style: str | None = None) -> None:
        """Show one line."""


class RunLog:
    """Writes the run's records; each row reaches the operating system before the call returns.

    Nothing on disk is touched before the first record: a fresh run then starts its files empty (older ones of the same
    name are dropped, as in the reference), a resumed run calls ``load_state_dict`` first.

    Args:
        run_dir: the run directory, which must exist.
        action_repeat: env frames per agent step.
        tensorboard: also write scalars under ``run_dir/tb``.
        console: shows one line per episode and evaluation; None for silence.
        train_columns: columns of train.csv after the four of the reference, fixed for the whole run.
        eval_columns: columns of eval.csv after the three of the reference.
        unit: what ``count`` counts in every record. Where it is the objective's updates (pre-training on recorded
            experience, which has no agent steps) there are no episodes, hence no CSV files.
    """

    def __init__(
        self,
        run_dir: Path,
        action_repeat: int,
        tensorboard: bool = True,
        console: LineConsole | None = None,
        *,
        train_columns: Sequence[str] = (),
        eval_columns: Sequence[str] = (),
        unit: Literal["agent_step", "update"] = "agent_step",
    ) -> None:
        self.unit = unit
        self.run_dir, self.action_repeat, self.console = Path(run_dir), action_repeat, console
        self._columns: dict[str, tuple[str, ...]] = {}
        if unit == "agent_step":
            self._columns["train.csv"] = ("episode", "episode_reward", "fps", "step", *train_columns)
            self._columns["eval.csv"] = ("episode", "episode_reward", "step", *eval_columns)
        for name, columns in self._columns.items():
            if len(set(columns)) != len(columns):
                raise ValueError(f"{name}: a column is named twice in {list(columns)}")
        self._files: dict[str, BinaryIO] = {}
        self._tensorboard = _TensorBoard(self.run_dir / "tb") if tensorboard else None
        self._seconds_before = 0.0  # run time of the processes before this one
        self._clock_start = time.monotonic()

    # -- records ------------------------------------------------------------------------------------------------------

    def train(self, agent_step: int, episode: int, episode_reward: float, fps: float, **more: Value) -> None:
        """One finished training episode. ``fps`` is agent steps per second, ``more`` fills the declared columns."""
        head = {"episode": float(episode), "episode_reward": float(episode_reward), "fps": float(fps)}
        self._episode("train", agent_step, head, more)
        if self.console is not None:
            frames = agent_step * self.action_repeat
            text = f"| train | E: {episode} | S: {frames} | R: {episode_reward:.4f} | FPS: {fps:.4f}"
            self.console.line(text, "yellow")

    def evaluation(self, agent_step: int, episode: int, episode_reward: float, **more: Value) -> None:
        """One evaluation: ``episode_reward`` is the mean over its episodes."""
        head = {"episode": float(episode), "episode_reward": float(episode_reward)}
        self._episode("eval", agent_step, head, more)
        if self.console is not None:
            frames = agent_step * self.action_repeat
            self.console.line(f"| eval  | E: {episode} | S: {frames} | R: {episode_reward:.4f}", "green")

    def metrics(self, count: int, values: Mapping[str, float]) -> None:
        """Learner metrics (losses, rates, coverage ...) at one time; shown in TensorBoard as ``learner/<name>``."""
        self._json("metrics", count, dict(values))
        self._scalars("learner", count, values)

    def event(self, count: int, message: str, **fields: Any) -> None:
        """Something worth remembering (phase change, worker restarted); ``fields`` are further JSON values."""
        self._json("event", count, {"message": message, **fields})

    def warning(self, count: int, message: str) -> None:
        """An event that the user should see: also shown on the console."""
        self.event(count, f"warning: {message}")
        if self.console is not None:
            self.console.line(f"warning: {message}", "yellow")

    def _episode(self, kind: str, agent_step: int, head: dict[str, float], more: Mapping[str, Value]) -> None:
        name = f"{kind}.csv"
        unknown = sorted(set(more) - set(self._columns[name]))
        if unknown:
            raise ValueError(
                f"{name} has no column {', '.join(unknown)}: declare it when the log is made, as "
                f"RunLog(..., {kind}_columns=[...]); it has {', '.join(self._columns[name])}"
            )
        self._json(kind, agent_step, {**head, **more})
        row = {**head, "step": agent_step * self.action_repeat, **{k: _plain(v) for k, v in more.items()}}
        self._append(name, _csv_line([row.get(column) for column in self._columns[name]]))
        self._scalars(kind, agent_step, {**head, **more})

    def _json(self, kind: str, count: int, values: Mapping[str, Any]) -> None:
        record: dict[str, Any] = {"kind": kind, self.unit: int(count)}
        if self.unit == "agent_step":
            record["env_frames"] = int(count) * self.action_repeat
        record["seconds"] = round(self.seconds, 3)
        taken = sorted(set(values) & (set(record) | {"nonfinite"}))
        if taken:
            raise ValueError(f"metrics.jsonl keeps the names {', '.join(taken)} for itself; choose others")
        nonfinite = []
        for key, value in values.items():
            value = _plain(value)
            if isinstance(value, float) and not math.isfinite(value):
                nonfinite.append(key)
                value = None
            record[key] = value
        if nonfinite:
            record["nonfinite"] = nonfinite
        self._append("metrics.jsonl", (json.dumps(record, allow_nan=False) + "\n").encode())

    def _scalars(self, group: str, count: int, values: Mapping[str, Any]) -> None:
        if self._tensorboard is None:
            return
        for key, value in values.items():
            value = _plain(value)
            if isinstance(value, int | float):
                self._tensorboard.scalar(f"{group}/{key}", float(value), count * self.action_repeat)

    # -- files --------------------------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Run time so far, over all processes that worked on this run."""
        return self._seconds_before + time.monotonic() - self._clock_start

    def _append(self, name: str, line: bytes) -> None:
        self._start()
        self._files[name].write(line)
        self._files[name].flush()

    def _start(self) -> None:
        if self._files:
            return
        for name in ("metrics.jsonl", *self._columns):
            file = open(self.run_dir / name, "wb")  # noqa: SIM115  (kept open for the whole run)
            self._files[name] = file
            if name in self._columns:
                file.write(_csv_line(self._columns[name]))
                file.flush()
        if self._tensorboard is not None:
            self._tensorboard.clear()

    def state_dict(self) -> dict[str, Any]:
        """Bring every file to the disk (fsync) and return how long each one is at this moment."""
        self._start()
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        return {
            "bytes": {name: file.tell() for name, file in self._files.items()},
            "columns": {name: list(columns) for name, columns in self._columns.items()},
            "tensorboard": self._tensorboard.state_dict() if self._tensorboard is not None else None,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Cut every file back to its length at ``state_dict``, so that the run goes on as if never interrupted.

        Raises:
            UserError: a file is missing or shorter than the checkpoint says, or its columns differ.
        """
        assert not self._files, "load_state_dict must come before the first record"
        for name, columns in self._columns.items():
            if state["columns"][name] != list(columns):
                raise UserError(
                    f"{self.run_dir / name} has the columns {state['columns'][name]}, this version of the "
                    f"run would write {list(columns)}: start it in a new directory"
                )
        for name, length in state["bytes"].items():
            path = self.run_dir / name
            found = path.stat().st_size if path.exists() else 0
            if found < length:
                raise UserError(
                    f"{path} has {found} bytes but the checkpoint knows {length}: it was changed or removed "
                    "after the run stopped; put it back, or start in a new directory"
                )
        for name, length in state["bytes"].items():
            file = open(self.run_dir / name, "r+b")  # noqa: SIM115
            file.truncate(length)
            file.seek(length)
            self._files[name] = file
        if self._tensorboard is not None and state["tensorboard"] is not None:
            self._tensorboard.load_state_dict(state["tensorboard"])
        self._seconds_before, self._clock_start = float(state["seconds"]), time.monotonic()

    def close(self) -> None:
        """Flush and close everything; the log cannot be used afterwards."""
        for file in self._files.values():
            file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()


class _TensorBoard:
    """Event files that can be cut back to a checkpoint. The writer is made at the first scalar: its import is slow."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None
        self._last_frame = -1
        self._resumed = False

    def scalar(self, tag: str, value: float, env_frames: int) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # The purge hides from a TensorBoard that is already open what it has read beyond the checkpoint.
            self._writer = SummaryWriter(str(self._folder), purge_step=self._last_frame + 1 if self._resumed else None)
        self._last_frame = max(self._last_frame, env_frames)
        self._writer.add_scalar(tag, value, env_frames)

    def _event_files(self) -> list[Path]:
        return sorted(self._folder.glob("events.out.tfevents*")) if self._folder.is_dir() else []

    def clear(self) -> None:
        for path in self._event_files():
            path.unlink()

    def state_dict(self) -> dict[str, Any]:
        if self._writer is not None:
            self._writer.flush()
        return {"bytes": {p.name: p.stat().st_size for p in self._event_files()}, "last_frame": self._last_frame}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for path in self._event_files():
            length = state["bytes"].get(path.name)
            if length is None:
                path.unlink()
            elif path.stat().st_size > length:
                os.truncate(path, length)  # a record boundary: the writer was flushed there
        self._last_frame, self._resumed = int(state["last_frame"]), True

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class MetricAccumulator:
    """Means of metrics over many updates, added up where the tensors live so that no update waits for the device.

    One vector of sums is kept per distinct set of names: an addition is one ``stack`` and one ``add``. Plain numbers
    are added on the host.
    """

    def __init__(self) -> None:
        self._groups: dict[tuple[str, ...], tuple[Tensor, int]] = {}
        self._host: dict[str, tuple[float, int]] = {}

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        """Add one value per name; tensors must hold one number each and share a device."""
        tensors: dict[str, Tensor] = {}
        for name, value in values.items():
            if not isinstance(value, Tensor):
                total, count = self._host.get(name, (0.0, 0))
                self._host[name] = (total + float(value), count + 1)
            elif value.ndim == 0:
                tensors[name] = value.detach().float()
            else:
                raise ValueError(f"metric {name!r} has shape {list(value.shape)}; reduce it to one number first")
        if not tensors:
            return
        row = torch.stack(list(tensors.values()))
        if row.device.type != "mps":  # MPS has no float64
            row = row.double()
        names = tuple(tensors)
        if names in self._groups:
            sums, count = self._groups[names]
            self._groups[names] = (sums.to(row.device).add_(row), count + 1)
        else:
            self._groups[names] = (row, 1)

    def means(self) -> dict[str, float]:
        """Mean of every name since the last reset: waits for the device once. Empty when nothing was added."""
        totals = {name: total for name, (total, _) in self._host.items()}
        counts = {name: count for name, (_, count) in self._host.items()}
        if self._groups:
            sums = iter(torch.cat([group for group, _ in self._groups.values()]).tolist())
            for names, (_, count) in self._groups.items():
                for name in names:
                    totals[name] = totals.get(name, 0.0) + next(sums)
                    counts[name] = counts.get(name, 0) + count
        return {name: total / counts[name] for name, total in totals.items()}

    def reset(self) -> None:
        """Forget everything."""
        self._groups.clear()
        self._host.clear()

    def state_dict(self) -> dict[str, Any]:
        """Names, sums (copied to the CPU) and counts."""
        groups = [{"names": list(n), "sum": s.detach().cpu().clone(), "count": c} for n, (s, c) in self._groups.items()]
        return {"groups": groups, "host": {name: list(pair) for name, pair in self._host.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self._groups = {tuple(g["names"]): (g["sum"].clone(), int(g["count"])) for g in state["groups"]}
        self._host = {name: (float(total), int(count)) for name, (total, count) in state["host"].items()}


def _plain(value: Any) -> Any:
    """NumPy scalars and 0-d tensors as Python numbers; other values unchanged."""
    return value.item() if hasattr(value, "item") else value


def _csv_line(cells: Sequence[Any]) -> bytes:
    """One line as Python's ``csv`` writes it: floats in shortest exact form, nothing for None."""
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue().encode()
