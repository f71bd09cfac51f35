"""The rows of a store on disk, brought up to date at every save, and what keeps them whole when a run is killed.

On disk every lane is a ring of ``window + 2 * slack`` rows. A saved state needs the ``window`` rows before its row
count. With at most ``slack`` rows per lane between two saves, what is written after a save (by the next save, finished
or not, or at once through memory maps) lies outside the rows of that save and of the one before it. So both states stay
loadable at any moment; ``protect`` stops a run that would break this.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visrep.data.columns import Column, ColumnSpec, Index
from visrep.data.files import CHECKSUM, RUN_ADVICE, Advice, RowFiles, disk_errors
from visrep.data.ring import Rings
from visrep.errors import UserError

CHUNK_ROWS = 256


def checksums(values: list[NDArray[np.generic]]) -> NDArray[np.uint32]:
    """zlib.crc32 of each row over all columns in order; ``values`` are [n, ...] each, the result is [n]."""
    first, *rest = [np.ascontiguousarray(v).reshape(len(v), -1).view(np.uint8) for v in values]
    small = np.concatenate(rest, axis=1)
    codes = (zlib.crc32(b.data, zlib.crc32(a.data)) for a, b in zip(first, small))
    return np.fromiter(codes, np.uint32, len(first))


class Mirror:
    """The files of one store and the two states that they must be able to restore."""

    def __init__(
        self, columns: list[ColumnSpec], lanes: int, window: int, slack: int, advice: Advice = RUN_ADVICE
    ) -> None:
        """No file is touched before ``attach``, ``save`` or ``load``."""
        self._advice = advice
        self.column_specs = columns
        self.slack = slack
        self.rings = Rings(lanes, window, window + 2 * slack)
        self._files: RowFiles | None = None
        self._attached: dict[str, NDArray[Any]] = {}  # the maps that are the store's memory, if they are
        self._saved: Index | None = None  # row counts at the last save
        self._protected: Index | None = None  # row counts at the save before it

    @property
    def folder(self) -> Path | None:
        """Where the files lie; None before they are made or opened."""
        return None if self._files is None else self._files.folder

    def attach(self, folder: Path, writable: bool) -> dict[str, NDArray[Any]]:
        """Make or reopen the files and use them as the store's memory (storage "disk"); only reopen if not writable."""
        self._files = self._row_files(folder)
        if writable:
            self._files.create(reserve=True)
        else:
            self._files.check()
        self._attached = self._files.maps("r+" if writable else "r")
        return self._attached

    def protect(self, lanes: Index, counts: Index) -> None:
        """Raise RuntimeError if appending a row to ``lanes`` would overwrite rows of the last two saved states.

        Costs nothing to a store that was never saved.
        """
        if self._protected is None:
            return
        overwritten = counts - self.rings.ring
        if ((overwritten >= 0) & (overwritten >= self._protected[lanes] - self.rings.window)).any():
            raise RuntimeError(
                f"more rows were added since the last saves than the store's slack of {self.slack} rows per lane "
                "allows; going on would damage the saved states: save more often, or make the store with a larger slack"
            )

    def save(self, folder: Path, memory: Rings, columns: dict[str, Column]) -> dict[str, Any]:
        """Write what is new, wait for the disk, return the state. See ``FrameStore.save``."""
        files = self._files_in(folder)
        saved = self._saved
        first = memory.starts if saved is None else np.maximum(saved, memory.starts)
        new_rows = int((memory.counts - first).sum())
        with disk_errors("saving the replay rows in", files.folder, new_rows * files.nbytes // self._disk_rows):
            try:
                for lane in range(memory.lanes):
                    runs = memory.runs(lane, int(first[lane]), int(memory.counts[lane]), CHUNK_ROWS)
                    for row, position, count in runs:
                        values = [columns[c.name].read(position, position + count) for c in self.column_specs]
                        self._write(files, lane, row, values)
                for attached in self._attached.values():
                    attached.flush()  # type: ignore[attr-defined]
                files.flush()
            finally:
                files.close()
        self._protected = memory.counts.copy() if saved is None else saved
        self._saved = memory.counts.copy()
        return {**self._layout(), "counts": self._saved.tolist(), "previous": self._protected.tolist()}

    def load(self, folder: Path, state: dict[str, Any], memory: Rings, columns: dict[str, Column]) -> None:
        """Bring memory back to ``state``, verifying every row. See ``FrameStore.load``."""
        files = self._files
        if files is None or not self._attached:
            files = self._row_files(folder)
        self._check_layout(state, files.folder)
        files.check()
        maps = {name: values.reshape(self._disk_rows, -1) for name, values in files.maps("r").items()}
        memory.counts = np.asarray(state["counts"], np.int64)
        for lane in range(memory.lanes):
            first, last = int(memory.starts[lane]), int(memory.counts[lane])
            for row, position, count in self.rings.runs(lane, first, last, CHUNK_ROWS):
                values = {c.name: maps[c.name][position : position + count] for c in self.column_specs}
                found = checksums(list(values.values()))
                wrong = np.flatnonzero(found != maps[CHECKSUM.name][position : position + count, 0])
                if len(wrong):
                    raise UserError(
                        f"the rows in {files.folder} are damaged: row {row + int(wrong[0])} of lane {lane} does "
                        f"not match its checksum: {self._advice.damage}"
                    )
                if not self._attached:
                    target = memory.positions(np.asarray(lane), np.arange(row, row + count))
                    for name, rows in values.items():
                        columns[name].write(target, rows)
        self._files = files
        self._saved = memory.counts.copy()
        self._protected = np.asarray(state["previous"], np.int64)

    @property
    def _disk_rows(self) -> int:
        return self.rings.lanes * self.rings.ring

    def _files_in(self, folder: Path) -> RowFiles:
        folder = folder.resolve()
        if self._files is not None and (self._attached or self._files.folder == folder):
            return self._files
        if self._files is not None:
            raise ValueError(f"this store is saved in {self._files.folder}; use export for a copy in {folder}")
        files = self._row_files(folder)
        files.create(reserve=False)
        self._files = files
        return files

    def _row_files(self, folder: Path) -> RowFiles:
        return RowFiles(folder.resolve(), self.column_specs, self.rings.lanes, self.rings.ring, self._advice)

    def _write(self, files: RowFiles, lane: int, row: int, values: list[NDArray[np.generic]]) -> None:
        codes = checksums(values)
        done = 0
        for _, position, count in self.rings.runs(lane, row, row + len(codes), CHUNK_ROWS):
            part = slice(done, done + count)
            if not self._attached:
                for column, rows in zip(self.column_specs, values):
                    files.write(column, position, rows[part])
            files.write(CHECKSUM, position, codes[part])
            done += count

    def _layout(self) -> dict[str, Any]:
        columns = {c.name: [c.dtype, *c.shape] for c in self.column_specs}
        return {"lanes": self.rings.lanes, "window": self.rings.window, "ring": self.rings.ring, "columns": columns}

    def _check_layout(self, state: dict[str, Any], folder: Path) -> None:
        layout = self._layout()
        wrong = [f"{key}: saved {state.get(key)}, now {now}" for key, now in layout.items() if state.get(key) != now]
        if wrong:
            raise UserError(
                f"the rows in {folder} were saved with another layout ({'; '.join(wrong)}): {self._advice.layout}"
            )
