"""Prioritised anchors: weights against a loop-written reference, draws against their distribution, resuming."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from histories import SPEC, History, fill, make_store
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from slow_sampler import SlowLane

from visrep.data.batch import BatchSpec
from visrep.data.priority import PriorityAnchors, RewardPriority
from visrep.data.sampler import Sampler
from visrep.data.store import FrameStore, StoreSpec
from visrep.data.sumtree import SumTree, distinct_leaves
from visrep.errors import UserError

FIELDS = frozenset({"image", "action", "reward", "terminal", "state"})


def slow_weights(
    store: FrameStore, history: History, spec: BatchSpec, rule: RewardPriority, stack: int, window: int
) -> np.ndarray:
    """Weight by ring position, from the plain record."""
    weights = np.zeros(store.lanes * store.rings.ring)
    behind = max(rule.n_step, *spec.offsets)
    for lane, rows in enumerate(history.rows):
        slow = SlowLane(rows, window, stack)
        for row in slow.anchors(spec):
            if row + behind >= len(rows):
                continue
            total = 0.0
            for i in range(rule.n_step):
                following = row + 1 + i
                if rows[following].first:
                    break
                total += rule.gamma**i * abs(rows[following].reward)
            weights[lane * store.rings.ring + row % store.rings.ring] = 1 + rule.alpha * total**rule.beta
    return weights


def prioritised(store: FrameStore, spec: BatchSpec, rule: RewardPriority, stack: int = 2, batch: int = 1) -> Sampler:
    return Sampler(store, spec, batch, stack, generator=np.random.default_rng(0), priority=rule)


def weights_of(sampler: Sampler) -> np.ndarray:
    assert isinstance(sampler.anchors, PriorityAnchors)
    sampler.anchors.catch_up()
    return sampler.anchors.tree.weights


@settings(max_examples=150, deadline=None)
@given(
    lanes=st.integers(1, 3),
    window=st.integers(2, 25),
    slack=st.integers(0, 3),
    longest=st.integers(1, 30),
    seed=st.integers(0, 10**6),
    stack=st.integers(1, 4),
    n_step=st.integers(1, 6),
    high=st.integers(0, 5),
    low=st.integers(-2, 0),
    beta=st.sampled_from([1.0, 0.5]),
    crossing=st.sampled_from(["forbid", "mask"]),
)
def test_weights_equal_the_loops_at_any_moment(
    lanes: int, window: int, slack: int, longest: int, seed: int, stack: int, n_step: int, high: int, low: int,
    beta: float, crossing: str,
) -> None:  # fmt: skip
    rule = RewardPriority(alpha=2.0, beta=beta, n_step=n_step, gamma=0.9)
    spec = BatchSpec((low, 0, high), FIELDS, crossing=crossing)  # type: ignore[arg-type]
    store, history = FrameStore(SPEC, window * lanes, lanes), History(lanes, seed, (1, longest))
    sampler = prioritised(store, spec, rule, stack)
    rng = np.random.default_rng(seed)
    for _ in range(8):
        fill(store, history, int(rng.integers(0, 1 + rng.choice([3, 30]))))
        wanted = slow_weights(store, history, spec, rule, stack, window)
        np.testing.assert_allclose(weights_of(sampler), wanted, rtol=1e-12)
        # What was kept up with new rows equals what is computed anew, bit for bit.
        np.testing.assert_array_equal(weights_of(sampler), weights_of(prioritised(store, spec, rule, stack)))


def test_files_with_slack_hold_the_same_priorities(tmp_path: Path) -> None:
    """On disk a ring has more rows than may be read; those that left the window must not be drawn."""
    rule, spec = RewardPriority(n_step=3), BatchSpec((0, 2), FIELDS, crossing="mask")
    store, history = make_store("disk", tmp_path, 40, 2, slack=6), History(2, 4, (1, 12))
    sampler = prioritised(store, spec, rule)
    for _ in range(20):
        fill(store, history, 4)
        wanted = slow_weights(store, history, spec, rule, 2, 20)
        np.testing.assert_allclose(weights_of(sampler), wanted, rtol=1e-12)


@pytest.mark.parametrize("storage", ["ram", "device"])
def test_a_loaded_store_continues_the_same_draws(storage: str, tmp_path: Path) -> None:
    rule, spec = RewardPriority(n_step=4), BatchSpec((0, 1), FIELDS, crossing="mask")
    store, history = make_store(storage, tmp_path, 120, 3, slack=20), History(3, 9, (2, 20))
    sampler = prioritised(store, spec, rule, batch=8)
    for _ in range(12):
        fill(store, history, 7)
        if store.rows > 40:
            sampler.sample()
    saved, generator = store.save(tmp_path), sampler.state_dict()
    other_store = make_store(storage, tmp_path, 120, 3, slack=20)
    other = prioritised(other_store, spec, rule, batch=8)
    fill(other_store, History(3, 1), 30)  # what it held before must leave no trace
    other.anchors.catch_up()  # type: ignore[attr-defined]
    other.load_state_dict(generator)
    other_store.load(tmp_path, saved)
    for _ in range(5):
        a, b = sampler.sample(), other.sample()
        assert torch.equal(a.images[0], b.images[0]) and torch.equal(a.valid, b.valid)


def test_windows_never_reach_rows_to_come() -> None:
    """T + k may exceed n: then as many of the newest rows as the window needs are left out."""
    store, history = FrameStore(SPEC, 60), History(1, 0, (1000, 1000), crash=0.0, idle=0.0)
    sampler = prioritised(store, BatchSpec(tuple(range(8)), FIELDS, crossing="mask"), RewardPriority(n_step=1))
    for _ in range(15):
        fill(store, history, 10)
        drawable = np.flatnonzero(weights_of(sampler))
        assert len(drawable) == max(0, store.rows - 7 - (0 if store.rings.starts[0] == 0 else 1))
    batch = sampler.cut(*sampler.anchors.draw(sampler.generator, len(drawable)))
    assert batch.valid.all()


def test_draws_follow_successive_sampling_without_replacement() -> None:
    """Two of four leaves: every ordered pair as often as w_a / W * w_b / (W - w_a)."""
    weights, rng = np.array([1.0, 2.0, 0.0, 3.0, 4.0]), np.random.default_rng(0)
    tree = SumTree(5)
    tree.set(np.arange(5), weights)
    pairs = [(a, b) for a in (0, 1, 3, 4) for b in (0, 1, 3, 4) if a != b]
    counts = dict.fromkeys(pairs, 0)
    draws = 20_000
    for _ in range(draws):
        first, second = distinct_leaves(tree, 2, rng.random)[:2].tolist()
        counts[first, second] += 1
    wanted = [draws * weights[a] / 10 * weights[b] / (10 - weights[a]) for a, b in pairs]
    assert chisquare(list(counts.values()), wanted).pvalue > 1e-3


def test_one_weight_that_outshines_the_others_does_not_block() -> None:
    store, history = FrameStore(SPEC, 60), History(1, 0, (60, 60), crash=0.0, idle=0.0)
    history.step(store)
    for row in range(40):  # all reward in one row, seen by one anchor
        side = {"state": np.zeros((1, 3)), "camera:1": np.zeros((1, 2))}
        flags = ([False], [False], [False])
        store.add([0], np.zeros((1, 2, 2, 4), np.uint8), np.zeros((1, 2)), [float(row == 20)], *flags, side)
    sampler = prioritised(store, BatchSpec(fields=FIELDS), RewardPriority(alpha=1e12, n_step=1), batch=40)
    assert sorted(sampler.anchors.draw(sampler.generator)[1]) == list(range(40))
    with pytest.raises(UserError, match=r"batch larger than data: 41 samples .* only 40 of 41"):
        sampler.anchors.draw(sampler.generator, 41)


def test_a_sum_tree_finds_what_the_cumulative_sum_finds() -> None:
    rng = np.random.default_rng(3)
    for leaves in (1, 2, 3, 37, 64):
        tree, weights = SumTree(leaves), np.zeros(leaves)
        for _ in range(20):
            some = rng.permutation(leaves)[: rng.integers(1, leaves + 1)]
            weights[some] = rng.integers(0, 5, len(some))  # whole numbers: both sums are exact
            tree.set(some, weights[some])
            assert tree.total == weights.sum()
            if tree.total:
                mass = np.append(rng.random(50) * tree.total, tree.total)
                np.testing.assert_array_equal(tree.find(mass), np.searchsorted(np.cumsum(weights), mass))
                assert weights[tree.find(np.zeros(1))] > 0


def test_priorities_need_rewards_and_sense() -> None:
    video = FrameStore(StoreSpec((1, 2, 2), None, rewards=False), 10)
    with pytest.raises(UserError, match="needs rewards"):
        prioritised(video, BatchSpec(), RewardPriority())
    assert not isinstance(prioritised(video, BatchSpec(), RewardPriority(alpha=0)).anchors, PriorityAnchors)
    with pytest.raises(ValueError, match="alpha >= 0"):
        RewardPriority(n_step=0)
