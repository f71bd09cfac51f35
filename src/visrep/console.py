"""What a person watching a run sees: a progress bar with an ETA on a terminal, plain lines everywhere else."""

from __future__ import annotations

import sys
import time
from collections import deque
from types import TracebackType
from typing import Self, TextIO

import psutil
from rich.console import Console as RichConsole
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

PLAIN_SECONDS = 5.0  # at most one plain progress line in this time
RATE_SECONDS = 60.0  # the rate, and with it the ETA, looks back over this time


def ram_bytes(process: psutil.Process | None = None) -> int:
    """Resident memory of a process, this one by default, and its children (environment workers), in bytes."""
    process = psutil.Process() if process is None else process
    total = int(process.memory_info().rss)
    for child in process.children(recursive=True):
        try:
            total += int(child.memory_info().rss)
        except psutil.NoSuchProcess:  # it ended between the listing and the reading
            continue
    return total


def format_seconds(seconds: float | None) -> str:
    """``None`` as ``?``, otherwise ``42s``, ``3m05s`` or ``2h07m``."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class Console:
    """Prints lines, and makes progress displays that do not tear those lines apart.

    Args:
        quiet: print nothing at all.
        stream: where to write; standard output by default. Its ``isatty`` decides between bar and plain lines.
    """

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.quiet = quiet
        self._stream = stream if stream is not None else sys.stdout
        self.interactive = not quiet and bool(getattr(self._stream, "isatty", lambda: False)())
        self._rich = RichConsole(file=self._stream, quiet=quiet, highlight=False) if self.interactive else None

    @property
    def rich(self) -> RichConsole | None:
        """The rich console behind a terminal; None where lines are plain."""
        return self._rich

    def line(self, text: str, style: str | None = None) -> None:
        """One line of text, shown above a running progress bar. ``style`` is a rich style such as ``yellow``."""
        if self.quiet:
            return
        if self._rich is not None:
            self._rich.print(Text(text, style=style or ""), soft_wrap=True)
        else:
            print(text, file=self._stream, flush=True)

    def progress(self, total: int, label: str, done: int = 0, unit: str = "agent steps") -> Progress:
        """A display that counts from ``done`` to ``total`` of a unit on this console."""
        return Progress(total, label, done=done, console=self, unit=unit)


class Progress:
    """Counts agent steps (or another unit) towards ``total``; shows label, rate, ETA and memory. A context manager.

    Args:
        total: the count at the end of the phase.
        label: name of the phase.
        done: what is already done when the display starts (a resumed run), left out of the rate.
        console: where to show it; a new one on standard output by default.
        unit: what is counted.
    """

    def __init__(
        self, total: int, label: str, *, done: int = 0, console: Console | None = None, unit: str = "agent steps"
    ) -> None:
        self.total, self.label, self.done, self.unit = total, label, done, unit
        self._console = console if console is not None else Console()
        self._marks: deque[tuple[float, int]] = deque([(time.monotonic(), done)])
        self._last_shown = time.monotonic()
        self._fields: dict[str, object] = {}
        self._bar: RichProgress | None = None

    @property
    def rate(self) -> float | None:
        """Units per second over about the last minute; None before the first."""
        (t0, n0), (t1, n1) = self._marks[0], self._marks[-1]
        return (n1 - n0) / (t1 - t0) if t1 > t0 and n1 > n0 else None

    @property
    def eta_seconds(self) -> float | None:
        """Seconds left at the current rate; None before the first step."""
        return max(0, self.total - self.done) / self.rate if self.rate else None

    def update(self, done: int, **fields: object) -> None:
        """Set the count to ``done``; ``fields`` are shown as ``name value`` and stay until they are replaced."""
        now = time.monotonic()
        self.done = done
        self._fields.update(fields)
        if now - self._marks[-1][0] >= 0.5 or len(self._marks) == 1:  # bounds the deque at two marks a second
            self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[0][0] > RATE_SECONDS:
            self._marks.popleft()
        # The terminal refreshes twice a second; reading the memory of all workers more often would cost time.
        if not self._console.quiet and now - self._last_shown >= (0.5 if self._bar else PLAIN_SECONDS):
            self._last_shown = now
            self._show()

    def _describe(self) -> str:
        parts = [
            f"{self.rate:,.0f} {self.unit}/s" if self.rate else f"? {self.unit}/s",
            f"ETA {format_seconds(self.eta_seconds)}",
        ]
        parts.append(f"RAM {ram_bytes() / 2**30:.1f} GiB")
        for name, value in self._fields.items():
            parts.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
        return "  ".join(parts)

    def _show(self) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self.done, note=self._describe())
            return
        share = 100.0 * self.done / max(1, self.total)
        self._console.line(f"{self.label}: {self.done:,}/{self.total:,} ({share:.0f} %)  {self._describe()}")

    def __enter__(self) -> Self:
        rich = self._console.rich
        if rich is not None:
            columns = (
                TextColumn("{task.description}", style="bold"),
                BarColumn(bar_width=24),
                TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
                TextColumn("{task.fields[note]}"),
            )
            self._bar = RichProgress(*columns, console=rich, refresh_per_second=2)
            self._bar.add_task(self.label, total=self.total, completed=self.done, note="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._console.quiet:
            self._show()
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
