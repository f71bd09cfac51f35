"""``visrep export``."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from export_tools import SIZE, encoder_of

import visrep
from visrep.cli import main
from visrep.export.frames import ChannelsFirst


def export(*words: str) -> int:
    return main(["export", *words])


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
def test_a_class_is_shown_as_code_that_runs(to: str, encoder_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(f"encoder={encoder_file}", f"to={to}") == 1
    said = capsys.readouterr().err
    assert f"to={to} is no file but a class" in said
    code = said[re.search("^from ", said, flags=re.MULTILINE).start() :]  # type: ignore[union-attr]
    scope: dict[str, object] = {}
    if to == "sb3":
        from stable_baselines3 import SAC

        env = ChannelsFirst(visrep.make_env("toy/maze_center", image_size=SIZE, frame_stack=3))
        scope = {"SAC": lambda *args, **kwargs: SAC(*args, buffer_size=10, **kwargs), "env": env}
    exec(code, scope)


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
    assert export(f"encoder={encoder_file}", *words) == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("to", ["onnx", "standalone", "sb3", "torchrl"])
def test_an_encoder_that_is_not_there_is_refused(to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(f"encoder={tmp_path}/none.safetensors", f"to={to}", f"out={tmp_path}/x") == 1
    said = capsys.readouterr().err
    assert "none.safetensors does not exist" in said and "Traceback" not in said
