"""Uniform, frame-wise and prioritised replay against the public code of ATC (golden files atc_*_replay)."""

from __future__ import annotations

import numpy as np
import pytest
from load import cases, load_case
from objective_case import RUNS

from visrep.data.batch import BatchSpec
from visrep.data.priority import RewardPriority
from visrep.data.sampler import Sampler
from visrep.data.store import FrameStore, StoreSpec
from visrep.data.sumtree import SumTree, distinct_leaves

FLOAT64, FLOAT32 = 1e-7, 5e-6


@pytest.mark.parametrize("case", cases("atc_uniform_replay"))
def test_uniform_windows(case: str) -> None:
    """Our anchors are the public code's window starts and the newest whole window, which it never draws."""
    c = load_case("atc_uniform_replay", case)
    size, window, cursor, full = (int(c["meta"][name]) for name in ("size_t", "window", "cursor", "full"))
    values = c["in"]["reward"]
    store = FrameStore(StoreSpec((1, 1, 1), None, {"value": (1,)}, rewards=False), size)
    for row in range(cursor + size * full):  # row numbers and ring positions agree modulo size
        value = values[row % size : row % size + 1, None]
        store.add([0], np.zeros((1, 1, 1, 1), np.uint8), None, None, [row == 0], [False], [False], {"value": value})
    sampler = Sampler(store, BatchSpec(tuple(range(window)), frozenset({"value"})), size, 1)
    lanes, rows = store.rings.locate(sampler.anchors.all())
    newest = (cursor - window) % size
    assert len(rows) == int(c["meta"]["high"]) + 1 and newest in rows % size
    starts = np.array(sorted({*(rows % size).tolist()} - {newest}))
    np.testing.assert_array_equal(starts[c["rand"]["raw"]], c["out"]["start"])
    straddles = {(cursor - i) % size for i in range(1, window)}
    assert not straddles & set((rows % size).tolist())

    found = {int(row % size): batch for row, batch in zip(rows, sampler.cut(lanes, rows).fields["value"][..., 0])}
    ours = np.stack([found[start].numpy() for start in c["out"]["start"]], axis=1)
    np.testing.assert_array_equal(ours, c["out"]["window_reward"])


@pytest.mark.parametrize("case", cases("atc_frame_replay"))
def test_frame_stacks_with_zeros_before_an_episode(case: str) -> None:
    c = load_case("atc_frame_replay", case)
    n, window = int(c["meta"]["n_frames"]), int(c["meta"]["window"])
    frames, done = c["in"]["frames"], c["in"]["done"]
    steps, columns, *size = frames.shape[0] - n + 1, *frames.shape[1:]
    store = FrameStore(StoreSpec((1, *size), None, rewards=False), steps * columns, columns)
    first = np.ones(columns, bool)
    for t in range(steps):
        image = frames[t + n - 1][:, None]
        store.add(np.arange(columns), image, None, None, first, np.zeros(columns), done[t])
        first = done[t]
    sampler = Sampler(store, BatchSpec(), 1, n, stack_padding="zero")
    for i in range(window):
        batch = sampler.cut(c["in"]["start_b"], c["in"]["start_t"] + i)
        np.testing.assert_array_equal(batch.image(0).numpy(), c["out"]["observation"][i])


def public_priorities(case: dict, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """(leaf, stored) priorities after each chunk [N, size, B]: our formula in the public code's ring of steps."""
    meta, given = case["meta"], case["in"]
    size, n = int(meta["size_t"]), int(meta["n_step"])
    rule = RewardPriority(float(meta["alpha"]), float(meta["beta"]), n, float(meta["gamma"]))
    chunks, per_chunk, columns = given["reward"].shape
    reward = given["reward"].reshape(-1, columns).astype(dtype)
    done = given["done"].reshape(-1, columns)
    leaf = np.zeros((chunks, size, columns))
    stored = np.ones((chunks, size, columns))
    for chunk in range(chunks):
        written = (chunk + 1) * per_chunk
        assert written % size == case["out"]["cursor"][chunk]
        for b in range(columns):
            for t in range(max(0, written - size), written - n + 1):
                ends = np.concatenate([[False], done[t : t + n - 1, b]])
                inside = ~np.cumsum(ends).astype(bool)
                priority = rule.of(reward[None, t : t + n, b], inside[None])[0]
                stored[chunk, t % size, b] = priority
                leaf[chunk, t % size, b] = priority if t < written - n else 0
    return leaf, stored


def close(got: np.ndarray, want: np.ndarray, tolerance: float) -> bool:
    return bool(np.abs(got - want).max() <= tolerance * max(np.abs(want).max(), 1e-6))


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", cases("atc_priority_replay"))
def test_priorities(case: str, run: str) -> None:
    c = load_case("atc_priority_replay", case)
    tolerance = FLOAT64 if run == "float64" else FLOAT32
    leaf, stored = public_priorities(c, np.float64 if run == "float64" else np.float32)
    assert close(leaf, c["out"]["leaf_priority"], tolerance)
    complete = leaf > 0
    assert close(stored[complete], c["out"]["stored_priority"][complete], tolerance)
    tree = SumTree(leaf[0].size)
    before = np.zeros(leaf[0].size)
    for chunk, weights in enumerate(leaf.reshape(len(leaf), -1)):
        changed = np.flatnonzero(weights != before)
        tree.set(changed, weights[changed])
        before = weights
        assert close(np.array(tree.total), c["out"]["total"][chunk], tolerance)
        np.testing.assert_array_equal(tree.weights, weights)


@pytest.mark.parametrize("case", cases("atc_priority_replay"))
def test_a_store_gives_the_same_priorities(case: str) -> None:
    """Steps as rows (a reward lies in the row that it led to, episodes have a last row), caught up chunk by chunk."""
    c = load_case("atc_priority_replay", case)
    meta, (reward, done) = c["meta"], (c["in"]["reward"], c["in"]["done"])
    chunks, per_chunk, columns = reward.shape
    rule = RewardPriority(float(meta["alpha"]), float(meta["beta"]), int(meta["n_step"]), float(meta["gamma"]))
    store = FrameStore(StoreSpec((1, 1, 1), None), (2 * chunks * per_chunk + 1) * columns, columns)
    sampler = Sampler(store, BatchSpec(crossing="mask"), 1, 1, priority=rule)
    frame = np.zeros((1, 1, 1, 1), np.uint8)
    row_of = np.zeros((chunks * per_chunk, columns), np.int64)  # of the observation of each step
    for b in range(columns):
        store.add([b], frame, None, [0], [True], [False], [False])
    for chunk in range(chunks):
        for step in range(per_chunk):
            for b in range(columns):
                row_of[chunk * per_chunk + step, b] = store.rings.counts[b] - 1
                over = done[chunk, step, b]
                store.add([b], frame, None, reward[chunk, step, b], [False], [over], [over])
                if over:
                    store.add([b], frame, None, [0], [True], [False], [False])
        sampler.anchors.catch_up()
        for t, b in np.argwhere(c["out"]["leaf_priority"][chunk]):
            newest = (chunk + 1) * per_chunk - 1
            step = newest - (c["out"]["cursor"][chunk] - 1 - t) % int(meta["size_t"])
            ours = sampler.anchors.tree.weights[store.rings.positions(b, row_of[step, b])]
            assert abs(ours - c["out"]["leaf_priority"][chunk, t, b]) <= FLOAT64 * ours


@pytest.mark.parametrize("case", cases("atc_priority_replay"))
def test_draws_without_replacement(case: str) -> None:
    """The same uniforms, as many of them, and the same leaves once sorted and cut as the public code does."""
    c = load_case("atc_priority_replay", case)
    weights, batch, columns = c["out"]["leaf_priority"][-1], int(c["meta"]["batch"]), c["in"]["reward"].shape[2]
    tree = SumTree(weights.size)
    tree.set(np.arange(weights.size), weights.reshape(-1))
    given, used = c["rand"]["uniform"], 0

    def uniforms(count: int) -> np.ndarray:
        nonlocal used
        used += count
        return given[used - count : used]

    drawn = np.sort(distinct_leaves(tree, batch, uniforms))[:batch]
    assert used == len(given)
    np.testing.assert_array_equal(drawn // columns, c["out"]["sample_t"])
    np.testing.assert_array_equal(drawn % columns, c["out"]["sample_b"])
    assert close(tree.weights[drawn], c["out"]["sample_priority"], FLOAT64)
