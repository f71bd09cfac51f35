"""DatasetWriter: collects episodes into a dataset so that a kill loses no episode that was finished and saved."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from visrep.data.columns import Index
from visrep.data.dataset import COLLECTING, MANIFEST, read_json, read_manifest, write_dataset
from visrep.data.files import Advice
from visrep.data.store import FrameStore, StoreSpec
from visrep.errors import UserError
from visrep.files import write_json_atomic

PROGRESS = "progress.json"
NOTHING = "nothing"  # in place of a value, where only one of two has the key


def finished_dataset(folder: Path) -> dict[str, Any] | None:
    """The manifest of the dataset that lies in ``folder``; None where none is finished there.

    The working files that a kill at the very end of ``DatasetWriter.finish`` left beside it are dropped.
    """
    if not (folder / MANIFEST).exists():
        return None
    shutil.rmtree(folder / COLLECTING, ignore_errors=True)
    return read_manifest(folder)


def unfinished_collection(folder: Path) -> dict[str, Any] | None:
    """The last checkpoint of a collection that is under way in ``folder``: its "identity", "lanes" and more; or None.

    Raises:
        UserError: it is damaged.
    """
    path = folder / COLLECTING / PROGRESS
    return read_json(path) if path.exists() else None


def differences(
    there: Mapping[str, Any], asked: Mapping[str, Any], now: str = "asked for", within: str = ""
) -> list[str]:
    """``key: value there, value asked for`` wherever two mappings of JSON values differ, inside of them as ``a.b``."""
    lines = []
    for key in dict.fromkeys([*there, *asked]):
        old, new = there.get(key, NOTHING), asked.get(key, NOTHING)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += differences(old, new, now, f"{within}{key}.")
        elif old != new:
            lines.append(f"{within}{key}: {old} there, {new} {now}")
    return lines


class DatasetWriter:
    """Rows on disk while they are collected, then a dataset.

    Add rows through ``store.add``. They lie in ``<folder>/collecting``; the finished episodes that ``checkpoint`` has
    seen survive a kill, and a writer made again with the same arguments goes on from there. Episodes that were under
    way are dropped then, so the next row of every lane must be a first row. ``finish`` writes the dataset.
    """

    def __init__(self, folder: Path, spec: StoreSpec, rows_per_lane: int, lanes: int, identity: dict[str, Any]) -> None:
        """Begin, or continue what lies in ``folder``.

        Args:
            folder: of the dataset; made if missing.
            spec: what a row holds.
            rows_per_lane: room; their disk space is claimed at once. A lane that is full takes no more rows.
            lanes: parallel environments.
            identity: JSON values that decide what is collected (environment, policy, seed). A collection is continued
                only with equal ones.

        Raises:
            UserError: the folder holds a finished dataset, or a collection of another identity, or damaged rows.
        """
        if finished_dataset(folder) is not None:
            raise UserError(f"{folder} holds a dataset already: choose another folder")
        self.folder = folder
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))
        self._working = folder / COLLECTING
        layout = {"store": spec.to_dict(), "rows_per_lane": rows_per_lane, "lanes": lanes}
        self._fixed = {"identity": self.identity, **json.loads(json.dumps(layout))}
        saved = self._saved()
        remedy = "restore it from a copy, or record into another folder"
        advice = Advice(remedy, remedy)
        self.store = FrameStore(spec, lanes * rows_per_lane, lanes, 0, "disk", self._rows, advice=advice)
        self.progress: dict[str, Any] = {}
        if saved is None:
            self.checkpoint({})
        else:
            self.store.load(self._rows, saved["state"])
            self.progress = saved["progress"]

    @property
    def _rows(self) -> Path:
        return self._working / "rows"

    @property
    def room(self) -> Index:
        """Rows that each lane still takes, [lanes]."""
        return self.store.rings.window - self.store.rings.counts

    @property
    def finished_episodes(self) -> Index:
        """Episodes of each lane that are over, [lanes]; after continuing, the number of the next one to collect."""
        counts = self._finished_rows()
        found = np.zeros(self.store.lanes, np.int64)
        for lane, count in enumerate(counts):
            positions = self.store.rings.positions(np.asarray(lane), np.arange(count))
            found[lane] = np.count_nonzero(self.store.episode_steps[positions] == 0)
        return found

    def checkpoint(self, progress: dict[str, Any]) -> None:
        """Make the episodes that are finished durable, with what the collector needs to go on.

        Args:
            progress: JSON values; ``self.progress`` after continuing.

        Raises:
            UserError: no space or no permission; the checkpoint before stays.
        """
        state = self.store.save(self._rows)
        state["counts"] = state["previous"] = self._finished_rows().tolist()
        write_json_atomic(self._working / PROGRESS, {**self._fixed, "progress": progress, "state": state})
        self.progress = progress

    def finish(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Write the dataset from the finished episodes and drop the working files; no rows may be added afterwards.

        Args:
            manifest: see ``write_dataset``, which also says what is returned and raised.
        """
        self.checkpoint(self.progress)
        saved = self._saved()
        assert saved is not None
        self.store.load(self._rows, saved["state"])
        whole = write_dataset(self.store, self.folder, manifest, replace=True)  # of a finish that was killed
        shutil.rmtree(self._working)
        return whole

    def _finished_rows(self) -> Index:
        """Rows of each lane up to the end of its last finished episode, [lanes]."""
        counts = self.store.rings.counts.copy()
        for lane in np.flatnonzero(counts):
            last = counts[lane] - 1
            if not self.store.read("is_last", [lane], [last])[0, 0]:
                counts[lane] -= self.store.episode_steps[self.store.rings.positions(np.asarray(lane), last)] + 1
        return counts

    def _saved(self) -> dict[str, Any] | None:
        saved = unfinished_collection(self.folder)
        if saved is None:
            return None
        fixed = {key: saved.get(key) for key in self._fixed}
        # The layout follows from the identity: it is named only where that does not explain it.
        wrong = differences(fixed["identity"] or {}, self.identity) or differences(fixed, self._fixed)
        if wrong:
            raise UserError(
                f"{self.folder} holds an unfinished collection of other data ({'; '.join(wrong)}): continue it with "
                "the settings that it was begun with, or choose another folder"
            )
        return saved
