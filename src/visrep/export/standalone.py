"""An encoder as a folder of its own: readable source and weights that need torch and safetensors, and no visrep.

The source is put together from the encoder itself: its layers as they print, and its methods word for word.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import torch

from visrep.encoders.contract import Encoder
from visrep.errors import UserError
from visrep.export.common import describe, probe_images, refuse_source, takes_images, the_encoder
from visrep.files import TEMPORARY, write_atomic, writing
from visrep.network_files import encoder_metadata, save_encoder

SOURCE, WEIGHTS, README = "encoder.py", "encoder.safetensors", "README.md"
MARK = "Made by `visrep export to=standalone`, which replaces this file when it writes here again."
EXPORT = {"export": "standalone"}  # in the provenance of the weights, which hold no such line
PROVIDED = {"torch": torch, "nn": torch.nn, "Tensor": torch.Tensor}  # names that the written source imports


def export_standalone(source: Path | str, out: Path | str) -> Path:
    """Write ``encoder.py``, ``encoder.safetensors`` and ``README.md`` into a folder, after running the source.

    ``encoder.py`` has ``load(weights=...) -> Encoder``; its features equal the encoder's bit for bit.

    Args:
        source: encoder file or run directory.
        out: the folder; absent, empty, or with an earlier export in it, which is replaced.

    Returns:
        The folder.

    Raises:
        UserError: no encoder file, an encoder whose source cannot stand alone, or the folder holds other things or
            cannot be written.
    """
    encoder, folder = the_encoder(source), Path(out).expanduser()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"out={out} is a file: name the folder to write {SOURCE} and {WEIGHTS} into")
    refuse_source(source, folder / WEIGHTS, out)
    if folder.exists():
        _check_content(folder)
    provenance = {**encoder_metadata(source)["provenance"], **EXPORT}
    text = standalone_source(encoder)
    _compare(text, encoder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    save_encoder(encoder, folder / WEIGHTS, provenance)
    write_atomic(folder / README, _readme(encoder, provenance).encode())
    write_atomic(folder / SOURCE, text.encode())
    return folder


def _check_content(folder: Path) -> None:
    """Raise UserError unless a folder is empty, or holds an earlier export and nothing of it comes from elsewhere."""
    found = sorted(path.name for path in folder.iterdir() if not path.name.startswith(TEMPORARY))
    known = [name for name in found if name in (SOURCE, WEIGHTS, README)]
    strange = [name for name in known if not _written_here(folder / name)] if known else found[:3]
    if strange:
        raise UserError(
            f"{folder} holds {', '.join(strange)}, which visrep export to=standalone did not write: nothing was "
            "written; name a folder that does not exist yet"
        )


def _written_here(path: Path) -> bool:
    """Whether a file of one of the three names has the mark of this export."""
    try:
        if path.name == WEIGHTS:
            return EXPORT.items() <= encoder_metadata(path)["provenance"].items()
        return MARK in path.read_text(encoding="utf-8").splitlines()
    except (ValueError, OSError):  # no visrep file (UserError), no text, a folder
        return False


def standalone_source(encoder: Encoder) -> str:
    """The text of ``encoder.py``.

    Raises:
        UserError: a method uses something that is neither torch nor a function or method beside it.
    """
    contract, methods, functions = encoder.contract, *_needed(type(encoder))
    settings = [f"self.{name} = {getattr(encoder, name)!r}" for name in encoder.settings if name != "init"]
    layers = [f"    nn.{layer!r}," for layer in getattr(encoder, "convs", ())]
    parts = ["self.convs = nn.Sequential(", *layers, ")"] if layers else []
    return TEMPLATE.format(
        kind=encoder.kind,
        version=version("visrep"),
        mark=MARK,
        input=describe(contract),
        shape=contract.shape,
        latent_shape=encoder.latent_shape,
        feature_dim=encoder.feature_dim,
        weights=WEIGHTS,
        parts="".join(f"\n        {line}" for line in (*settings, *parts)),
        methods="\n".join(textwrap.indent(_source(method), " " * 4) for method in methods),
        functions="".join(f"\n\n{_source(function)}" for function in functions),
    )


def _needed(kind: type[Encoder]) -> tuple[list[FunctionType], list[FunctionType]]:
    """Methods, and functions of the encoder's own package, that ``features`` calls, directly or not, callers first."""
    packages = {"visrep", kind.__module__.partition(".")[0]}
    methods: dict[str, FunctionType] = {}
    functions: dict[str, FunctionType] = {}
    queue: list[Any] = [kind.features]
    while queue:
        caller = queue.pop(0)
        (methods if "." in caller.__qualname__ else functions)[caller.__name__] = caller
        for name in _names(caller.__code__):
            value = caller.__globals__.get(name)
            used = getattr(kind, name, None) if value is None else value
            if isinstance(used, FunctionType) and used.__module__.partition(".")[0] in packages:
                if used not in (*methods.values(), *functions.values(), *queue):
                    queue.append(used)
            elif value is not None and PROVIDED.get(name) is not value:
                raise UserError(
                    f"an encoder of kind {kind.kind!r} cannot stand alone: {caller.__qualname__} uses {name}, which is "
                    "neither torch nor a function beside it"
                )
    return list(methods.values()), list(functions.values())


def _names(code: CodeType) -> list[str]:
    """Names that compiled code looks up, those of its comprehensions and inner functions too."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return [*code.co_names, *(name for constant in inner for name in _names(constant))]


def _source(function: Callable[..., Any]) -> str:
    return textwrap.dedent(inspect.getsource(function))


def _compare(text: str, encoder: Encoder) -> None:
    module = ModuleType("encoder")
    module.__dict__["__file__"] = SOURCE
    exec(compile(text, SOURCE, "exec"), module.__dict__)
    images = probe_images(encoder.contract)
    problem = "its features differ"
    with torch.no_grad():
        expected = encoder(images)
        try:
            copy = module.Encoder()
            copy.load_state_dict(encoder.state_dict())
            if torch.equal(copy(images), expected) and torch.equal(copy(images.float()), expected):
                return
        except (RuntimeError, AttributeError, NameError, TypeError) as error:
            problem = str(error)
    raise UserError(
        f"an encoder of kind {encoder.kind!r} cannot stand alone, and nothing was written: its methods use more than "
        f"its layers and settings ({problem})"
    )


def _readme(encoder: Encoder, provenance: dict[str, Any]) -> str:
    facts = {**provenance.get("config", {}), **provenance}
    about = "".join(f"- {key}: {facts[key]}\n" for key in ("method", "env", "agent_step") if key in facts)
    return READ_ME.format(
        kind=encoder.kind, version=version("visrep"), mark=MARK, input=describe(encoder.contract),
        dim=encoder.feature_dim, latent_shape=list(encoder.latent_shape),
        shape=", ".join(map(str, encoder.contract.shape)),
        dtype="uint8" if takes_images(encoder.contract) else "float32",
        about=f"\nFrom the metadata of `{WEIGHTS}`, where all of it stands:\n\n{about}" if about else "",
    )  # fmt: skip


TEMPLATE = '''"""A pre-trained encoder of kind {kind!r}, written by visrep {version}. Needs torch and safetensors.

{mark}

Its input, which it scales itself where that is needed:
{input}.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

INPUT_SHAPE = {shape}
LATENT_SHAPE = {latent_shape}
FEATURE_DIM = {feature_dim}


class Encoder(nn.Module):
    """[batch, *INPUT_SHAPE] to [batch, FEATURE_DIM]; ``latents`` gives [batch, *LATENT_SHAPE]."""

    def __init__(self) -> None:
        super().__init__(){parts}

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or tuple(images.shape[1:]) != INPUT_SHAPE:
            raise ValueError(f"this encoder takes [batch, *{{INPUT_SHAPE}}], got {{list(images.shape)}}")
        return self.features(images)

{methods}

def load(weights: Path | str = Path(__file__).with_name("{weights}"), device: str = "cpu") -> Encoder:
    """The encoder with its weights, in eval mode."""
    encoder = Encoder()
    encoder.load_state_dict(load_file(str(weights)))
    return encoder.to(device).eval()
{functions}'''

READ_ME = """# Pre-trained encoder ({kind})

Written by visrep {version}; needs torch and safetensors, not visrep.

{mark}

- Input: {input}.
- Output: {dim} features, the latent image {latent_shape} flattened.

```python
import torch
from encoder import load

encoder = load().requires_grad_(False)
images = torch.zeros(1, {shape}, dtype=torch.{dtype})
features = encoder(images)  # [1, {dim}]
```
{about}"""
