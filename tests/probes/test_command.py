"""``visrep probe`` from the command line to its files, on frames of the built-in arena; what is missing is said."""

from __future__ import annotations

import errno
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from probe_tools import Through, make_store, report_of, whole_state

from visrep import files
from visrep.cli import main
from visrep.console import Console
from visrep.data.actions import ActionSpec
from visrep.data.dataset import write_dataset
from visrep.data.store import FrameStore, StoreSpec
from visrep.encoders import InputContract, build_encoder
from visrep.envs.make import make_env
from visrep.errors import UserError
from visrep.network_files import save_encoder
from visrep.probes import run, table
from visrep.probes.run import Candidate, load_candidates, run_probes

SIZE = 24
FILES = {"probe.json", "probe.md", "probe.png", "probe.svg"}


def arena_data(folder: Path, episodes: int = 8, length: int = 25, size: int = SIZE) -> Path:
    env = make_env("toy/maze", image_size=size)
    spec = StoreSpec((3, size, size), ActionSpec(2), {"state": (2,)})
    store, rng = FrameStore(spec, episodes * (length + 1)), np.random.default_rng(0)
    for episode in range(episodes):
        frame, info = env.reset(seed=episode)
        action, heading = np.zeros(2, np.float32), rng.uniform(-1, 1, 2)
        for t in range(length + 1):
            if t:
                action = np.clip(heading + rng.normal(size=2), -1, 1).astype(np.float32)
                frame, _, _, _, info = env.step(action)
            gain = float(info["state"][0]) if t else 0.0
            image = np.asarray(frame).transpose(2, 0, 1)[None]
            store.add(
                [0], image, action[None], [gain], [t == 0], [False], [t == length], {"state": info["state"][None]}
            )
    write_dataset(store, folder, {"frame_stack": 3, "environment": env.unwrapped.fingerprint()})
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return arena_data(tmp_path_factory.mktemp("data") / "arena", episodes=30)


def encoder_run(folder: Path, seed: int = 0, kind: str = "proto", size: int = SIZE) -> Path:
    torch.manual_seed(seed)
    (folder / "model").mkdir(parents=True)
    encoder = build_encoder(kind, InputContract(size, size), channels=4)
    save_encoder(encoder, folder / "model" / "encoder.safetensors", {"agent_step": 7})
    return folder


def test_one_run_gives_json_table_and_figure(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = encoder_run(tmp_path / "mine")
    words = ["probe", f"encoder={home}", f"data={data}", "samples=120", "seed=3", "device=cpu"]
    assert main(words) == 0
    folder = home / "probe" / "arena"
    assert {path.name for path in folder.iterdir()} == FILES
    said, report = capsys.readouterr().out, json.loads((folder / "probe.json").read_text())
    names = [code["name"] for code in report["codes"]]
    assert names == [
        "mine",
        "random proto",
        next(n for n in names if n.startswith("pixels PCA")),
        "true state",
        "constant",
    ]
    assert all(f"| {name} |" in said and f"| {name} |" in (folder / "probe.md").read_text() for name in names)
    assert "only 6 test episodes" in said and f"written: {folder}" in said
    scores = {code["role"]: code["probes"] for code in report["codes"]}
    assert scores["state"]["state"]["mean"]["point"] > 0.999 > scores["pixels"]["state"]["mean"]["point"] > 0.5
    assert report["codes"][0]["about"]["provenance"]["agent_step"] == 7
    train, test = report["split"]["train"], report["split"]["test"]
    assert train["rows"] == 120 and train["episodes"] <= 21 and test["episodes"] == 6
    assert report["settings"] == {"samples": 120, "seed": 3}
    assert report["provenance"]["versions"]["torch"] == torch.__version__
    assert len(np.unique(imread(folder / "probe.png").reshape(-1, 4), axis=0)) > 20
    first = (folder / "probe.json").read_bytes()
    assert main(words) == 0 and (folder / "probe.json").read_bytes() == first  # the same bits again


def test_several_encoders_share_rows_and_controls(data: Path, tmp_path: Path) -> None:
    one, two = encoder_run(tmp_path / "one"), encoder_run(tmp_path / "two", seed=1)
    both = f"encoder={one},{two / 'model' / 'encoder.safetensors'}"
    assert main(["probe", both, f"data={data}"]) == 2  # where to?
    out = tmp_path / "out"
    assert main(["probe", both, f"data={data}", "samples=100", f"out={out}", "device=cpu"]) == 0
    codes = json.loads((out / "probe.json").read_text())["codes"]
    assert [code["role"] for code in codes] == ["encoder", "encoder", "random", "pixels", "state", "constant"]
    assert [code["name"] for code in codes[:2]] == ["one", "two"]
    assert codes[0]["probes"] != codes[1]["probes"]
    assert main(["probe", f"encoder={two}", f"data={data}", "samples=100", "device=cpu"]) == 0
    alone = json.loads((two / "probe" / "arena" / "probe.json").read_text())["codes"]
    assert alone[0]["probes"] == codes[1]["probes"]  # company does not change a score


def test_probing_draws_from_no_global_stream() -> None:
    store = make_store(whole_state, episodes=6, length=20)
    torch.manual_seed(1)
    np.random.seed(1)
    before, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()
    report_of(store, samples=50)
    assert torch.equal(torch.get_rng_state(), before) and np.array_equal(np.random.get_state()[1], numpys)


def text_of(report: dict[str, Any]) -> str:
    return table.markdown(report)


@pytest.mark.filterwarnings("error")
def test_what_a_store_does_not_hold_is_left_out_and_said(tmp_path: Path) -> None:
    stateless = report_of(make_store(with_state=False))
    assert any("world holds no state" in note for note in stateless["notes"])
    assert "true state" not in [code["name"] for code in stateless["codes"]]
    assert "state R²" not in text_of(stateless) and "| action |" in text_of(stateless)
    video = report_of(make_store(with_actions=False, with_state=False, reward=None))
    assert [note for note in video["notes"] if "holds no" in note] == [
        "world holds no state: only actions, reward and geometry are probed, without the true state",
        "world holds no actions: they are not probed", "world holds no rewards: they are not probed",
    ]  # fmt: skip
    assert "action |" not in text_of(video) and "reward" not in text_of(video).split("| code")[1]
    assert "| RankMe |" in text_of(video)
    no_action = report_of(make_store(with_actions=False))
    assert "action |" not in text_of(no_action) and "| state R² |" in text_of(no_action)
    assert "reward R²" in text_of(no_action)
    for name, report in (("stateless", stateless), ("video", video), ("no_action", no_action)):
        run.write_report(report, tmp_path / name)
        assert {path.name for path in (tmp_path / name).iterdir()} == FILES
        json.dumps(report, allow_nan=False)
    silent = make_store()
    silent.columns["reward"].values[:] = 0
    report = report_of(silent)
    assert "the reward is the same in all rows: it is not probed" in report["notes"]
    assert report["codes"][0]["probes"]["reward"] is None


def test_a_still_state_is_not_probed() -> None:
    store = make_store()
    store.columns["state"].values[:] = 1
    report = report_of(store)
    assert any("hardly varies" in note for note in report["notes"])
    assert report["codes"][0]["probes"]["state"] is None


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["encoder=nowhere", "data={data}"], ["nowhere"]),
        (["encoder=,", "data={data}"], ["encoder= names no encoder", "several with commas"]),
        (["data={data}"], ["missing encoder="]),
        (["encoder={run}"], ["missing data="]),
        (["encoder={run}", "data=nowhere"], ["no dataset in nowhere"]),
        (["encoder={run}", "data={data}", "sample=3"], ["known keys are encoder, data", "did you mean samples"]),
        (["encoder={run}", "data={data}", "samples=0"], ["samples=0: the probes are fitted on at least 20 rows"]),
        (["encoder={run}", "data={data}", "samples=5"], ["samples=5: the probes are fitted on at least 20 rows"]),
        (["encoder={run}", "data={data}", "seed=-1"], ["seed=-1: a whole number from 0"]),
        (["encoder={run}", "data={data}", f"seed={2**64}"], [f"seed={2**64}: a whole number from 0"]),
        (["encoder={run}", "data={data},{data}"], ["a probe takes one dataset"]),
        (["encoder={run}", "data={data}/dataset.json"], ["is a file: name the dataset's folder", "data={data}"]),
        (["encoder={run}", "data=nowhere,"], ["a probe takes one dataset"]),
        (["encoder={run}", "data={data}", "out={file}"], ["cannot write into {file}, because", "is a file"]),
        (["encoder={run}", "data={data}", "device=toaster"], ["device=toaster"]),
        (["encoder={run}", "data={data}", "out={file}/x", "samples=50"], ["cannot write"]),
        (["encoder={file}", "data={data}"], ["not a visrep file"]),
        (["encoder={other}", "data={data}"], ["takes frames of 3x32x32", "holds 3x24x24", "image size"]),
        (["encoder={run}", "data={short}"], ["too few episodes", "at least 5, but the data have 4"]),
    ],
)
def test_bad_input_is_one_message(
    words: list[str], parts: list[str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    places = {"data": data, "run": encoder_run(tmp_path / "run"), "file": tmp_path / "file"}
    places["file"].write_text("text")
    if "{other}" in words[0]:
        places["other"] = encoder_run(tmp_path / "other", size=32)
    if "{short}" in words[-1]:
        places["short"] = arena_data(tmp_path / "short", episodes=4)
    assert main(["probe", *(word.format(**places) for word in words)]) == 2
    said = capsys.readouterr().err
    assert all(part.format(**places) in said for part in parts) and "Traceback" not in said, said
    assert not list(tmp_path.glob("run/probe"))


def test_features_that_are_not_finite_are_refused() -> None:
    broken = Through(4, 4, function=lambda vectors: vectors / 0)
    with pytest.raises(UserError, match="encoder it gives features that are not finite"):
        report_of(make_store(), broken)


def test_pixels_are_not_vectors() -> None:
    spec = StoreSpec((3, 1, 1), None, rewards=False)
    candidate = Candidate("v", build_encoder("vector", InputContract(1, 1, channels=3)), {})
    with pytest.raises(UserError, match=r"3x1x1 .*floats of any size.* of uint8"):
        run_probes([candidate], FrameStore(spec, 10), {}, "pixels", Console(quiet=True))


def test_too_little_memory_names_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "available_ram", lambda: 2_000_000)
    with pytest.raises(UserError, match=r"need .* of memory, .* are free: set samples=\d+ or lower"):
        report_of(make_store(), Through(4, 4_000, function=lambda v: v.repeat(1, 1_000)))
    report_of(make_store(episodes=6), samples=30)


def test_encoders_of_one_name_are_numbered(tmp_path: Path) -> None:
    homes = [encoder_run(tmp_path / place / "same") for place in ("a", "b")]
    assert [c.name for c in load_candidates(",".join(map(str, homes)))] == ["same", "same (2)"]


def test_the_terminal_shows_one_column_per_code() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    report = report_of(make_store(episodes=6, length=20), samples=50)
    table.show(report, Console(stream=stream))
    said = stream.getvalue()
    assert "true state" in said and "probes on world" in said
    point = report["codes"][0]["probes"]["state"]["mean"]["point"]
    assert f"{point:.2f}" in next(line for line in said.splitlines() if "state R²" in line)


def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(dir: Path) -> None:  # as a read-only folder does, to everybody but root
        assert dir == tmp_path
        raise PermissionError(errno.EACCES, "Permission denied")

    home = encoder_run(tmp_path / "run")
    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(run, "open_dataset", lambda *_, **__: pytest.fail("the data were opened"))
    assert main(["probe", f"encoder={home}", f"data={data}", f"out={tmp_path}/new/folder", "device=cpu"]) == 2
    said = capsys.readouterr().err
    assert f"cannot write {tmp_path}/new/folder (Permission denied)" in said and "nothing was done yet" in said
    assert not (tmp_path / "new").exists()


def test_the_table_is_shown_even_if_the_files_cannot_be_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, value: Any) -> None:
        raise UserError("no space left")

    monkeypatch.setattr(run, "write_json_atomic", full)
    words = ["probe", f"encoder={encoder_run(tmp_path / 'run')}", f"data={data}", "samples=60", "device=cpu"]
    assert main(words) == 2
    said = capsys.readouterr()
    assert "| true state |" in said.out and "no space left" in said.err and "written:" not in said.out


def test_a_report_on_something_else_is_replaced_with_a_word(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, folder = encoder_run(tmp_path / "mine"), tmp_path / "mine" / "probe" / "arena"

    def said(*words: str) -> str:
        assert main(["probe", f"encoder={home}", *words, "device=cpu"]) == 0
        return "".join(line for line in capsys.readouterr().out.splitlines() if "will be replaced" in line)

    assert said(f"data={data}", "samples=60") == said(f"data={data}", "samples=60") == ""
    earlier = f"note: the earlier report in {folder} will be replaced"
    assert said(f"data={data}", "samples=40") == f"{earlier} (mine on {data}, samples=60 seed=0); out=<folder> keeps it"
    assert "samples=40 seed=0" in said(f"data={data}", "samples=40", "seed=1")
    namesake = arena_data(tmp_path / "elsewhere" / "arena")
    assert f"{earlier} (mine on {data}, samples=40 seed=1)" in said(f"data={namesake}", "samples=40", "seed=1")
    shutil.rmtree(home / "model")
    encoder_run(home, seed=1)  # learned again
    assert f"mine on {namesake}" in said(f"data={namesake}", "samples=40", "seed=1")
    (folder / "probe.json").write_text("[1")
    assert said(f"data={namesake}", "samples=40", "seed=1").startswith(f"{earlier} (it cannot be read)")
    assert json.loads((folder / "probe.json").read_text())["dataset"]["folder"] == str(namesake)
