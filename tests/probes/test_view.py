"""An encoder that learned through a crop is probed through that crop's centre, and so are its controls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from visrep.augment import parse_augmentation
from visrep.cli import main
from visrep.console import Console
from visrep.data.actions import ActionSpec
from visrep.data.dataset import write_dataset
from visrep.data.store import FrameStore, StoreSpec
from visrep.encoders import InputContract, build_encoder
from visrep.errors import UserError
from visrep.network_files import save_encoder
from visrep.probes.run import Candidate, run_probes
from visrep.probes.view import AS_THEY_ARE, view_of

STORED, CROPPED = 24, 16


def frames(border: int, size: int = STORED) -> FrameStore:
    """A bright square moves in the middle; noise of so many grey levels in the border outside of the crop's centre."""
    rng = np.random.default_rng(0)
    noise = np.random.default_rng(1)
    store, edge = FrameStore(StoreSpec((3, size, size), ActionSpec(2), {"state": (2,)}), 500), (size - CROPPED) // 2
    for _ in range(12):
        place = rng.integers(0, CROPPED - 5, 2)
        for t in range(21):
            place = np.clip(place + rng.integers(-1, 2, 2), 0, CROPPED - 5)
            image = noise.integers(0, border + 1, (3, size, size)).astype(np.uint8)
            image[:, edge : edge + CROPPED, edge : edge + CROPPED] = 40
            y, x = place + edge
            image[:, y : y + 5, x : x + 5] = 220
            store.add(
                [0], image[None], np.zeros((1, 2)), [float(t > 0)], [t == 0], [False], [t == 20],
                {"state": place[None].astype(np.float32)},
            )  # fmt: skip
    return store


def about(augment: Any) -> dict[str, Any]:
    return {"sha256": "0", "provenance": {"config": {"augment": augment}}}


def candidate(augment: str, size: int = CROPPED, name: str = "it") -> Candidate:
    torch.manual_seed(1)
    return Candidate(name, build_encoder("proto", InputContract(size, size, stack=1), channels=4), about(augment))


def codes_of(store: FrameStore, *candidates: Candidate) -> dict[str, dict[str, Any]]:
    report = run_probes(candidates, store, {}, "scene", Console(quiet=True), samples=60)
    return {code["name"]: code for code in report["codes"]}


def test_the_probe_sees_the_centre_and_so_do_the_controls() -> None:
    """What lies outside of the crop changes no score; images that were cut by hand give the same ones."""
    still, noisy = (codes_of(frames(border), candidate(f"shift+crop({CROPPED})")) for border in (0, 250))
    own = codes_of(frames(0, CROPPED), candidate("none"))
    assert [code["view"] for code in still.values()] == 3 * [f"shift(pad=4, p=1.0)+crop(out={CROPPED})"] + 2 * ["none"]
    assert any(name.startswith("pixels PCA") and name.endswith(" of 16x16") for name in still)
    for one, other, third in zip(still.values(), noisy.values(), own.values(), strict=True):
        assert one["probes"] == other["probes"] == third["probes"], one["name"]
    assert still["it"]["probes"]["geometry"]["alignment"] > 0


def test_each_view_has_controls_of_its_own() -> None:
    store = frames(250)
    codes = codes_of(store, candidate(f"crop({CROPPED})"), candidate("shift", STORED, "whole"))
    roles = [(code["role"], code["view"]) for code in codes.values()]
    for role in ("encoder", "random", "pixels"):
        assert [view for each, view in roles if each == role] == [f"crop(out={CROPPED})", "none"]
    assert codes["it"]["probes"] == codes_of(store, candidate(f"crop({CROPPED})"))["it"]["probes"]


def test_a_note_tells_what_is_seen() -> None:
    report = run_probes([candidate(f"crop({CROPPED})")], frames(0), {}, "scene", Console(quiet=True), samples=60)
    assert report["notes"][0].startswith("it sees frames of 24x24 pixels as 16x16, through crop(out=16)")


@pytest.mark.parametrize(
    "augment",
    ["none", "shift", "crop(12)", "translate(32)", "crop(99)", "crop(", "crop(16)+no_such_thing", None, 7],
)
def test_other_sizes_stay_refused(augment: Any) -> None:
    encoder, spec = candidate("none").encoder, frames(0).spec
    with pytest.raises(UserError, match=r"encoder it takes frames of 3x16x16 .* scene holds 3x24x24"):
        view_of(encoder, about(augment), spec, "it", "scene")


@pytest.mark.parametrize("metadata", [{}, {"provenance": None}, {"provenance": {"config": "lost"}}])
def test_files_that_name_no_augmentation(metadata: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="takes frames of 3x16x16"):
        view_of(candidate("none").encoder, metadata, frames(0).spec, "it", "scene")


def test_only_the_size_may_differ() -> None:
    encoder, crop = candidate("none").encoder, about("crop(16)")
    for spec in (StoreSpec((1, 24, 24), None), StoreSpec((3, 24, 24), None, frame_dtype="float32")):
        with pytest.raises(UserError, match="takes frames of 3x16x16"):
            view_of(encoder, crop, spec, "it", "scene")
    assert view_of(encoder, crop, StoreSpec((3, 16, 16), None), "it", "scene") == AS_THEY_ARE
    pasted = view_of(encoder, about("translate(16)"), StoreSpec((3, 10, 12), None), "it", "scene")
    assert pasted == parse_augmentation("translate(16)", 3)


def test_the_command_takes_the_key_from_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(frames(0), tmp_path / "scene", {})
    it = candidate(f"crop({CROPPED})")
    save_encoder(it.encoder, tmp_path / "run" / "model" / "encoder.safetensors", it.about["provenance"])
    words = ["probe", f"encoder={tmp_path / 'run'}", f"data={tmp_path / 'scene'}", "samples=60", "device=cpu"]
    assert main(words) == 0
    assert "note: run sees frames of 24x24 pixels as 16x16" in capsys.readouterr().out
    codes = json.loads((tmp_path / "run" / "probe" / "scene" / "probe.json").read_text())["codes"]
    assert codes[0]["view"] == "crop(out=16)"
