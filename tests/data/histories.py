"""Small made-up histories whose frames tell which row they are, and a plain record of them to compare with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from visrep.data.actions import ActionSpec
from visrep.data.store import FrameStore, StoreSpec

SPEC = StoreSpec(frame_shape=(2, 2, 4), actions=ActionSpec(2), side={"state": (3,), "camera:1": (2,)})


@dataclass
class Row:
    frame: np.ndarray
    action: np.ndarray
    reward: float
    first: bool
    terminal: bool
    last: bool
    state: np.ndarray


@dataclass
class History:
    """Feeds a store and keeps every row of every lane. Episode lengths are drawn per episode; some episodes crash."""

    lanes: int
    seed: int
    lengths: tuple[int, int] = (1, 9)
    crash: float = 0.1
    idle: float = 0.2  # chance that a lane gets no row in a call
    rows: list[list[Row]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.rows = [[] for _ in range(self.lanes)]
        self.left = [0] * self.lanes  # rows left of the current episode

    def step(self, store: FrameStore | None) -> None:
        lanes = [lane for lane in range(self.lanes) if self.rng.random() >= self.idle]
        if not lanes:
            return
        new = [self._row(lane) for lane in lanes]
        if store is not None:
            store.add(
                np.array(lanes),
                np.stack([row.frame for row in new]),
                np.stack([row.action for row in new]),
                np.array([row.reward for row in new]),
                np.array([row.first for row in new]),
                np.array([row.terminal for row in new]),
                np.array([row.last for row in new]),
                {"state": np.stack([r.state for r in new]), "camera:1": np.stack([r.state[:2] for r in new])},
            )

    def _row(self, lane: int) -> Row:
        number = len(self.rows[lane])
        frame = np.frombuffer(np.array([number, lane, self.seed, 7], np.int32).tobytes(), np.uint8).reshape(2, 2, 4)
        crashed = self.left[lane] > 0 and self.rng.random() < self.crash
        first = self.left[lane] == 0 or crashed
        if first:
            self.left[lane] = int(self.rng.integers(self.lengths[0], self.lengths[1] + 1))
        self.left[lane] -= 1
        last = self.left[lane] == 0
        row = Row(
            frame=frame,
            action=np.zeros(2, np.float32) if first else self.rng.normal(size=2).astype(np.float32),
            reward=0.0 if first else float(np.float32(self.rng.normal())),
            first=first,
            terminal=last and bool(self.rng.random() < 0.5),
            last=last,
            state=self.rng.normal(size=3).astype(np.float32),
        )
        self.rows[lane].append(row)
        return row


def make_store(storage: str, folder: Path, capacity: int, lanes: int, slack: int = 0) -> FrameStore:
    return FrameStore(SPEC, capacity, lanes, slack, storage, path=folder if storage == "disk" else None)  # type: ignore[arg-type]


def fill(store: FrameStore, history: History, calls: int) -> None:
    for _ in range(calls):
        history.step(store)


def assert_holds(store: FrameStore, rows: list[list[Row]], window: int) -> None:
    """The store's readable rows are exactly the last ``window`` of each lane, bit for bit."""
    for lane, made in enumerate(rows):
        kept = range(max(0, len(made) - window), len(made))
        assert (store.rings.starts[lane], store.rings.counts[lane]) == (kept.start, kept.stop)
        if not kept:
            continue
        lanes, numbers = np.full(len(kept), lane), np.array(kept)
        wanted = {
            "image": np.stack([made[r].frame for r in kept]),
            "action": np.stack([made[r].action for r in kept]),
            "reward": np.array([[made[r].reward] for r in kept], np.float32),
            "is_first": np.array([[made[r].first] for r in kept]),
            "terminal": np.array([[made[r].terminal] for r in kept]),
            "is_last": np.array([[made[r].last] for r in kept]),
            "state": np.stack([made[r].state for r in kept]),
            "camera:1": np.stack([made[r].state[:2] for r in kept]),
        }
        for name, values in wanted.items():
            np.testing.assert_array_equal(store.read(name, lanes, numbers), values, err_msg=name)


def count_transitions(rows: list[list[Row]], window: int) -> int:
    return sum(1 for made in rows for r in range(max(0, len(made) - window), len(made) - 1) if not made[r + 1].first)
