"""``visrep export``."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import stable_baselines3
import torch
from export_tools import SIZE, encoder_of

import visrep
from visrep.cli import main
from visrep.export.frames import ChannelsFirst
from visrep.network_files import load_encoder, save_encoder


def export(*words: str) -> int:
    return main(["export", *words])


def content(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder: files with their bytes, folders with None."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def test_a_run_directory_is_enough(
    encoder_file: Path, images: torch.Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    encoder_file.rename(run / "model" / "encoder.safetensors")
    assert export(f"encoder={run}", "to=onnx", f"out={tmp_path}/encoder.onnx") == 0
    assert export(f"encoder={run}", "to=standalone", f"out={tmp_path}/alone") == 0
    assert capsys.readouterr().out.splitlines() == [f"{tmp_path}/encoder.onnx", f"{tmp_path}/alone"]
    (features,) = onnxruntime.InferenceSession(tmp_path / "encoder.onnx").run(None, {"images": images.numpy()})
    expected = encoder_of("proto")(images).detach().numpy()
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert (tmp_path / "alone" / "encoder.py").exists()


@pytest.mark.parametrize("to", ["sb3", "torchrl"])
def test_a_class_is_shown_as_code_that_runs(
    to: str, encoder_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert export(f"encoder={encoder_file}", f"to={to}") == 0
    code = capsys.readouterr().out
    assert f"to={to} is no file but a class" in code
    scope: dict[str, object] = {}
    if to == "sb3":
        env = ChannelsFirst(visrep.make_env("toy/maze_center", image_size=SIZE, frame_stack=3))
        scope = {"env": env}
        monkeypatch.setattr(stable_baselines3, "SAC", functools.partial(stable_baselines3.SAC, buffer_size=10))
    exec(code, scope)
    assert export(f"encoder={encoder_file}", f"to={to}", "out=x") == 2
    assert "leave out=x away" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["to=onx", "out=x"], "to=onx: known are onnx, standalone, sb3, torchrl; did you mean onnx?"),
        (["to=onnx"], "missing out=<file.onnx>"),
        (["to=standalone"], "missing out=<folder>"),
        ([], "missing to="),
        (["to=onnx", "ou=x"], "did you mean out?"),
    ],
)
def test_wrong_words_are_refused(
    words: list[str], says: str, encoder_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(f"encoder={encoder_file}", *words) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("to", ["onnx", "standalone", "sb3", "torchrl"])
def test_an_encoder_that_is_not_there_is_refused(to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(f"encoder={tmp_path}/none.safetensors", f"to={to}", f"out={tmp_path}/x") == 2
    said = capsys.readouterr().err
    assert "none.safetensors does not exist" in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("to=onnx out={encoder}", "would overwrite {encoder}, which is to be exported"),
        ("to=onnx out={home}/linked", "would overwrite {encoder}, which is to be exported"),
        ("to=onnx out={home}/data/dataset.json", "visrep export to=onnx did not write it: nothing was written"),
        ("to=onnx out={home}/empty", "visrep export to=onnx did not write it"),
        ("to=onnx out={home}/foreign.onnx", "visrep export to=onnx did not write it"),
        ("to=standalone out={home}", "would overwrite {encoder}, which is to be exported"),
        ("to=standalone out={home}/myproj", "holds README.md, encoder.py, which visrep export to=standalone did not"),
        ("to=standalone out={home}/data", "holds dataset.json, which visrep export to=standalone did not write"),
        ("to=standalone out={home}/run", "holds config.yaml, model, which visrep export to=standalone did not write"),
        ("to=standalone out={home}/run/model", "holds encoder.safetensors, which visrep export to=standalone did not"),
        ("to=standalone out={home}/odd", "holds encoder.py, which visrep export to=standalone did not write"),
    ],
)
def test_what_export_did_not_write_stays(
    words: str, says: str, encoder_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("data", "myproj", "run/model", "odd/encoder.py"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("data/dataset.json", "myproj/README.md", "myproj/encoder.py", "run/config.yaml"):
        (tmp_path / name).write_text('{"mine": true}')
    (tmp_path / "empty").touch()
    (tmp_path / "linked").symlink_to(encoder_file)
    (tmp_path / "run" / "model" / "encoder.safetensors").write_bytes(encoder_file.read_bytes())
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "mine", [], [])), tmp_path / "foreign.onnx")
    before, places = content(tmp_path), {"home": tmp_path, "encoder": encoder_file}
    assert export(f"encoder={encoder_file}", *words.format(**places).split()) == 2
    said = capsys.readouterr().err
    assert says.format(**places) in said and "Traceback" not in said, said
    assert content(tmp_path) == before


@pytest.mark.parametrize("to", ["onnx", "standalone"])
def test_an_earlier_export_of_the_same_kind_is_replaced(
    to: str, encoder_file: Path, tmp_path: Path, images: torch.Tensor
) -> None:
    out, other = tmp_path / "out", tmp_path / "other.safetensors"
    assert export(f"encoder={encoder_file}", f"to={to}", f"out={out}") == 0
    if to == "standalone":
        (out / "use.py").write_text("mine")  # what lies beside the export is none of its business
        (out / "README.md").unlink()  # as a kill between two files leaves it
    first = content(tmp_path)
    save_encoder(encoder_of("dmlab"), other, {})
    assert export(f"encoder={other}", f"to={to}", f"out={out}") == 0
    assert content(tmp_path) != first
    if to == "standalone":
        assert torch.equal(load_encoder(out / "encoder.safetensors")(images), encoder_of("dmlab")(images))
        assert (out / "use.py").read_text() == "mine" and (out / "README.md").exists()
    second = content(tmp_path)
    wrong = {"onnx": "standalone", "standalone": "onnx"}[to]
    assert export(f"encoder={other}", f"to={wrong}", f"out={out}") == 2
    assert content(tmp_path) == second


def test_weights_that_took_the_place_of_the_exported_ones_stay(
    encoder_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "alone"
    assert export(f"encoder={encoder_file}", "to=standalone", f"out={out}") == 0
    assert export(f"encoder={out / 'encoder.safetensors'}", "to=standalone", f"out={out}") == 2
    assert "which is to be exported" in capsys.readouterr().err
    save_encoder(encoder_of("dmlab"), out / "encoder.safetensors", {})
    before = content(out)
    assert export(f"encoder={encoder_file}", "to=standalone", f"out={out}") == 2
    assert "holds encoder.safetensors, which visrep export to=standalone did not write" in capsys.readouterr().err
    assert content(out) == before
