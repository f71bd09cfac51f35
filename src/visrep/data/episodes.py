"""Episodes of a store: where they lie, how long they are, what they returned, and whether a window fits into them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from visrep.data.batch import BatchSpec
from visrep.data.columns import Index
from visrep.data.store import FrameStore
from visrep.errors import UserError


class Episode(NamedTuple):
    """The stored rows of one episode, both ends included. Older rows may have been overwritten, or newer not come."""

    lane: int
    first_row: int
    last_row: int

    @property
    def agent_steps(self) -> int:
        """Transitions between the stored rows."""
        return self.last_row - self.first_row


def episodes(store: FrameStore) -> list[Episode]:
    """All episodes of which rows are stored, lane after lane, oldest first."""
    found = []
    for lane in range(store.lanes):
        rows, steps = _lane(store, lane)
        if not len(rows):
            continue
        # Steps count up by one inside an episode; anything else begins another.
        begins = np.flatnonzero(np.diff(steps, prepend=steps[0]) != 1)
        ends = np.append(begins[1:], len(rows)) - 1
        found += [Episode(lane, int(rows[a]), int(rows[b])) for a, b in zip(begins, ends)]
    return found


def longest_episode(store: FrameStore) -> int:
    """Agent steps of the longest episode; 0 in an empty store."""
    return max((episode.agent_steps for episode in episodes(store)), default=0)


def return_statistics(store: FrameStore) -> dict[str, Any] | None:
    """Undiscounted returns of the episodes that are stored whole, as JSON values; None without rewards or any."""
    if not store.spec.rewards:
        return None
    returns = []
    for lane, first, last in episodes(store):
        ends = store.read("is_first", [lane], [first])[0, 0] and store.read("is_last", [lane], [last])[0, 0]
        if ends:
            rows = np.arange(first, last + 1)
            returns.append(float(store.read("reward", np.full(len(rows), lane), rows).sum(dtype=np.float64)))
    if not returns:
        return None
    return {
        "episodes": len(returns),
        "mean": float(np.mean(returns)),
        "std": float(np.std(returns)),
        "min": min(returns),
        "max": max(returns),
    }


def require_reach(store: FrameStore, spec: BatchSpec, frame_stack: int, source: str) -> None:
    """Raise UserError unless some episode is long enough for the window of ``spec``, frame stacks included.

    Args:
        store: the rows to sample from.
        spec: the window, checked with or without masks: a window that never fits has nothing to teach.
        frame_stack: frames per image. An episode whose beginning was overwritten loses that many rows less one.
        source: folder or name of the store, for the message.
    """
    span = max(0, *spec.offsets) - min(0, *spec.offsets)
    usable = 0
    for episode in episodes(store):
        cut_off = not store.read("is_first", [episode.lane], [episode.first_row])[0, 0]
        usable = max(usable, episode.agent_steps - (frame_stack - 1 if cut_off else 0))
    if span > usable:
        raise UserError(
            f"offset {span} is longer than the longest episode ({usable} agent steps) of {source}: choose a smaller "
            "offset (temporal shift), or data with longer episodes"
        )


def _lane(store: FrameStore, lane: int) -> tuple[Index, Index]:
    """Readable row numbers of a lane and their episode steps."""
    rows = np.arange(store.rings.starts[lane], store.rings.counts[lane])
    return rows, store.episode_steps[store.rings.positions(np.asarray(lane), rows)].astype(np.int64)
