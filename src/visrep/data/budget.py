"""Bytes that a run's experience needs, against what the machine has, before the run starts."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import torch

from visrep.data.files import CHECKSUM
from visrep.data.store import StoreSpec
from visrep.errors import UserError

Storage = Literal["ram", "disk", "device"]
Place = Literal["RAM", "disk", "GPU"]

USABLE = 0.9  # of what is free; the rest is for networks, environments and the page cache
BATCH_COPIES = 2  # the batch in use and the one being cut
SMALLER_IMAGE = 64


def text_bytes(count: float) -> str:
    """Bytes as a reader wants them: ``2.1 GB`` (decimal units)."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{int(count)} B"


@dataclass(frozen=True)
class Part:
    """One consumer: what it is, where it lies, bytes."""

    name: str
    place: Place
    nbytes: int


@dataclass(frozen=True)
class Demand:
    """What decides the size of the experience; see ``memory_budget`` for the fields."""

    spec: StoreSpec
    capacity: int
    slack: int
    lanes: int
    storage: Storage
    batch_size: int
    frame_stack: int
    offsets: int
    phases: int
    gpu: bool  # "device" means a GPU

    @property
    def row_bytes(self) -> int:
        """Bytes of one agent step, its checksum included."""
        return self.spec.row_bytes + CHECKSUM.row_bytes

    def parts(self) -> list[Part]:
        """Every consumer of memory or disk."""
        window = -(-self.capacity // self.lanes)
        rows = self.lanes * window * self.phases
        disk_rows = self.lanes * (window + 2 * self.slack) * self.phases
        frame = prod(self.spec.frame_shape) * np.dtype(self.spec.frame_dtype).itemsize
        batch = BATCH_COPIES * self.batch_size * self.offsets * self.frame_stack * frame
        device: Place = "GPU" if self.storage == "device" and self.gpu else "RAM"
        parts = [Part(f"replay files, {disk_rows:,} rows with slack", "disk", disk_rows * self.row_bytes)]
        if self.storage != "disk":
            parts.insert(0, Part(f"replay rows, {rows:,} x {self.row_bytes:,} B", device, rows * self.row_bytes))
        parts.append(Part(f"batches of {self.batch_size} x {self.offsets} images", device, batch))
        return parts

    def total(self, place: Place) -> int:
        """Bytes needed in one place."""
        return sum(part.nbytes for part in self.parts() if part.place == place)


@dataclass(frozen=True)
class Budget:
    """Needed and available bytes of a run's experience."""

    demand: Demand
    available: dict[Place, int]

    def fits(self, demand: Demand | None = None) -> bool:
        """Whether everything has room; ``demand`` asks about other settings."""
        return not self._short(demand or self.demand)

    def table(self) -> str:
        """Lines of text: every part, then need against room per place."""
        lines = [f"{part.place:<5}{text_bytes(part.nbytes):>10}  {part.name}" for part in self.demand.parts()]
        for place, free in self.available.items():
            needed = self.demand.total(place)
            if needed:
                verdict = "fits" if needed <= USABLE * free else "DOES NOT FIT"
                lines.append(f"{place:<5}{text_bytes(needed):>10}  needed, {text_bytes(free)} available: {verdict}")
        return "\n".join(lines)

    def check(self) -> None:
        """Raise UserError with the settings that would fit unless the experience fits."""
        short = self._short(self.demand)
        if not short:
            return
        alternatives = self.alternatives() or ["use a machine with more memory or disk"]
        needs = ", ".join(
            f"{text_bytes(self.demand.total(place))} of {place} ({text_bytes(self.available[place])} available)"
            for place in short
        )
        raise UserError(
            f"the experience of this run does not fit: it needs {needs}; at most {USABLE:.0%} of what is available is "
            f"taken\n{self.table()}\n"
            "what would fit:\n" + "\n".join(f"  {line}" for line in alternatives)
        )

    def alternatives(self) -> list[str]:
        """Settings that fit on this machine, each with its figures, as they are typed on the command line."""
        found = []
        other_places: list[Storage] = ["ram", "disk", "device"]
        for storage in other_places:
            other = replace(self.demand, storage=storage)
            if storage != self.demand.storage and (storage != "device" or other.gpu) and self.fits(other):
                found.append(f"storage={storage} needs {self._figures(other)}")
        channels, height, width = self.demand.spec.frame_shape
        smaller = replace(self.demand.spec, frame_shape=(channels, SMALLER_IMAGE, SMALLER_IMAGE))
        small = replace(self.demand, spec=smaller)
        if min(height, width) > SMALLER_IMAGE and self.fits(small):
            found.append(f"image_size={SMALLER_IMAGE} needs {self._figures(small)}")
        capacity = self._largest_capacity()
        if 0 < capacity < self.demand.capacity:
            fewer = replace(self.demand, capacity=capacity)
            found.append(f"replay_buffer_capacity={capacity} needs {self._figures(fewer)}")
        return found

    def _figures(self, demand: Demand) -> str:
        places: list[Place] = ["RAM", "GPU", "disk"]
        return " and ".join(f"{text_bytes(demand.total(p))} of {p}" for p in places if demand.total(p))

    def _short(self, demand: Demand) -> list[Place]:
        return [place for place, free in self.available.items() if demand.total(place) > USABLE * free]

    def _largest_capacity(self) -> int:
        """Largest capacity that fits, in round thousands (0 if none)."""
        low, high = 0, self.demand.capacity // 1000 + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.fits(replace(self.demand, capacity=1000 * middle)) else (low, middle)
        return 1000 * low


def available_ram() -> int:
    """Bytes of RAM that this process may still take, a container's limit included."""
    free = int(psutil.virtual_memory().available)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdigit():
        free = min(free, max(0, int(text) - int(used.read_text())))
    return free


def available_disk(folder: Path) -> int:
    """Free bytes on the disk of ``folder``, plus what replay files already there occupy."""
    existing = folder.resolve()
    while not existing.exists():
        existing = existing.parent
    ours = sum(512 * path.stat().st_blocks for path in folder.rglob("*.npy")) if folder.exists() else 0
    return shutil.disk_usage(existing).free + ours


def memory_budget(
    *,
    spec: StoreSpec,
    capacity: int,
    slack: int,
    lanes: int,
    storage: Storage,
    batch_size: int,
    frame_stack: int,
    offsets: int,
    run_dir: Path,
    phases: int = 1,
) -> Budget:
    """Count the bytes of a run's experience and look at what the machine has.

    Args:
        spec: what a row holds.
        capacity: rows of one store.
        slack: rows per lane between two saves, as the store takes it.
        lanes: parallel environments.
        storage: where the rows live.
        batch_size: samples per batch.
        frame_stack: frames per image.
        offsets: images per sample (2 for a transition).
        run_dir: folder of the run, existing or not; its disk is looked at.
        phases: stores that exist at the same time.
    """
    gpu = torch.cuda.is_available()
    rows = (spec, capacity, slack, lanes, storage)
    demand = Demand(*rows, batch_size, frame_stack, offsets, phases, gpu)
    available: dict[Place, int] = {"RAM": available_ram(), "disk": available_disk(run_dir)}
    if gpu:
        available["GPU"] = int(torch.cuda.mem_get_info()[0])
    return Budget(demand, available)
