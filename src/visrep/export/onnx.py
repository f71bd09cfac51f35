"""ONNX: an encoder as a graph that runs without torch.

Shapes: B batch (any), S frame stack, C colour channels, H W pixels, D features.
"""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch

from visrep.encoders.contract import Encoder
from visrep.errors import UserError
from visrep.export.common import describe, missing_extra, probe_images, refuse_source, scaled_difference, the_encoder
from visrep.files import write_atomic, writing
from visrep.network_files import encoder_metadata

try:
    import onnx
    import onnxruntime
    import onnxscript  # noqa: F401  (torch.onnx writes with it)
    from google.protobuf.message import DecodeError
except ImportError as error:
    raise missing_extra("onnx", error) from error

INPUT, OUTPUT = "images", "features"
MARK = "visrep"  # entry of the metadata that every file written here has
TOLERANCE = 1e-5  # of the largest feature: another library's convolutions add up in another order


def export_onnx(source: Path | str, out: Path | str) -> Path:
    """Write an encoder as one ``.onnx`` file, after comparing its features with the encoder's own.

    Input ``images`` is uint8 [B, S*C, H, W] in 0..255, scaled by the graph (float32 where the encoder takes numbers of
    any size); output ``features`` is float32 [B, D]. The
    model's metadata holds ``visrep``, the JSON of the encoder file (kind, input contract, output, provenance), and
    ``input``, the contract in words.

    Args:
        source: encoder file or run directory.
        out: the file to write; its folder is made. What lies there is replaced if this function wrote it.

    Returns:
        The path written.

    Raises:
        UserError: no encoder file, another file lies there, it cannot be written, or the graph computes something else.
    """
    encoder, path = the_encoder(source), Path(out).expanduser()
    if path.is_dir():
        raise UserError(f"out={out} is a folder: name the file to write, such as {path / 'encoder.onnx'}")
    refuse_source(source, path, out)
    if path.exists() and not _written_here(path):
        raise UserError(
            f"out={out} exists, and visrep export to=onnx did not write it: nothing was written; name another file"
        )
    model = _graph(encoder)
    about = {MARK: json.dumps(encoder_metadata(source), sort_keys=True), "input": describe(encoder.contract)}
    onnx.helper.set_model_props(model, about)
    model.doc_string = f"visrep encoder of kind {encoder.kind}: {describe(encoder.contract)}"
    onnx.checker.check_model(model)
    blob = model.SerializeToString()
    _compare(blob, encoder)
    with writing(path, len(blob)):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, blob)
    return path


def _written_here(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        # Not onnx.load, which goes by the file's ending.
        model = onnx.ModelProto.FromString(path.read_bytes())
    except (DecodeError, OSError):
        return False
    return any(entry.key == MARK for entry in model.metadata_props)


def _graph(encoder: Encoder) -> Any:
    """The encoder as an ``onnx.ModelProto``."""
    example = probe_images(encoder.contract, 2)
    batch = torch.export.Dim("batch", min=1)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it tells every step it takes
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                encoder, (example,), dynamo=True, verbose=False, optimize=True,
                input_names=[INPUT], output_names=[OUTPUT], dynamic_shapes={"images": {0: batch}},
            )  # fmt: skip
    finally:
        logger.setLevel(level)
    assert program is not None  # with dynamo=True it is never
    return program.model_proto


def _compare(blob: bytes, encoder: Encoder) -> None:
    session = onnxruntime.InferenceSession(blob, providers=["CPUExecutionProvider"])
    for count in (1, 3):
        images = probe_images(encoder.contract, count)
        with torch.no_grad():
            expected = encoder(images)
        (features,) = session.run([OUTPUT], {INPUT: images.numpy()})
        error = scaled_difference(torch.from_numpy(features), expected)
        if not error <= TOLERANCE:
            raise UserError(
                f"the ONNX graph's features are off by {error:.1e} of the largest one (at most {TOLERANCE:g} is "
                f"accepted), so nothing was written: use other versions than torch {torch.__version__}, onnx "
                f"{onnx.__version__} and onnxruntime {onnxruntime.__version__}"
            )
