from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from histories import SPEC, History, fill, make_store
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from slow_sampler import SlowLane

from visrep.data.actions import ActionSpec
from visrep.data.anchors import Anchors, Window
from visrep.data.batch import BatchSpec
from visrep.data.sampler import Sampler
from visrep.data.store import FrameStore, StoreSpec
from visrep.errors import UserError

FIELDS = frozenset({"image", "action", "reward", "terminal", "state"})


def compare_with_slow(
    store: FrameStore, history: History, spec: BatchSpec, stack: int, window: int, padding: str = "repeat"
) -> int:
    """Every valid anchor, and every value of its sample, equals the loop-written reference. Returns the anchors."""
    sampler = Sampler(store, spec, batch_size=1, frame_stack=stack, discount=0.9, stack_padding=padding)  # type: ignore[arg-type]
    slow = [SlowLane(rows, window, stack, padding) for rows in history.rows]
    wanted = [(lane, row) for lane, s in enumerate(slow) for row in s.anchors(spec)]
    lanes, rows = store.rings.locate(sampler.anchors.all())
    assert list(zip(lanes.tolist(), rows.tolist())) == wanted
    if not wanted:
        return 0
    batch = sampler.cut(lanes, rows)
    samples = [slow[lane].sample(row, spec, 0.9) for lane, row in wanted]
    got = {"image": batch.images[0], "valid": batch.valid, **batch.fields}
    for name, values in got.items():
        np.testing.assert_array_equal(values.numpy(), np.stack([s[name] for s in samples]), err_msg=name)
    if spec.n_step:
        assert batch.n_step_return is not None and batch.n_step_discount is not None
        np.testing.assert_allclose(batch.n_step_return, [s["return"] for s in samples], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(batch.n_step_discount, [s["discount"] for s in samples], rtol=1e-5)
    return len(wanted)


@settings(max_examples=150, deadline=None)
@given(
    lanes=st.integers(1, 3),
    window=st.integers(2, 20),
    calls=st.integers(1, 60),
    longest=st.integers(1, 30),
    seed=st.integers(0, 10**6),
    stack=st.integers(1, 4),
    offsets=st.sets(st.integers(-3, 6), min_size=1, max_size=4),
    n_step=st.integers(0, 4),
    crossing=st.sampled_from(["forbid", "mask"]),
    padding=st.sampled_from(["repeat", "zero"]),
)
def test_equals_the_loop_written_reference(
    lanes: int,
    window: int,
    calls: int,
    longest: int,
    seed: int,
    stack: int,
    offsets: set[int],
    n_step: int,
    crossing: str,
    padding: str,
) -> None:
    spec = BatchSpec(tuple(offsets), FIELDS, n_step=n_step, crossing=crossing)  # type: ignore[arg-type]
    store, history = FrameStore(SPEC, window * lanes, lanes), History(lanes, seed, (1, longest))
    fill(store, history, calls)
    compare_with_slow(store, history, spec, stack, window, padding)


@pytest.mark.parametrize("storage", ["disk", "device"])
@pytest.mark.parametrize("crossing", ["forbid", "mask"])
def test_other_storages_give_the_same_samples(storage: str, crossing: str, tmp_path: Path) -> None:
    store, history = make_store(storage, tmp_path, 60, 3, slack=5), History(3, 5, (1, 15))
    fill(store, history, 70)
    spec = BatchSpec((0, 1, 3), FIELDS, n_step=3, crossing=crossing)  # type: ignore[arg-type]
    assert compare_with_slow(store, history, spec, stack=3, window=20) > 10


@pytest.mark.parametrize(("capacity", "listed"), [(60, True), (120, False)])
def test_uniform_over_all_transitions(capacity: int, listed: bool) -> None:
    """Unequal episodes, lanes at different positions, the ring wrapped around; both ways of drawing."""
    store, history = FrameStore(SPEC, capacity, 3), History(3, 11, (2, 12), idle=0.3)
    fill(store, history, capacity)
    spec = BatchSpec((0, 1), FIELDS)
    sampler = Sampler(store, spec, 10, 2, generator=np.random.default_rng(0))
    valid = sampler.anchors.all()
    sampler.anchors._listed = None
    counts: dict[tuple[int, int], int] = {}
    draws = 4000
    for _ in range(draws):
        lanes, rows = sampler.anchors.draw(sampler.generator)
        for key in zip(lanes.tolist(), rows.tolist()):
            counts[key] = counts.get(key, 0) + 1
    assert (sampler.anchors._listed is not None) == listed
    assert len(counts) == len(valid)
    assert chisquare(list(counts.values())).pvalue > 1e-3
    # The test has the power to see a 1 % tilt between lanes-sized groups: see the next test.


def test_the_uniformity_test_can_fail() -> None:
    rng = np.random.default_rng(0)
    tilted = np.bincount(rng.choice(50, 40_000, p=np.linspace(0.9, 1.1, 50) / 50), minlength=50)
    assert chisquare(tilted).pvalue < 1e-3


def test_scarce_anchors_are_found_and_uniform() -> None:
    """One long episode among many short ones: almost no row can anchor a long window."""
    store, history = FrameStore(SPEC, 4000, 1), History(1, 0, (1, 2), idle=0.0, crash=0.0)
    fill(store, history, 3000)
    while history.left[0]:
        history.step(store)
    history.lengths = (40, 40)
    fill(store, history, 40)
    history.lengths = (1, 2)
    fill(store, history, 500)
    sampler = Sampler(store, BatchSpec(tuple(range(21)), FIELDS), 10, 1, generator=np.random.default_rng(1))
    assert len(sampler.anchors.all()) == 20
    rows = np.concatenate([sampler.anchors.draw(sampler.generator)[1] for _ in range(400)])
    numbers, counts = np.unique(rows, return_counts=True)
    assert len(numbers) == 20 and chisquare(counts).pvalue > 1e-3


def test_batch_larger_than_data_is_refused() -> None:
    store, history = FrameStore(SPEC, 100, 1), History(1, 0, (10, 10), crash=0.0, idle=0.0)
    sampler = Sampler(store, BatchSpec((0, 1), FIELDS), 9, 1)
    with pytest.raises(UserError, match="batch larger than data: 9 samples were asked for, but only 0 of 0"):
        sampler.sample()
    fill(store, history, 9)
    with pytest.raises(UserError, match="only 8 of 9"):
        sampler.sample()
    fill(store, history, 1)
    assert sampler.sample().image(1).shape == (9, 2, 2, 4)


def test_a_missing_field_is_refused_with_advice() -> None:
    with pytest.raises(UserError, match="needs 'mask', but the replay store provides only"):
        Sampler(FrameStore(SPEC, 10), BatchSpec((0,), frozenset({"image", "mask"})), 1, 1)


def test_missing_actions_name_the_objectives_that_fit() -> None:
    video = StoreSpec((1, 2, 2), None, rewards=False)
    assert video.provides == {"image", "terminal", "is_last"}
    spec = BatchSpec((0, 1), frozenset({"image", "action"}))
    with pytest.raises(UserError, match=r"inverse needs 'action'.*or use an objective that fits: atc, vae"):
        spec.check(video.provides, "film/", "objective=inverse", fitting=["atc", "vae"])
    with pytest.raises(UserError, match="or use an objective that does without"):
        spec.check(video.provides, "film/", "objective=inverse")
    with pytest.raises(UserError, match=r"needs 'reward'.*record the data with its rewards"):
        Sampler(FrameStore(video, 10), BatchSpec(n_step=2), 1, 1)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("storage", ["ram", "disk", "device"])
def test_images_of_any_dtype_and_no_actions(dtype: str, storage: str, tmp_path: Path) -> None:
    spec = StoreSpec((2, 3, 3), None, frame_dtype=dtype, rewards=False)
    store = FrameStore(spec, 24, 2, storage=storage, path=tmp_path / "live")  # type: ignore[arg-type]
    assert store.nbytes_per_row == 18 * np.dtype(dtype).itemsize + 1 + 4 + 4
    frames = (255 * np.random.default_rng(0).random((12, 2, 2, 3, 3))).astype(dtype)
    for t, new in enumerate(frames):
        store.add([0, 1], new, None, None, [t == 0] * 2, [False] * 2, [t == 11] * 2)
    state = store.save(tmp_path / "live")
    again = FrameStore(spec, 24, 2, storage=storage, path=tmp_path / "live")  # type: ignore[arg-type]
    again.load(tmp_path / "live", state)
    sampler = Sampler(again, BatchSpec((0, 1)), 4, 2, stack_padding="zero")
    image = sampler.cut(np.array([0, 1, 0, 1]), np.array([0, 0, 3, 10])).image(1)
    assert image.dtype == getattr(torch, dtype)
    wanted = [np.concatenate([frames[t, lane], frames[t + 1, lane]]) for lane, t in ((0, 0), (1, 0), (0, 3), (1, 10))]
    np.testing.assert_array_equal(image.numpy(), np.stack(wanted))
    assert not sampler.cut(np.array([0]), np.array([0])).image(0)[0, :2].any()
    first, second = sampler.sample(), sampler.sample()
    assert first.images[0].data_ptr() != second.images[0].data_ptr()


def test_the_generator_state_continues_the_sequence() -> None:
    store = FrameStore(SPEC, 500, 2)
    fill(store, History(2, 3), 300)
    spec = BatchSpec((0, 1), FIELDS)
    sampler = Sampler(store, spec, 16, 3, generator=np.random.default_rng(4))
    sampler.sample()
    state = json.loads(json.dumps(sampler.state_dict()))
    wanted = [sampler.sample().images[0] for _ in range(3)]
    other = Sampler(store, spec, 16, 3, generator=np.random.default_rng(99))
    other.load_state_dict(state)
    for images in wanted:
        assert torch.equal(other.sample().images[0], images)


def test_batches_are_never_overwritten_while_held() -> None:
    store = FrameStore(SPEC, 200, 1)
    fill(store, History(1, 3, (20, 20)), 200)
    sampler = Sampler(store, BatchSpec((0,), FIELDS), 16, 2, generator=np.random.default_rng(4))
    held = [sampler.sample().image(0) for _ in range(12)]  # views of the buffers only
    copies = [image.clone() for image in held]
    for _ in range(12):
        sampler.sample()
    assert all(torch.equal(a, b) for a, b in zip(held, copies))
    pool = sampler._pool
    assert pool is not None
    del held
    first = pool.take((16, 1, 2, 2, 2, 4)).data_ptr()  # freed at once, so the next one is the same memory
    assert pool.take((16, 1, 2, 2, 2, 4)).data_ptr() == first


def test_anchor_validity_reads_only_live_rows() -> None:
    """A store one row short of wrapping, then wrapped: the row after the write head is never part of a window."""
    store, history = FrameStore(SPEC, 10, 1), History(1, 0, (1000, 1000), crash=0.0, idle=0.0)
    anchors = Anchors(store, Window(0, 1, 3), 1)
    for _ in range(35):
        history.step(store)
        rows = store.rings.locate(anchors.all())[1]
        count = len(history.rows[0])
        oldest = 0 if count <= 10 else count - 10 + 2
        assert rows.tolist() == list(range(oldest, count - 1))


def test_images_only_where_they_are_asked_for() -> None:
    store = FrameStore(StoreSpec((1, 2, 2), ActionSpec(1)), capacity=16)
    for row in range(8):
        frame = np.full((1, 1, 2, 2), row, np.uint8)
        store.add([0], frame, [[float(row > 0) * row]], [0.0], [row == 0], [False], [False])
    every = BatchSpec((0, 1, 3), frozenset({"image", "action"}))
    some = BatchSpec((0, 1, 3), frozenset({"image", "action"}), image_offsets=(3, 0))
    assert every.images_at == (0, 1, 3) and some.images_at == (0, 3)
    assert some.union(BatchSpec((0, 1))).images_at == (0, 1, 3)
    lanes, anchors = np.zeros(2, np.int64), np.array([1, 4])
    batch = Sampler(store, some, batch_size=2, frame_stack=1).cut(lanes, anchors)
    assert batch.images[0].shape == (2, 2, 1, 2, 2)
    assert batch.image(3)[:, 0, 0, 0].tolist() == [4, 7] and batch.at("action", 1)[:, 0].tolist() == [2.0, 5.0]
    with pytest.raises(KeyError, match="offset 1"):
        batch.image(1)
    with pytest.raises(ValueError, match="image_offsets"):
        BatchSpec((0, 1), image_offsets=(2,))
