from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from histories import SPEC, History, assert_holds, count_transitions, fill, make_store

from visrep.data.actions import ActionSpec
from visrep.data.store import FrameStore, StoreSpec
from visrep.errors import UserError

STORAGES = ["ram", "disk", "device"]


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(("capacity", "lanes", "slack"), [(24, 1, 0), (25, 3, 4), (60, 4, 2)])
def test_the_last_rows_of_each_lane_are_kept(
    storage: str, capacity: int, lanes: int, slack: int, tmp_path: Path
) -> None:
    store = make_store(storage, tmp_path, capacity, lanes, slack)
    history = History(lanes, seed=capacity)
    window = -(-capacity // lanes)
    for _ in range(3 * window):
        history.step(store)
        assert store.transitions == count_transitions(history.rows, window)
    assert_holds(store, history.rows, window)
    assert store.rows == sum(min(len(rows), window) for rows in history.rows)


def test_a_row_costs_at_most_21_6_kilobytes() -> None:
    spec = StoreSpec((3, 84, 84), ActionSpec(6), {"state": (24,)})
    store = FrameStore(spec, capacity=100)
    assert store.nbytes_per_row <= 21_600
    allocated = sum(column.values.numel() * column.values.element_size() for column in store.columns.values())
    assert allocated + 4 * 100 == store.nbytes == 100 * store.nbytes_per_row


def test_discrete_actions_keep_their_type() -> None:
    store = FrameStore(StoreSpec((1, 2, 2), ActionSpec(1, classes=5)), capacity=4)
    frame = np.zeros((1, 1, 2, 2), np.uint8)
    store.add([0], frame, [[0]], [0], [True], [False], [False])
    store.add([0], frame, [[5]], [1], [False], [False], [False])
    actions = store.read("action", [0, 0], [0, 1])
    assert actions.dtype == np.int64 and actions.tolist() == [[0], [5]]


@pytest.mark.parametrize(("actions", "rewards"), [(ActionSpec(2), True), (ActionSpec(1, 3), True), (None, False)])
def test_first_rows_have_no_past(actions: ActionSpec | None, rewards: bool) -> None:
    store = FrameStore(StoreSpec((1, 2, 2), actions, {"state": (1,)}, rewards=rewards), capacity=8, lanes=3)
    frames = np.arange(8, dtype=np.uint8).reshape(2, 1, 2, 2)
    store.begin([2, 0], frames, {"state": np.array([[5.0], [6.0]])})
    assert store.rows == 2 and store.transitions == 0
    assert store.read("image", [2, 0], [0, 0]).tolist() == frames.tolist()
    assert store.read("state", [2, 0], [0, 0]).tolist() == [[5.0], [6.0]]
    assert store.read("is_first", [2, 0], [0, 0]).all() and not store.read("is_last", [2, 0], [0, 0]).any()
    for name in ("action", "reward"):
        assert name not in store.columns or not store.read(name, [2, 0], [0, 0]).any()


def test_wrong_rows_are_refused() -> None:
    store = FrameStore(StoreSpec((1, 2, 2), ActionSpec(1)), capacity=8, lanes=2)
    frame = np.zeros((1, 1, 2, 2), np.uint8)
    with pytest.raises(ValueError, match="must be a first row"):
        store.add([0], frame, [[0]], [0], [False], [False], [False])
    with pytest.raises(ValueError, match="no action and no reward"):
        store.add([0], frame, [[1]], [0], [True], [False], [False])
    with pytest.raises(ValueError, match="uint8 frames"):
        store.add([0], frame.astype(np.float32), [[0]], [0], [True], [False], [False])
    with pytest.raises(ValueError, match="distinct and below 2"):
        store.add([2], frame, [[0]], [0], [True], [False], [False])
    with pytest.raises(ValueError, match="side channels"):
        store.add([0], frame, [[0]], [0], [True], [False], [False], {"mask": np.zeros((1, 1))})
    store.add([0], frame, [[0]], [0], [True], [False], [True])
    with pytest.raises(ValueError, match="must be a first row"):
        store.add([0], frame, [[0]], [0], [False], [False], [False])
    assert store.rows == 1
    with pytest.raises(ValueError, match="two rows per lane"):
        FrameStore(StoreSpec((1, 2, 2), ActionSpec(1)), capacity=2, lanes=2)
    with pytest.raises(ValueError, match="names are taken"):
        StoreSpec((1, 2, 2), ActionSpec(1), {"reward": (1,)})


def test_a_store_takes_actions_and_rewards_exactly_if_it_keeps_them() -> None:
    frame = np.zeros((1, 1, 2, 2), np.uint8)
    flags = ([True], [False], [False])
    with pytest.raises(ValueError, match="pass a value as actions"):
        FrameStore(StoreSpec((1, 2, 2), ActionSpec(1)), 8).add([0], frame, None, [0], *flags)
    with pytest.raises(ValueError, match="pass None as actions"):
        FrameStore(StoreSpec((1, 2, 2), None), 8).add([0], frame, [[0]], [0], *flags)
    with pytest.raises(ValueError, match="pass None as rewards"):
        FrameStore(StoreSpec((1, 2, 2), None, rewards=False), 8).add([0], frame, None, [0], *flags)
    with pytest.raises(ValueError, match="frames are uint8, float16, float32, not int16"):
        StoreSpec((1, 2, 2), None, frame_dtype="int16")


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        StoreSpec((1, 2, 2), ActionSpec(1, classes=7), frame_dtype="float16"),
        StoreSpec((3, 4, 5), None, {"state": (2, 3)}, rewards=False),
    ],
)
def test_a_spec_survives_json(spec: StoreSpec) -> None:
    assert StoreSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_rows_outside_the_window_cannot_be_read() -> None:
    store = FrameStore(SPEC, capacity=6)
    fill(store, History(1, seed=1, idle=0.0), 10)
    assert store.read("reward", [0], [4]).shape == (1, 1)
    for row in (3, 10):
        with pytest.raises(IndexError):
            store.read("reward", [0], [row])


def test_disk_rows_survive_and_another_layout_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    store, history = make_store("disk", folder, 20, 2, slack=3), History(2, seed=3, idle=0.0)
    fill(store, history, 23)
    state = store.save(folder)
    del store
    again = make_store("disk", folder, 20, 2, slack=3)
    again.load(folder, state)
    assert_holds(again, history.rows, 10)
    with pytest.raises(UserError, match=r"image\.npy holds .* not uint8"):
        FrameStore(StoreSpec((3, 2, 4), ActionSpec(2)), 20, 2, 3, "disk", path=folder)
    with pytest.raises(UserError, match="use the settings"):
        make_store("disk", folder, 40, 2, slack=3)
    with pytest.raises(ValueError, match="needs a folder"):
        FrameStore(SPEC, 20, storage="disk")
