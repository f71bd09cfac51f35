from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from visrep.data import budget as module
from visrep.data.actions import ActionSpec
from visrep.data.budget import Budget, memory_budget
from visrep.data.store import FrameStore, StoreSpec
from visrep.errors import UserError

GB = 10**9


def make(tmp_path: Path, **changes: object) -> Budget:
    arguments: dict[str, object] = {
        "spec": StoreSpec((3, 84, 84), ActionSpec(6)), "capacity": 100_000, "slack": 10_000, "lanes": 1,
        "storage": "ram", "batch_size": 512, "frame_stack": 3, "offsets": 2, "run_dir": tmp_path / "run",
    }  # fmt: skip
    return memory_budget(**{**arguments, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("frame_dtype", ["uint8", "float16"])
def test_counts_what_the_store_and_its_files_occupy(frame_dtype: str, tmp_path: Path) -> None:
    batch = {"batch_size": 1, "offsets": 1, "frame_stack": 1}
    spec = StoreSpec((3, 8, 8), ActionSpec(6), {"state": (4,)}, frame_dtype)
    budget = make(tmp_path, spec=spec, capacity=50, slack=5, lanes=2, **batch)
    store = FrameStore(spec, 50, lanes=2, slack=5)
    assert budget.demand.row_bytes == store.nbytes_per_row
    assert budget.demand.total("RAM") == store.nbytes + 2 * 3 * 8 * 8 * np.dtype(frame_dtype).itemsize
    store.save(tmp_path)
    files = list(tmp_path.glob("*.npy"))
    headers = 128 * len(files)
    assert budget.demand.total("disk") == sum(path.stat().st_size for path in files) - headers
    twice = replace(budget.demand, phases=2)
    assert twice.total("disk") == 2 * budget.demand.total("disk")


def test_the_reference_setting_needs_two_gigabytes(tmp_path: Path) -> None:
    budget = make(tmp_path)
    assert 2.1 * GB < budget.demand.total("RAM") < 2.3 * GB  # the reference: 12.7 GB
    assert "RAM" in budget.table() and "2.1 GB" in budget.table()


@pytest.mark.parametrize(
    ("available", "expected"),
    [
        ({"RAM": 1 * GB, "disk": 9 * GB}, ["storage=disk needs 130.1 MB of RAM and 2.5 GB of disk", "capacity=36000"]),
        ({"RAM": 2 * GB, "disk": 9 * GB}, ["storage=disk", "image_size=64 needs 1.3 GB of RAM", "capacity=78000"]),
        ({"RAM": 9 * GB, "disk": 1 * GB}, ["replay_buffer_capacity=22000 needs"]),
        ({"RAM": 0, "disk": 0}, ["use a machine with more memory or disk"]),
    ],
)
def test_says_what_would_fit(available: dict[str, int], expected: list[str], tmp_path: Path) -> None:
    budget = Budget(make(tmp_path).demand, available)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="does not fit: it needs") as caught:
        budget.check()
    for text in expected:
        assert text in str(caught.value)
    assert "DOES NOT FIT" in budget.table()


def test_a_gpu_is_offered_only_where_there_is_one(tmp_path: Path) -> None:
    demand = replace(make(tmp_path).demand, gpu=True)
    text = "\n".join(Budget(demand, {"RAM": GB, "disk": 9 * GB, "GPU": 80 * GB}).alternatives())
    assert "storage=device needs 2.3 GB of GPU" in text
    demand = replace(demand, gpu=False)
    assert "device" not in "\n".join(Budget(demand, {"RAM": GB, "disk": 9 * GB}).alternatives())


def test_fits_on_this_machine_when_small(tmp_path: Path) -> None:
    budget = make(tmp_path, capacity=100, slack=10)
    budget.check()
    assert budget.fits() and "DOES NOT FIT" not in budget.table()


def test_files_of_the_run_itself_do_not_count_as_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: free)
    before = module.available_disk(tmp_path / "run")
    (tmp_path / "run").mkdir()
    np.save(tmp_path / "run" / "image.npy", np.ones(100_000))
    assert before == 1000 and module.available_disk(tmp_path / "run") >= 1000 + 800_000
