"""A folder of .npy files, one per column, each [lanes, ring, ...]: opened, created, written and checked.

Row writes go through ``os.pwrite``, so a full disk is an error and not a SIGBUS; only reads use memory maps.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from visrep.data.columns import ColumnSpec
from visrep.errors import UserError

CHECKSUM = ColumnSpec("crc", (1,), "uint32")


@dataclass(frozen=True)
class Advice:
    """What messages about row files tell their owner to do.

    Attributes:
        damage: about files that are missing, damaged or truncated.
        layout: about files of other sizes than wanted.
    """

    damage: str
    layout: str


RUN_ADVICE = Advice(
    "restore it from a copy, resume from the checkpoint before, or start a new run in another run_dir",
    "use the settings that it was made with, or another run_dir",
)


@contextmanager
def disk_errors(action: str, path: Path, needed_bytes: int) -> Iterator[None]:
    """Turn the system's refusal to write into a message with the path, the bytes and the fix."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"disk full while {action} {path}: {needed_bytes:,} bytes are needed. Free space there or choose "
                "another folder; what was saved before is intact"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(f"no permission for {action} {path}: make the folder writable or choose another") from error
        raise


class RowFiles:
    """The column files of one store."""

    def __init__(
        self, folder: Path, columns: list[ColumnSpec], lanes: int, ring: int, advice: Advice = RUN_ADVICE
    ) -> None:
        """Describe the files; ``create`` or ``check`` them before use."""
        self.folder = folder
        self._advice = advice
        self.columns = [*columns, CHECKSUM]
        self.lanes = lanes
        self.ring = ring
        self._descriptors: dict[str, int] = {}

    def path(self, column: ColumnSpec) -> Path:
        """The file of one column."""
        return self.folder / f"{column.name.replace(':', '_')}.npy"

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(column.row_bytes for column in self.columns) * self.lanes * self.ring

    def create(self, reserve: bool) -> None:
        """Make the files that are missing; refuse those of another layout.

        Args:
            reserve: claim the disk space now (for memory maps, which cannot report a full disk later).
        """
        with disk_errors("making the replay files in", self.folder, self.nbytes):
            self.folder.mkdir(parents=True, exist_ok=True)
            for column in self.columns:
                path = self.path(column)
                if path.exists():
                    self._check_file(column)
                    continue
                unfinished = path.with_suffix(".new")
                try:
                    shape = (self.lanes, self.ring, *column.shape)
                    np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.dtype(column.dtype), shape=shape)
                    if reserve and hasattr(os, "posix_fallocate"):
                        with unfinished.open("r+b") as handle:
                            os.posix_fallocate(handle.fileno(), 0, unfinished.stat().st_size)
                    os.replace(unfinished, path)
                finally:
                    unfinished.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise UserError unless every file is there with the right layout and length."""
        for column in self.columns:
            self._check_file(column)

    def _check_file(self, column: ColumnSpec) -> None:
        path = self.path(column)
        if not path.exists():
            raise UserError(f"{path} is missing: {self._advice.damage}")
        try:
            memory = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:  # NumPy's words for a damaged header and a short file
            raise UserError(
                f"{path} is damaged or truncated ({path.stat().st_size:,} bytes): {self._advice.damage}"
            ) from error
        wanted = (self.lanes, self.ring, *column.shape)
        if memory.shape != wanted or memory.dtype != np.dtype(column.dtype):
            raise UserError(
                f"{path} holds {memory.dtype} {list(memory.shape)}, not {column.dtype} {list(wanted)} "
                f"([lanes, rows, ...]): {self._advice.layout}"
            )

    def maps(self, mode: Literal["r", "r+"]) -> dict[str, NDArray[Any]]:
        """Memory maps of the files by column name, each [lanes, ring, ...]."""
        return {c.name: np.load(self.path(c), mmap_mode=mode, allow_pickle=False) for c in self.columns}

    def write(self, column: ColumnSpec, position: int, rows: NDArray[np.generic]) -> None:
        """Write consecutive rows [n, ...] at a position of the flattened [lanes * ring] order."""
        descriptor = self._descriptors.get(column.name)
        if descriptor is None:
            descriptor = self._descriptors[column.name] = os.open(self.path(column), os.O_RDWR)
        total = self.lanes * self.ring * column.row_bytes
        header = os.fstat(descriptor).st_size - total
        data = memoryview(np.ascontiguousarray(rows, dtype=column.dtype).view(np.uint8).data).cast("B")
        offset = header + position * column.row_bytes
        while len(data):
            written = os.pwrite(descriptor, data, offset)
            data, offset = data[written:], offset + written

    def flush(self) -> None:
        """Wait until what was written is on the disk, then let go of the files."""
        for column in self.columns:
            descriptor = self._descriptors.pop(column.name, None)
            if descriptor is None:
                descriptor = os.open(self.path(column), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def close(self) -> None:
        """Let go of the files without waiting."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])
