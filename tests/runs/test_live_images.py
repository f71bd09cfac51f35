"""What the live probe looks at: images of the data that are learned from, with a state where it has one meaning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_tools import records
from test_offline import dataset, pretrain

from visrep.data.dataset import open_dataset
from visrep.runs.probing import draw_images, states_agree

pytestmark = pytest.mark.usefixtures("in_process")

CPU = torch.device("cpu")


def change(folder: Path, **entries: Any) -> Path:
    """Overwrite entries of the manifest; None removes one."""
    file = folder / "dataset.json"
    manifest = {**json.loads(file.read_text()), **entries}
    file.write_text(json.dumps({key: value for key, value in manifest.items() if value is not None}))
    return folder


def measured(run_dir: Path) -> list[dict[str, Any]]:
    return [row for row in records(run_dir) if row["kind"] == "metrics" and "probe_rankme" in row]


@pytest.mark.parametrize(
    ("entries", "readable"),
    [
        ({}, True),
        ({"env": "toy/maze"}, False),
        ({"env": None}, False),
        ({"state_names": ["x", "y"]}, False),
    ],
)
def test_several_datasets_of_one_task_are_read_out(entries: dict[str, Any], readable: bool, tmp_path: Path) -> None:
    one, two = dataset(tmp_path / "one"), change(dataset(tmp_path / "two", seed=1), **entries)
    assert pretrain(tmp_path / "run", f"{one},{two}", "method=atc") == 0
    rows = measured(tmp_path / "run")
    assert rows and all(("probe_state_r2" in row) == readable for row in rows)


def test_names_that_agree_are_one_meaning(tmp_path: Path) -> None:
    folders = [dataset(tmp_path / name) for name in ("one", "two")]
    names = [{"env": env, "state_names": ["x", "y"]} for env in ("cheetah_run", "dmc/cheetah_run")]
    opened = [open_dataset(change(folder, **more)) for folder, more in zip(folders, names, strict=True)]
    assert states_agree(opened) and states_agree(opened[:1])
    del opened[0].manifest["env"]
    assert states_agree(opened[:1]) and not states_agree(opened)  # one dataset agrees with itself


def test_states_belong_to_their_images(tmp_path: Path) -> None:
    stores = [open_dataset(dataset(tmp_path / name, seed)).store for seed, name in enumerate(("one", "two"))]
    assert draw_images(stores, 2, None, CPU).state is None
    drawn = draw_images(stores, 2, None, CPU, one_state=True)
    assert drawn.state is not None and len(drawn.state) == len(drawn.images) == len(drawn.episodes)
    bright = (drawn.images[:, -1] == 250).numpy()
    corners = [(np.argmax(image.any(0)), np.argmax(image.any(1))) for image in bright]
    np.testing.assert_array_equal(drawn.state.numpy(), corners)
    assert len(np.unique(drawn.episodes)) == 24
