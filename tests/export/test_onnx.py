"""The ONNX graph: any batch size, bytes in, metadata that says what it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from export_tools import encoder_of

import visrep.export.onnx as export
from visrep.errors import UserError
from visrep.network_files import encoder_metadata


@pytest.fixture
def model_file(encoder_file: Path, tmp_path: Path) -> Path:
    return export.export_onnx(encoder_file, tmp_path / "new" / "encoder.onnx")


@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_batch_size(model_file: Path, images: torch.Tensor, count: int) -> None:
    batch = images.repeat(2, 1, 1, 1)[:count]
    session = onnxruntime.InferenceSession(model_file)
    (features,) = session.run(["features"], {"images": batch.numpy()})
    expected = encoder_of("proto")(batch).detach().numpy()
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_only_bytes_of_the_right_shape_go_in(model_file: Path, images: torch.Tensor) -> None:
    session = onnxruntime.InferenceSession(model_file)
    with pytest.raises(Exception, match="tensor\\(uint8\\)"):
        session.run(None, {"images": images.numpy().astype(np.float32) / 255})
    with pytest.raises(Exception, match="invalid dimensions"):
        session.run(None, {"images": images[:, :3].numpy()})


def test_metadata_says_what_it_is(model_file: Path, encoder_file: Path) -> None:
    model = onnx.load(model_file)
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(about["visrep"]) == encoder_metadata(encoder_file)
    assert "9, 40, 40" in about["input"] and "oldest frame first" in about["input"] and "0..255" in about["input"]
    assert [file.name for file in model_file.parent.iterdir()] == ["encoder.onnx"], "weights lie in the file itself"


def test_a_graph_that_differs_is_not_written(
    encoder_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = export._graph

    def off(encoder: Any) -> Any:
        model = graph(encoder)
        for tensor in model.graph.initializer:
            if tensor.name.endswith("convs.6.bias"):
                tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) + 1e-3, tensor.name))
                return model
        raise AssertionError([tensor.name for tensor in model.graph.initializer])

    monkeypatch.setattr(export, "_graph", off)
    with pytest.raises(UserError, match="nothing was written"):
        export.export_onnx(encoder_file, tmp_path / "encoder.onnx")
    assert not (tmp_path / "encoder.onnx").exists()


def test_bad_places_are_refused(encoder_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder: name the file"):
        export.export_onnx(encoder_file, tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        export.export_onnx(tmp_path / "none.safetensors", tmp_path / "encoder.onnx")
