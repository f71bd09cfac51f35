"""What was written as a dataset opens again, is never changed by opening, and is never mistaken for a whole one."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from histories import SPEC, History, assert_holds, fill, make_store

from visrep.data import dataset as module
from visrep.data.actions import ActionSpec
from visrep.data.batch import BatchSpec
from visrep.data.dataset import open_dataset, read_manifest, write_dataset
from visrep.data.episodes import episodes, longest_episode, require_reach, return_statistics
from visrep.data.sampler import Sampler
from visrep.data.store import FrameStore, StoreSpec
from visrep.data.writer import DatasetWriter
from visrep.errors import UserError

MANIFEST = {"frame_stack": 3, "environment": {"name": "toy"}, "provenance": {"policy": "random", "seed": 1}}


def made(folder: Path, storage: str = "ram", calls: int = 70) -> tuple[FrameStore, History]:
    store, history = make_store(storage, folder, 60, 3), History(3, 1, (1, 15))
    fill(store, history, calls)
    return store, history


@pytest.mark.parametrize("storage", ["ram", "disk", "device"])
@pytest.mark.parametrize("source", ["ram", "disk"])
@pytest.mark.parametrize("calls", [12, 70])
@pytest.mark.filterwarnings("error")
def test_a_dataset_opens_as_it_was_written(source: str, storage: str, calls: int, tmp_path: Path) -> None:
    store, history = made(tmp_path / "live", source, calls)
    folder = tmp_path / "data"
    manifest = write_dataset(store, folder, MANIFEST)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    for path in folder.iterdir():
        path.chmod(0o444)
    opened = open_dataset(folder, storage)  # type: ignore[arg-type]
    assert_holds(opened.store, history.rows, 20)
    assert opened.manifest == manifest == read_manifest(folder) and opened.folder == folder
    assert opened.frame_stack == 3 and opened.store.transitions == store.transitions == manifest["transitions"]
    assert manifest["rows"] == store.rows and manifest["environment"] == {"name": "toy"}
    assert manifest["episodes"] == len(episodes(store)) and manifest["longest_episode"] == longest_episode(store)
    spec = BatchSpec((0, 1), frozenset({"image", "action", "state"}), crossing="mask")
    ours, theirs = (Sampler(s, spec, 8, 2, generator=np.random.default_rng(0)).sample() for s in (store, opened.store))
    assert torch.equal(ours.images[0], theirs.images[0]) and torch.equal(ours.at("state", 1), theirs.at("state", 1))
    with pytest.raises(ValueError, match="read-only"):
        fill(opened.store, History(3, 2, idle=0.0), 1)
    with pytest.raises(ValueError, match="read-only"):
        opened.store.save(tmp_path / "other")
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == before


def test_a_dataset_takes_no_more_room_than_its_rows(tmp_path: Path) -> None:
    store = FrameStore(StoreSpec((1, 8, 8), ActionSpec(1)), 10_000, 2)
    for t in range(20):
        store.add([0, 1], np.zeros((2, 1, 8, 8), np.uint8), [[0], [0]], [0, 0], [t == 0] * 2, [False] * 2, [False] * 2)
    write_dataset(store, tmp_path, {})
    assert (tmp_path / "image.npy").stat().st_size == 40 * 64 + 128


def test_a_write_that_was_cut_short_is_no_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At any write: neither the first dataset of a folder nor one that takes another's place."""
    old, _ = made(tmp_path, calls=20)
    new, history = made(tmp_path, calls=70)
    real, fail_at = os.pwrite, [0]

    def failing(descriptor: int, data: bytes, offset: int) -> int:
        fail_at[0] -= 1
        if fail_at[0] == 0:
            real(descriptor, data[: len(data) // 2], offset)
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data, offset)

    for replaced in (False, True):
        for fails in (1, 5, 18):
            folder = tmp_path / f"{replaced}{fails}"
            if replaced:
                write_dataset(old, folder, {})
            fail_at[0] = fails
            with monkeypatch.context() as patch:
                patch.setattr(os, "pwrite", failing)
                with pytest.raises(UserError, match="disk full"):
                    write_dataset(new, folder, {}, replace=replaced)
            with pytest.raises(UserError, match="its writing was interrupted"):
                open_dataset(folder)
            write_dataset(new, folder, {}, replace=replaced)
            assert_holds(open_dataset(folder).store, history.rows, 20)
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_json_atomic", lambda *_: 1 / 0)  # everything but the manifest
        with pytest.raises(ZeroDivisionError):
            write_dataset(new, tmp_path / "last", {})
    with pytest.raises(UserError, match="interrupted"):
        open_dataset(tmp_path / "last")


def test_a_dataset_is_replaced_only_on_demand(tmp_path: Path) -> None:
    store, history = made(tmp_path)
    write_dataset(store, tmp_path / "a", {})
    with pytest.raises(UserError, match=r"holds a dataset already: choose another folder$"):
        write_dataset(store, tmp_path / "a", {})
    opened = open_dataset(tmp_path / "a", "disk").store
    with pytest.raises(ValueError, match="own rows lie in"):
        write_dataset(opened, tmp_path / "a", {}, replace=True)
    with pytest.raises(TypeError):
        write_dataset(store, tmp_path / "a", {"provenance": object()}, replace=True)
    with pytest.raises(ValueError, match="fills rows, state itself"):
        write_dataset(store, tmp_path / "a", {"rows": 1, "state": 2}, replace=True)
    assert_holds(open_dataset(tmp_path / "a").store, history.rows, 20)


def flip(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[-30] ^= 1
        (folder / name).write_bytes(data)

    return damage


def cut(folder: Path) -> None:
    data = (folder / "image.npy").read_bytes()
    (folder / "image.npy").write_bytes(data[:-100])


def rewrite(**changes: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        manifest = json.loads((folder / "dataset.json").read_text())
        manifest.update(changes)
        (folder / "dataset.json").write_text(json.dumps(manifest))

    return damage


@pytest.mark.parametrize("storage", ["ram", "disk"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip("image.npy"), r"are damaged: row \d+ of lane 2 does not match its checksum"),
        (flip("reward.npy"), "does not match its checksum"),
        (cut, r"image.npy is damaged or truncated"),
        (lambda folder: (folder / "action.npy").unlink(), r"action.npy is missing"),
        (lambda folder: (folder / "dataset.json").write_text('{"format":'), r"dataset.json is damaged"),
        (lambda folder: (folder / "dataset.json").write_text("[]"), r"holds no JSON object"),
        (rewrite(format="visrep-dataset-9"), "has format 'visrep-dataset-9'; this version"),
        (rewrite(store={}), r"dataset.json is damaged \(KeyError"),
        (lambda folder: (folder / "dataset.json").unlink(), "its writing was interrupted"),
    ],
)
def test_damage_is_found(storage: str, damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    store, _ = made(tmp_path)
    write_dataset(store, tmp_path / "data", MANIFEST)
    damage(tmp_path / "data")
    with pytest.raises(UserError, match=message):
        open_dataset(tmp_path / "data", storage)  # type: ignore[arg-type]


@pytest.mark.parametrize("storage", ["ram", "disk"])
@pytest.mark.parametrize(
    "damage",
    [
        flip("image.npy"),
        cut,
        lambda folder: (folder / "action.npy").unlink(),
        lambda folder: (folder / "image.npy").write_bytes((folder / "reward.npy").read_bytes()),
    ],
)
def test_a_damaged_dataset_is_told_how_to_come_back(
    storage: str, damage: Callable[[Path], None], tmp_path: Path
) -> None:
    store, _ = made(tmp_path)
    write_dataset(store, tmp_path / "data", {"provenance": {"command": "visrep collect env=toy/maze out=data"}})
    damage(tmp_path / "data")
    with pytest.raises(UserError) as caught:
        open_dataset(tmp_path / "data", storage)  # type: ignore[arg-type]
    said = str(caught.value)
    assert "restore it from a copy, or record it again into another folder" in said
    assert said.endswith("it was written by: visrep collect env=toy/maze out=data")
    assert not any(word in said for word in ("delete", "new run", "run_dir", "this run", "checkpoint ", "resume"))


def test_a_damaged_collection_is_not_told_to_be_deleted(tmp_path: Path) -> None:
    one = writer(tmp_path)
    fill(one.store, History(2, 1, (3, 12), crash=0.0), 40)
    one.checkpoint({})
    rows = tmp_path / "collecting" / "rows"
    data = bytearray((rows / "image.npy").read_bytes())
    data[130] ^= 1  # of the first row; a header of 128 bytes is before it
    for damaged in (bytes(data), bytes(data[:-100])):
        (rows / "image.npy").write_bytes(damaged)
        with pytest.raises(UserError, match=r"damaged.*: restore it from a copy, or record into another folder$"):
            writer(tmp_path)


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(UserError, match=r"dataset\.json is a file, a dataset is a folder: name the folder that"):
        open_dataset(tmp_path / "dataset.json")


def test_folders_without_a_dataset_and_too_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="the folder does not exist"):
        open_dataset(tmp_path / "none")
    with pytest.raises(UserError, match="name another folder"):
        open_dataset(tmp_path)
    store, _ = made(tmp_path)
    write_dataset(store, tmp_path / "data", {})
    monkeypatch.setattr(module, "available_ram", lambda: 1000)
    with pytest.raises(UserError, match=r"needs 3.\d kB of memory, 1.0 kB are available: open it with storage=disk"):
        open_dataset(tmp_path / "data")
    open_dataset(tmp_path / "data", "disk")


# -- episodes ---------------------------------------------------------------------------------------------------------


def test_episodes_against_the_plain_record(tmp_path: Path) -> None:
    store, history = made(tmp_path)
    wanted, returns = [], []
    for lane, rows in enumerate(history.rows):
        start = max(0, len(rows) - 20)
        first = start
        for row in range(start, len(rows)):
            if row + 1 == len(rows) or rows[row + 1].first:
                wanted.append((lane, first, row))
                if rows[first].first and rows[row].last:
                    returns.append(sum(r.reward for r in rows[first : row + 1]))
                first = row + 1
    assert [tuple(episode) for episode in episodes(store)] == wanted
    statistics = return_statistics(store)
    assert statistics is not None and statistics["episodes"] == len(returns) > 2
    for name, function in (("mean", np.mean), ("std", np.std), ("min", np.min), ("max", np.max)):
        assert statistics[name] == pytest.approx(function(returns))
    assert longest_episode(store) == max(last - first for _, first, last in wanted)


def test_episodes_of_an_empty_store_and_of_video() -> None:
    assert episodes(FrameStore(SPEC, 10)) == [] and longest_episode(FrameStore(SPEC, 10)) == 0
    assert return_statistics(FrameStore(SPEC, 10)) is None
    assert return_statistics(FrameStore(StoreSpec((1, 2, 2), None, rewards=False), 10)) is None


def test_an_offset_longer_than_the_episodes_is_refused() -> None:
    store = FrameStore(StoreSpec((1, 2, 2), None, rewards=False), 25)
    for t in range(42):  # episodes of 20 agent steps; the older one has lost rows 0..16
        flags = ([t % 21 == 0], [False], [t % 21 == 20])
        store.add([0], np.zeros((1, 1, 2, 2), np.uint8), None, None, *flags)
    require_reach(store, BatchSpec((0, 20), crossing="mask"), 3, "data/toy")
    with pytest.raises(UserError, match=r"offset 50 is longer than the longest episode \(20 agent steps\) of data/toy"):
        require_reach(store, BatchSpec((0, 50), crossing="mask"), 3, "data/toy")
    with pytest.raises(UserError, match="offset 21 is longer"):
        require_reach(store, BatchSpec((-1, 20)), 3, "data/toy")
    # Exactly the windows that some anchor has: the same rule as the sampler's.
    for rows in range(1, 30):
        one = FrameStore(StoreSpec((1, 2, 2), None, rewards=False), 10)
        for t in range(rows):
            one.add([0], np.zeros((1, 1, 2, 2), np.uint8), None, None, [t == 0], [False], [False])
        for offset in range(1, 12):
            spec = BatchSpec((0, offset))
            anchors = Sampler(one, spec, 1, 3).anchors.all()
            if len(anchors):
                require_reach(one, spec, 3, "here")
            else:
                with pytest.raises(UserError, match=f"offset {offset} is longer"):
                    require_reach(one, spec, 3, "here")


# -- collecting -------------------------------------------------------------------------------------------------------


def writer(folder: Path, rows: int = 200, seed: int = 1) -> DatasetWriter:
    return DatasetWriter(folder, SPEC, rows, 2, {"environment": "toy", "seed": seed})


def whole_episodes(history: History, lane: int) -> list[Any]:
    rows = history.rows[lane]
    while rows and not rows[-1].last:
        rows = rows[:-1]
    return rows


def test_a_collection_keeps_its_finished_episodes(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    first = writer(folder)
    history = History(2, 1, (3, 12), crash=0.0)
    fill(first.store, history, 40)
    first.checkpoint({"next": [3, 4]})
    kept = [whole_episodes(history, lane) for lane in range(2)]
    fill(first.store, history, 9)  # after the checkpoint: lost
    with pytest.raises(UserError, match="not finished: run the same collect command again"):
        open_dataset(folder)

    second = writer(folder)
    assert second.progress == {"next": [3, 4]}
    assert second.finished_episodes.tolist() == [sum(row.first for row in rows) for rows in kept]
    assert_holds(second.store, kept, 200)
    more = History(2, 2, (3, 12), crash=0.0)
    fill(second.store, more, 30)
    assert second.room.tolist() == [200 - len(kept[lane]) - len(more.rows[lane]) for lane in range(2)]
    manifest = second.finish(MANIFEST)
    kept = [kept[lane] + whole_episodes(more, lane) for lane in range(2)]
    opened = open_dataset(folder)
    for lane, rows in enumerate(kept):
        numbers = np.arange(len(rows)) + opened.store.rings.starts[lane]
        stored = opened.store.read("image", np.full(len(rows), lane), numbers)
        np.testing.assert_array_equal(stored, np.stack([row.frame for row in rows]))
    assert manifest["rows"] == sum(map(len, kept)) and not (folder / "collecting").exists()
    with pytest.raises(UserError, match="holds a dataset already"):
        writer(folder)


def test_a_full_lane_takes_no_more_rows_and_loses_none(tmp_path: Path) -> None:
    one = writer(tmp_path, rows=10)
    fill(one.store, history := History(2, 1, (5, 5), crash=0.0, idle=0.0), 10)
    with pytest.raises(RuntimeError, match="more rows"):
        fill(one.store, history, 1)
    one.finish({})
    assert_holds(open_dataset(tmp_path).store, [rows[:10] for rows in history.rows], 10)


def test_another_collection_is_refused(tmp_path: Path) -> None:
    writer(tmp_path)
    with pytest.raises(UserError, match=r"unfinished collection of other data \(seed: 1 there, 2 asked for\):"):
        writer(tmp_path, seed=2)
    with pytest.raises(UserError, match=r"\(rows_per_lane: 200 there, 100 asked for\)"):
        writer(tmp_path, rows=100)
    (tmp_path / "collecting" / "progress.json").write_text("{")
    with pytest.raises(UserError, match=r"progress.json is damaged"):
        writer(tmp_path)


KILLED = """
import sys
from pathlib import Path
from histories import SPEC, History, fill
from visrep.data.writer import DatasetWriter
writer = DatasetWriter(Path(sys.argv[1]), SPEC, 4000, 2, {"environment": "toy", "seed": 1})
history = History(2, 1, (3, 12), crash=0.0)
print("begun", flush=True)
while True:
    fill(writer.store, history, 7)
    writer.checkpoint({"calls": writer.progress.get("calls", 0) + 7})
"""


@pytest.mark.parametrize("delay", [0.0, 0.03, 0.11])
def test_kill_9_loses_nothing_that_a_checkpoint_has_seen(delay: float, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "data")], stdout=subprocess.PIPE, env=environment
    )
    assert process.stdout is not None and process.stdout.readline() == b"begun\n"
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    again = DatasetWriter(tmp_path / "data", SPEC, 4000, 2, {"environment": "toy", "seed": 1})
    history = History(2, 1, (3, 12), crash=0.0)
    fill(None, history, again.progress.get("calls", 0))  # type: ignore[arg-type]
    assert_holds(again.store, [whole_episodes(history, lane) for lane in range(2)], 4000)
