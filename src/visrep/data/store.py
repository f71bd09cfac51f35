"""FrameStore: every frame once, as rows in a ring per lane, in RAM, in memory-mapped files or on a device.

Row t holds (frame_t, the action that led to it, the reward that came with it, is_first, terminal, is_last). First
rows have zero action and reward. A transition is two neighbouring rows of one episode. Time limits set is_last, not
terminal. Stores of plain video keep no actions, or no rewards either.

Shapes: n rows added at once, A action values, C colour channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from visrep.data.actions import ActionSpec
from visrep.data.columns import Column, ColumnSpec, Index
from visrep.data.files import RUN_ADVICE, Advice
from visrep.data.mirror import Mirror
from visrep.data.ring import Rings

FIRST, TERMINAL, LAST = 1, 2, 4
RESERVED = frozenset({"image", "action", "reward", "terminal", "flags", "episode_step", "is_first", "is_last", "crc"})
FRAME_DTYPES = ("uint8", "float16", "float32")


@dataclass(frozen=True)
class StoreSpec:
    """What one row holds.

    Attributes:
        frame_shape: (C, H, W) of one frame.
        actions: continuous values or classes; None where nobody recorded them (video).
        side: further float32 channels by name with the shape of one row, e.g. ``{"state": (4,)}``.
        frame_dtype: NumPy name; "uint8" for pixels, "float16" or "float32" for latent images and vectors.
        rewards: whether rows have a reward.
    """

    frame_shape: tuple[int, int, int]
    actions: ActionSpec | None
    side: dict[str, tuple[int, ...]] = field(default_factory=dict)
    frame_dtype: str = "uint8"
    rewards: bool = True

    def __post_init__(self) -> None:
        taken = sorted(set(self.side) & RESERVED)
        if taken:
            raise ValueError(f"side channels may not be called {', '.join(taken)}: these names are taken")
        if self.frame_dtype not in FRAME_DTYPES:
            raise ValueError(f"frames are {', '.join(FRAME_DTYPES)}, not {self.frame_dtype}")

    @property
    def provides(self) -> frozenset[str]:
        """Field names that a BatchSpec may ask for."""
        return frozenset(column.name for column in self.columns()) - {"flags", "episode_step"} | {"terminal", "is_last"}

    def columns(self) -> list[ColumnSpec]:
        """The stored fields of a row, in the order in which checksums read them."""
        return [
            ColumnSpec("image", self.frame_shape, self.frame_dtype),
            *([ColumnSpec("action", (self.actions.dim,), self.actions.dtype)] if self.actions else []),
            *([ColumnSpec("reward", (1,), "float32")] if self.rewards else []),
            ColumnSpec("flags", (1,), "uint8"),
            ColumnSpec("episode_step", (1,), "int32"),
            *(ColumnSpec(name, tuple(shape), "float32") for name, shape in sorted(self.side.items())),
        ]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in memory."""
        return sum(column.row_bytes for column in self.columns())

    def to_dict(self) -> dict[str, Any]:
        """JSON values, as the manifest of a dataset holds them."""
        actions = asdict(self.actions) if self.actions else None
        side = {name: list(shape) for name, shape in self.side.items()}
        return {**asdict(self), "frame_shape": list(self.frame_shape), "actions": actions, "side": side}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> StoreSpec:
        """The spec that ``to_dict`` described."""
        channels, height, width = values["frame_shape"]
        return cls(
            frame_shape=(channels, height, width),
            actions=ActionSpec(**values["actions"]) if values["actions"] else None,
            side={name: tuple(shape) for name, shape in values["side"].items()},
            frame_dtype=values["frame_dtype"],
            rewards=values["rewards"],
        )

    @classmethod
    def from_columns(cls, columns: Mapping[str, Sequence[Any]]) -> StoreSpec:
        """The spec of a store whose saved state has these "columns", {name: [dtype, *shape of a row]}.

        Actions are taken for continuous ones, as environments have them: the columns do not tell.
        """
        shapes = {name: tuple(shape) for name, (_, *shape) in columns.items()}
        channels, height, width = shapes["image"]
        return cls(
            frame_shape=(channels, height, width),
            actions=ActionSpec(*shapes["action"]) if "action" in shapes else None,
            side={name: shape for name, shape in shapes.items() if name not in RESERVED},
            frame_dtype=columns["image"][0],
            rewards="reward" in shapes,
        )


class FrameStore:
    """Rows of experience of several lanes (parallel environments), the newest ``ceil(capacity / lanes)`` per lane.

    "ram" and "device" keep exactly that many rows per lane in memory; ``save`` mirrors them to files. "disk" keeps the
    rows in those files from the start, memory-mapped. On disk every lane has ``2 * slack`` rows more, so that
    what is written after a save never overwrites a row that this save, or the one before it, refers to.
    """

    def __init__(
        self,
        spec: StoreSpec,
        capacity: int,
        lanes: int = 1,
        slack: int = 0,
        storage: Literal["ram", "disk", "device"] = "ram",
        path: Path | None = None,
        device: str | torch.device = "cpu",
        read_only: bool = False,
        advice: Advice = RUN_ADVICE,
    ) -> None:
        """Allocate an empty store.

        Args:
            spec: what a row holds.
            capacity: rows over all lanes.
            lanes: parallel environments that feed the store.
            slack: the most rows per lane that are added between two calls of ``save``; 0 if it is never saved (or
                saved, but never overwrites).
            storage: where rows live.
            path: folder of the memory-mapped files; needed for "disk" only. Files of another layout are refused.
            device: torch device of the rows; used by "device" only.
            read_only: rows come from ``load`` alone; nothing is added, and no file is written.
            advice: what messages about damaged files tell whoever they belong to.
        """
        if storage == "disk" and path is None:
            raise ValueError("storage=disk needs a folder: pass path=")
        self.spec = spec
        self.capacity = capacity
        self.lanes = lanes
        self.storage = storage
        self.read_only = read_only
        window = -(-capacity // max(lanes, 1))
        self.mirror = Mirror(spec.columns(), lanes, window, slack, advice)
        self.rings = Rings(lanes, window, self.mirror.rings.ring if storage == "disk" else window)
        self.device = torch.device(device) if storage == "device" else torch.device("cpu")
        memory = self.mirror.attach(path, not read_only) if storage == "disk" and path is not None else {}
        positions = lanes * self.rings.ring
        self.columns = {
            column.name: Column(column, positions, self._column_device(column.name), memory.get(column.name))
            for column in spec.columns()
        }
        self.transitions = 0
        self.version = 0  # grows with every change; caches compare it
        self.loads = 0  # grows when all rows are replaced at once, so that what is kept per row is stale
        self._ended = np.ones(lanes, bool)  # the next row of this lane must be a first row

    def _column_device(self, name: str) -> torch.device | None:
        # Anchors are drawn on the host, so episode_step stays there.
        return self.device if self.storage == "device" and name != "episode_step" else None

    @property
    def rows(self) -> int:
        """Readable rows over all lanes."""
        return int(self.rings.sizes.sum())

    @property
    def nbytes_per_row(self) -> int:
        """Bytes that one row occupies, its checksum on disk included."""
        return self.spec.row_bytes + 4

    @property
    def nbytes(self) -> int:
        """Bytes of all rows in memory (or in the files, for "disk") when full."""
        return self.nbytes_per_row * self.lanes * self.rings.ring

    @property
    def episode_steps(self) -> NDArray[np.int32]:
        """Rows since is_first, by position, int32 [lanes * ring]."""
        host = self.columns["episode_step"].host
        assert host is not None
        return host[:, 0].view(np.int32)

    def begin(
        self, lanes: ArrayLike, frames: NDArray[Any], side: dict[str, NDArray[np.floating]] | None = None
    ) -> None:
        """Append first rows of episodes, to which no action led and with which no reward came; arguments of ``add``."""
        count, actions = len(frames), self.spec.actions
        no, reward = np.zeros(count, bool), np.zeros(count) if self.spec.rewards else None
        self.add(lanes, frames, None if actions is None else np.zeros((count, actions.dim)), reward, ~no, no, no, side)

    def add(
        self,
        lanes: ArrayLike,
        frames: NDArray[Any],
        actions: ArrayLike | None,
        rewards: ArrayLike | None,
        is_first: ArrayLike,
        terminal: ArrayLike,
        is_last: ArrayLike,
        side: dict[str, NDArray[np.floating]] | None = None,
    ) -> None:
        """Append at most one row per lane.

        Args:
            lanes: distinct lane numbers, [n].
            frames: [n, C, H, W] of the spec's frame dtype.
            actions: [n, A]; zero in first rows. None in a store without actions.
            rewards: [n]; zero in first rows. None in a store without rewards.
            is_first: [n]; the row begins an episode. It may cut an episode whose last row never came (a crash).
            terminal: [n]; the episode's true end, no bootstrapping beyond it.
            is_last: [n]; the episode ends here, by a terminal or a time limit.
            side: the spec's side channels, each [n, ...].
        """
        lane = np.atleast_1d(np.asarray(lanes, np.int64))
        first, term, last = (np.atleast_1d(np.asarray(flag, bool)) for flag in (is_first, terminal, is_last))
        led = self._led_to(len(lane), actions, rewards)
        self._check(lane, frames, led, first, side or {})
        counts = self.rings.counts[lane]
        self.mirror.protect(lane, counts)
        previous = self.episode_steps[self.rings.positions(lane, counts - 1)]
        episode_step = np.where(first, 0, previous + 1)
        dropped = counts >= self.rings.window
        behind = self.episode_steps[self.rings.positions(lane, counts - self.rings.window + 1)]
        values: dict[str, NDArray[Any]] = {
            "image": frames,
            **led,
            "flags": (first * FIRST | term * TERMINAL | last * LAST).astype(np.uint8),
            "episode_step": episode_step,
            **(side or {}),
        }
        positions = self.rings.positions(lane, counts)
        for name, column in self.columns.items():
            column.write(positions, values[name])
        self.rings.counts[lane] += 1
        self._ended[lane] = last
        # A dropped row takes the transition to its successor with it.
        self.transitions += int((~first).sum()) - int((dropped & (behind > 0)).sum())
        self.version += 1

    def _led_to(self, count: int, actions: ArrayLike | None, rewards: ArrayLike | None) -> dict[str, NDArray[Any]]:
        """What led to the new rows, of those that this store keeps: action [n, A] and reward [n]."""
        given = {"action": actions, "reward": rewards}
        wrong = [name for name, value in given.items() if (value is not None) != (name in self.columns)]
        if wrong:
            must = "a value" if wrong[0] in self.columns else "None"
            raise ValueError(f"this store keeps {', '.join(sorted(self.spec.provides))}: pass {must} as {wrong[0]}s")
        led: dict[str, NDArray[Any]] = {}
        if self.spec.actions is not None:
            led["action"] = np.asarray(actions, self.spec.actions.dtype).reshape(count, self.spec.actions.dim)
        if self.spec.rewards:
            led["reward"] = np.asarray(rewards, np.float32).reshape(count)
        return led

    def _check(
        self,
        lane: Index,
        frames: NDArray[Any],
        led: dict[str, NDArray[Any]],
        first: NDArray[np.bool_],
        side: dict[str, NDArray[np.floating]],
    ) -> None:
        if self.read_only:
            raise ValueError("this store is read-only: it was opened from a dataset")
        if frames.shape != (len(lane), *self.spec.frame_shape) or frames.dtype != np.dtype(self.spec.frame_dtype):
            shape = ", ".join(map(str, (len(lane), *self.spec.frame_shape)))
            raise ValueError(
                f"the store takes {self.spec.frame_dtype} frames [{shape}], got {frames.dtype} {list(frames.shape)}"
            )
        if len(np.unique(lane)) != len(lane) or lane.min() < 0 or lane.max() >= self.lanes:
            raise ValueError(f"lanes must be distinct and below {self.lanes}, got {lane.tolist()}")
        if (self._ended[lane] & ~first).any():
            raise ValueError("a lane's first row, and the row after is_last, must be a first row (is_first=True)")
        if any(values[first].any() for values in led.values()):
            raise ValueError("first rows have no action and no reward: pass zeros")
        if set(side) != set(self.spec.side):
            raise ValueError(f"side channels are {sorted(self.spec.side)}, got {sorted(side)}")

    def gather(self, name: str, positions: Tensor, out: Tensor | None = None) -> Tensor:
        """Read one field at ring positions (see ``Rings.positions``).

        Args:
            name: a field of the spec ("image", "action", "reward", "terminal", side channels), or "is_first",
                "is_last".
            positions: int64 of any shape [...] on the store's device.
            out: for "image" only: contiguous [..., C, H, W] of the frame dtype to write into.

        Returns:
            [..., *row shape]: image of the frame dtype [..., C, H, W], reward float32 [..., 1], terminal bool
            [..., 1], ...
        """
        flag = {"is_first": FIRST, "terminal": TERMINAL, "is_last": LAST}.get(name)
        column = self.columns["flags" if flag else name]
        flat = None if out is None else out.view(positions.numel(), -1)
        values = column.gather(positions.reshape(-1), flat).view(*positions.shape, *column.spec.shape)
        return values if flag is None else (values & flag) != 0

    def read(self, name: str, lanes: ArrayLike, rows: ArrayLike) -> NDArray[Any]:
        """Read one field by (lane, row number) as host memory [n, ...], for reports and tools.

        Readable row numbers of lane l are ``store.rings.starts[l]`` up to ``store.rings.counts[l]``, oldest first.
        """
        lane, row = np.atleast_1d(np.asarray(lanes, np.int64)), np.atleast_1d(np.asarray(rows, np.int64))
        if ((row < self.rings.starts[lane]) | (row >= self.rings.counts[lane])).any():
            raise IndexError("a row was asked for that the store no longer or not yet holds")
        positions = torch.from_numpy(self.rings.positions(lane, row)).to(self.device)
        return np.asarray(self.gather(name, positions).cpu().numpy())

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the rows added since the last save to ``folder`` and return the state that ``load`` takes back.

        The state is small and JSON-able; put it into the checkpoint. Always name the same folder. The files are
        complete for this state when this returns, and stay complete for it and for the state before it whatever is
        written later, a kill included. With storage "disk" the rows already lie in ``path``, so ``folder`` is not used.

        Raises:
            UserError: no space or no permission; the state saved last can still be loaded.
        """
        if self.read_only:
            raise ValueError("this store is read-only: it was opened from a dataset")
        return self.mirror.save(folder, self.rings, self.columns)

    def export(self, folder: Path) -> dict[str, Any]:
        """Write a copy of all readable rows to ``folder``, without room for more.

        Returns:
            The state that a store of ``capacity=lanes * state["window"]`` without slack loads.
        """
        copy = Mirror(self.spec.columns(), self.lanes, max(2, int(self.rings.sizes.max())), slack=0)
        return copy.save(folder, self.rings, self.columns)

    def load(self, folder: Path, state: dict[str, Any]) -> None:
        """Restore exactly the readable rows of the moment when ``save`` returned ``state``, checking every row.

        Raises:
            UserError: another layout, or missing, truncated or changed files.
        """
        self.mirror.load(folder, state, self.rings, self.columns)
        steps = self.episode_steps
        self.transitions = 0
        for lane, (start, count) in enumerate(zip(self.rings.starts, self.rings.counts)):
            inner = self.rings.positions(np.asarray(lane), np.arange(start + 1, count))
            self.transitions += int((steps[inner] > 0).sum())
        started = np.flatnonzero(self.rings.counts)
        self._ended[:] = True
        if len(started):
            self._ended[started] = self.read("is_last", started, self.rings.counts[started] - 1)[:, 0]
        self.version += 1
        self.loads += 1


def saved_store(
    spec: StoreSpec,
    state: dict[str, Any],
    folder: Path,
    storage: Literal["ram", "disk", "device"] = "disk",
    device: str | torch.device = "cpu",
    advice: Advice = RUN_ADVICE,
) -> FrameStore:
    """The read-only store of rows that ``save`` or ``export`` left in ``folder``; their files are never changed.

    Args:
        spec: what a row holds.
        state: what ``save`` or ``export`` returned.
        folder: of the files.
        storage: "disk" maps them, "ram" and "device" read them.
        device: torch device of the rows; used by "device" only.
        advice: what messages about damaged files tell whoever they belong to.

    Raises:
        UserError: another layout, or missing, truncated or changed files.
        KeyError, TypeError, ValueError: no such state.
    """
    lanes, window, ring = (int(state[key]) for key in ("lanes", "window", "ring"))
    path, slack = folder if storage == "disk" else None, (ring - window) // 2
    store = FrameStore(spec, lanes * window, lanes, slack, storage, path, device, read_only=True, advice=advice)
    store.load(folder, state)
    return store
