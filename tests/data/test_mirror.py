"""What was saved can be loaded, whatever happens to the run afterwards."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from histories import History, assert_holds, fill, make_store

from visrep.data.store import FrameStore
from visrep.errors import UserError

LANES, WINDOW, SLACK = 3, 12, 7


def new_store(storage: str, folder: Path) -> FrameStore:
    return make_store(storage, folder, WINDOW * LANES, LANES, SLACK)


def lengths(history: History) -> list[int]:
    return [len(rows) for rows in history.rows]


def assert_restores(
    storage: str, folder: Path, state: dict[str, Any], history: History, counts: list[int]
) -> FrameStore:
    store = new_store(storage, folder)
    store.load(folder, json.loads(json.dumps(state)))
    assert_holds(store, [rows[:count] for rows, count in zip(history.rows, counts)], WINDOW)
    return store


@pytest.mark.parametrize("storage", ["ram", "disk", "device"])
@pytest.mark.parametrize("seed", range(3))
def test_the_last_two_states_load_at_every_moment(
    storage: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is copied after every add and at random writes inside saves, as kill -9 would leave it."""
    live, rng = tmp_path / "live", np.random.default_rng(seed)
    store, history = new_store(storage, live), History(LANES, seed)
    states: list[tuple[dict[str, Any], list[int]]] = []
    copies = 0

    def snapshot() -> None:
        nonlocal copies
        for state, counts in states[-2:]:
            copies += 1
            copy = tmp_path / f"copy{copies}"
            shutil.copytree(live, copy)
            assert_restores(storage, copy, state, history, counts)
            shutil.rmtree(copy)

    real_write = os.pwrite

    def watched_write(descriptor: int, data: bytes, offset: int) -> int:
        if rng.random() < 0.03:
            real_write(descriptor, data[: len(data) // 2], offset)  # a write cut in the middle
            snapshot()
        return real_write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", watched_write)
    for _ in range(14):
        for _ in range(int(rng.integers(1, SLACK + 1))):
            history.step(store)
            if rng.random() < 0.2:
                snapshot()
        states.append((store.save(live), lengths(history)))
        snapshot()
    assert copies > 20 and min(lengths(history)) > WINDOW + 2 * SLACK


WRITER = """
import json, sys
from pathlib import Path
from histories import History
from test_mirror import LANES, SLACK, new_store
folder, storage = Path(sys.argv[1]), sys.argv[2]
store, history = new_store(storage, folder), History(LANES, 8)
while True:
    for _ in range(SLACK):
        history.step(store)
    state = store.save(folder)
    print(json.dumps([state, [len(rows) for rows in history.rows]]), flush=True)
"""


@pytest.mark.parametrize("storage", ["ram", "disk"])
def test_a_killed_process(storage: str, tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    command = [sys.executable, "-c", WRITER, str(folder), storage]
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths}) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(12)]
        time.sleep(float(np.random.default_rng().uniform(0, 0.02)))  # any moment must do
        process.kill()
        lines += process.stdout.readlines()
    whole = [line for line in lines if line.endswith(b"\n")]
    state, counts = json.loads(whole[-1])
    history = History(LANES, 8)
    while any(len(rows) < count for rows, count in zip(history.rows, counts)):
        history.step(None)
    assert_restores(storage, folder, state, history, counts)


def test_a_restored_store_continues_like_the_original(tmp_path: Path) -> None:
    store, history = new_store("ram", tmp_path / "a"), History(LANES, 1)
    fill(store, history, 20)
    state = store.save(tmp_path / "a")
    counts = lengths(history)
    restored = assert_restores("ram", tmp_path / "a", state, history, counts)
    assert restored.transitions == store.transitions
    for _ in range(4):
        before = lengths(history)
        history.step(store)
        for lane in np.flatnonzero(np.array(lengths(history)) > before):
            row = history.rows[lane][-1]
            restored.add(
                [lane], row.frame[None], row.action[None], [row.reward], [row.first], [row.terminal], [row.last],
                {"state": row.state[None], "camera:1": row.state[None, :2]},
            )  # fmt: skip
        restored.save(tmp_path / "a")
    assert_holds(restored, history.rows, WINDOW)
    assert restored.transitions == store.transitions


def test_only_new_rows_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, history = new_store("ram", tmp_path), History(LANES, 2, idle=0.0)
    written = 0
    real_write = os.pwrite

    def counting(descriptor: int, data: bytes, offset: int) -> int:
        nonlocal written
        written += len(data)
        return real_write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", counting)
    fill(store, history, 6)
    store.save(tmp_path)
    assert written == 6 * LANES * store.nbytes_per_row
    fill(store, history, 2)
    written = 0
    store.save(tmp_path)
    assert written == 2 * LANES * store.nbytes_per_row


@pytest.mark.parametrize("storage", ["ram", "disk"])
def test_an_export_is_a_whole_copy_and_changes_nothing(storage: str, tmp_path: Path) -> None:
    store, history = new_store(storage, tmp_path / "a"), History(LANES, 2)
    fill(store, history, 30)
    state, counts = store.save(tmp_path / "a"), lengths(history)
    fill(store, history, 2)
    exported = store.export(tmp_path / "b")
    assert exported["window"] == WINDOW
    copy = make_store("ram", tmp_path, WINDOW * LANES, LANES)
    copy.load(tmp_path / "b", exported)
    assert_holds(copy, history.rows, WINDOW)
    assert_restores(storage, tmp_path / "a", state, history, counts)
    if storage == "ram":
        with pytest.raises(ValueError, match="use export for a copy"):
            store.save(tmp_path / "b")


@pytest.mark.parametrize("storage", ["ram", "disk"])
def test_a_full_disk_leaves_the_last_state_loadable(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "rows"
    store, history = new_store(storage, folder), History(LANES, 4)
    fill(store, history, 30)
    state, counts = store.save(folder), lengths(history)
    fill(store, history, 5)
    calls = 0
    real_write = os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        nonlocal calls
        calls += 1
        if calls == 3:
            real_write(descriptor, data[:5], offset)
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(descriptor, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(UserError, match=r"disk full while saving .*rows: [\d,]+ bytes are needed"):
            store.save(folder)
    assert_restores(storage, folder, state, history, counts)
    assert_restores(storage, folder, store.save(folder), history, lengths(history))  # space was freed, the run goes on


def test_no_space_for_the_files_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match="disk full while making the replay files"):
        new_store("disk", tmp_path / "rows")
    assert not list((tmp_path / "rows").iterdir())


@pytest.mark.parametrize("storage", ["ram", "disk"])
@pytest.mark.parametrize("name", ["image", "reward", "flags", "camera_1", "crc"])
def test_a_changed_byte_is_found(storage: str, name: str, tmp_path: Path) -> None:
    store, history = new_store(storage, tmp_path), History(LANES, 5, idle=0.0)
    fill(store, history, 30)
    state = store.save(tmp_path)
    del store
    path = tmp_path / f"{name}.npy"
    values = np.load(path, mmap_mode="r+")
    row = 29 % values.shape[1]
    values[1, row].reshape(-1).view(np.uint8)[0] ^= 4
    values.flush()
    with pytest.raises(UserError, match="row 29 of lane 1 does not match its checksum"):
        new_store(storage, tmp_path).load(tmp_path, state)


@pytest.mark.parametrize("storage", ["ram", "disk"])
def test_truncated_and_missing_files_are_named(storage: str, tmp_path: Path) -> None:
    store, history = new_store(storage, tmp_path), History(LANES, 5)
    fill(store, history, 30)
    state = store.save(tmp_path)
    del store
    path = tmp_path / "image.npy"
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(UserError, match=r"image\.npy is damaged or truncated .* restore it from a copy"):
        new_store(storage, tmp_path).load(tmp_path, state)
    if storage == "ram":
        path.unlink()
        with pytest.raises(UserError, match=r"image\.npy is missing: restore it"):
            new_store(storage, tmp_path).load(tmp_path, state)


def test_another_layout_is_refused_with_the_difference(tmp_path: Path) -> None:
    store = new_store("ram", tmp_path)
    fill(store, History(LANES, 5), 10)
    state = store.save(tmp_path)
    other = make_store("ram", tmp_path, 2 * WINDOW * LANES, LANES, SLACK)
    with pytest.raises(UserError, match=f"window: saved {WINDOW}, now {2 * WINDOW}"):
        other.load(tmp_path, state)


@pytest.mark.parametrize("storage", ["ram", "disk"])
def test_outrunning_the_slack_stops_the_run_before_harm(storage: str, tmp_path: Path) -> None:
    store, history = new_store(storage, tmp_path), History(LANES, 6, idle=0.0)
    fill(store, history, 40)  # never saved: nothing to protect
    state, counts = store.save(tmp_path), lengths(history)
    fill(store, history, 2 * SLACK)
    with pytest.raises(RuntimeError, match=f"slack of {SLACK} rows per lane"):
        fill(store, history, 1)
    assert_restores(storage, tmp_path, state, history, counts)


def test_a_store_that_is_not_full_may_be_saved_without_slack(tmp_path: Path) -> None:
    store, history = make_store("ram", tmp_path, 30, 1), History(1, 0, idle=0.0)
    for _ in range(3):
        fill(store, history, 10)
        state = store.save(tmp_path)
    with pytest.raises(RuntimeError, match="slack of 0"):
        fill(store, history, 1)
    other = make_store("ram", tmp_path, 30, 1)
    other.load(tmp_path, state)
    assert_holds(other, [history.rows[0][:30]], 30)


def test_an_empty_store_can_be_saved(tmp_path: Path) -> None:
    state = new_store("ram", tmp_path).save(tmp_path)
    assert_restores("ram", tmp_path, state, History(LANES, 0), [0] * LANES)


def test_a_read_only_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(UserError, match="no permission for making the replay files"):
        new_store("ram", tmp_path).save(tmp_path / "rows")
