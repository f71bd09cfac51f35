"""Checkpoints: whole or refused, whatever happens while they are written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

import visrep.files
from damage import cut, flip_bit
from visrep.errors import UserError
from visrep.files import write_atomic
from visrep.runs.checkpoints import CheckpointStore


def state_at(step: int) -> dict[str, Any]:
    return {"step": step, "weights": torch.full((1000,), float(step)), "nested": {"pair": (1, [2.5, None, "x"])}}


def store_with(folder: Path, *steps: int) -> CheckpointStore:
    store = CheckpointStore(folder)
    for step in steps:
        store.save(step, state_at(step))
    return store


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_keeps_the_newest_two(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    store = store_with(folder)
    assert store.latest() is None and store.previous() is None
    with pytest.raises(UserError, match="no checkpoint"):
        store.load()
    (folder / "store-pretrain").mkdir()
    for step in (100, 200, 300):
        store.save(step, state_at(step))
    assert names(folder) == ["000000000200", "000000000300", "store-pretrain"]
    reopened = CheckpointStore(folder)
    assert reopened.load("latest")["step"] == 300 and reopened.load("previous")["step"] == 200
    loaded = reopened.load()
    assert loaded["nested"] == state_at(300)["nested"] and torch.equal(loaded["weights"], state_at(300)["weights"])


def test_two_checkpoints_at_one_step(tmp_path: Path) -> None:
    store = store_with(tmp_path, 100)
    store.save(100, {"step": "later"})
    assert store.load("latest") == {"step": "later"} and store.load("previous")["step"] == 100


def test_continuing_from_the_previous_one_outlives_the_damaged_newer_one(tmp_path: Path) -> None:
    store_with(tmp_path, 100, 200)
    store = CheckpointStore(tmp_path)
    assert store.load("previous")["step"] == 100
    store.save(150, state_at(150))
    assert names(tmp_path) == ["000000000100", "000000000150"]
    assert store.load("latest")["step"] == 150
    with pytest.raises(UserError, match="resume=auto"):
        store_with(tmp_path / "one", 5).load("previous")


@pytest.mark.parametrize("file", ["state.pt", "manifest.json"])
def test_flipped_bits_and_cut_files_are_found(tmp_path: Path, file: str) -> None:
    store = store_with(tmp_path, 100, 200)
    path = tmp_path / "000000000200" / file
    whole, draw = path.read_bytes(), random.Random(5)
    for _ in range(25):
        flip_bit(path, draw.randrange(8 * len(whole)))
        with pytest.raises(UserError, match=rf"{file} is damaged.*step 100\) is intact: add resume=previous"):
            store.load()
        path.write_bytes(whole)
    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        cut(path, size)
        with pytest.raises(UserError, match=rf"{file} is (cut off|damaged).*resume=previous"):
            store.load()
        path.write_bytes(whole)
    path.unlink()
    with pytest.raises(UserError, match=rf"{file}.*resume=previous"):
        store.load()


def test_damage_with_nothing_better_says_so(tmp_path: Path) -> None:
    store = store_with(tmp_path, 100)
    flip_bit(tmp_path / "000000000100" / "state.pt", 999)
    with pytest.raises(UserError, match="no earlier checkpoint"):
        store.load()
    store = store_with(tmp_path, 200)
    flip_bit(tmp_path / "000000000200" / "state.pt", 999)
    with pytest.raises(UserError, match="no better"):
        store.load()


def test_disk_full_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_with(tmp_path, 100)
    real = os.fsync
    for fails_at in range(4):  # state.pt, manifest.json, the folder, the folder above
        calls = 0

        def full(descriptor: int, fails_at: int = fails_at) -> None:
            nonlocal calls
            calls += 1
            if calls > fails_at:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(descriptor)

        monkeypatch.setattr(visrep.files.os, "fsync", full)
        with pytest.raises(
            UserError, match=r"no space left for .* [\d,]{4,} bytes are needed.*step 100\) is untouched"
        ):
            store.save(200, state_at(200))
        monkeypatch.setattr(visrep.files.os, "fsync", real)
        if fails_at < 3:
            assert names(tmp_path) == ["000000000100"]
        assert CheckpointStore(tmp_path).load()["step"] in (100, 200)
    store.save(300, state_at(300))
    assert store.load()["step"] == 300


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_disk_really_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_with(tmp_path, 100)
    real = visrep.files.write_synced
    monkeypatch.setattr("visrep.runs.checkpoints.write_synced", lambda path, data: real(Path("/dev/full"), data))
    with pytest.raises(UserError, match="no space left"):
        store.save(200, state_at(200))
    assert names(tmp_path) == ["000000000100"] and store.load()["step"] == 100


def test_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_with(tmp_path / "state", 100)

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)  # a real mode change would not stop root
    with pytest.raises(UserError, match=r"cannot write .*Permission denied.*another folder"):
        store.save(200, state_at(200))
    with pytest.raises(UserError, match="cannot write"):
        CheckpointStore(tmp_path / "other")
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(UserError, match="cannot write"):
        write_atomic(tmp_path / "config.yaml", b"x")


def test_leftovers_are_removed(tmp_path: Path) -> None:
    store_with(tmp_path, 100)
    (tmp_path / ".tmp-000000000200").mkdir()
    (tmp_path / ".tmp-000000000200" / "state.pt").write_bytes(b"half")
    (tmp_path / ".tmp-manifest.json-7").write_bytes(b"half")
    assert CheckpointStore(tmp_path).load()["step"] == 100
    assert names(tmp_path) == ["000000000100"]


def test_a_pickle_is_not_executed(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    store = store_with(tmp_path / "state", 100)
    path = tmp_path / "state" / "000000000100"
    torch.save({"bomb": Bomb()}, path / "state.pt", pickle_module=pickle)
    assert zipfile.is_zipfile(path / "state.pt")
    payload = (path / "state.pt").read_bytes()
    manifest = json.loads((path / "manifest.json").read_bytes())
    manifest.pop("manifest_sha256")
    manifest["files"]["state.pt"] = {"bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
    signature = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (path / "manifest.json").write_text(json.dumps({**manifest, "manifest_sha256": signature}))
    with pytest.raises(UserError, match="more than plain data"):
        store.load()
    assert not (tmp_path / "executed").exists()


SAVER = """
import sys, torch
from visrep.runs.checkpoints import CheckpointStore
store = CheckpointStore(sys.argv[1])
step = 0 if store.latest() is None else store.load()["step"]
print("ready", flush=True)
while True:
    step += 1
    store.save(step, {"step": step, "weights": torch.full((200_000,), float(step))})
"""


def test_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    draw, reached = random.Random(11), 0
    for _ in range(4):
        child = subprocess.Popen([sys.executable, "-c", SAVER, str(tmp_path)], stdout=subprocess.PIPE)
        try:
            assert child.stdout is not None and child.stdout.readline() == b"ready\n"
            time.sleep(0.15 + 0.2 * draw.random())
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
        store = CheckpointStore(tmp_path)
        state = store.load()
        assert torch.equal(state["weights"], torch.full((200_000,), float(state["step"])))
        assert state["step"] > reached
        assert all(not name.startswith(".") for name in names(tmp_path)) and len(names(tmp_path)) <= 3
        reached = state["step"]
