"""The command ``visrep export``: what can be written as files, and what is a class of this package instead."""

from __future__ import annotations

from visrep.errors import UserError, nearest
from visrep.export.common import the_encoder

FILES = ("onnx", "standalone")
CLASSES = {
    "sb3": (
        "from stable_baselines3 import SAC\n"
        "from visrep.export.sb3 import VisrepFeaturesExtractor\n"
        'SAC("CnnPolicy", env, policy_kwargs=dict(features_extractor_class=VisrepFeaturesExtractor, '
        "features_extractor_kwargs=dict(encoder={encoder!r}, frozen=True)))"
    ),
    "torchrl": "from visrep.export.torchrl import VisrepFeatures\nVisrepFeatures({encoder!r}, frozen=True)",
}


def export_encoder(encoder: str, to: str, out: str | None = None) -> str:
    """Write an encoder file, or a run directory's encoder, in another form.

    Returns:
        Where it was written; of a form that is a class, the lines that use it.

    Raises:
        UserError: unknown form, no ``out`` for a file or one for a class, or no encoder there.
    """
    if to in CLASSES:
        the_encoder(encoder)
        if out is not None:
            raise UserError(f"to={to} is a class and no file: leave out={out} away")
        return f"# to={to} is no file but a class, and takes the encoder as it is:\n{_usage(to, encoder)}"
    if to not in FILES:
        near = nearest(to, (*FILES, *CLASSES))
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"to={to}: known are {', '.join((*FILES, *CLASSES))}{hint}")
    if out is None:
        raise UserError(f"missing out=<{'file.onnx' if to == 'onnx' else 'folder'}>")
    if to == "onnx":
        from visrep.export.onnx import export_onnx

        return str(export_onnx(encoder, out))
    from visrep.export.standalone import export_standalone

    return str(export_standalone(encoder, out))


def _usage(to: str, encoder: str) -> str:
    return CLASSES[to].format(encoder=encoder)
