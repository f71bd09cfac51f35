"""The folder that needs no visrep."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from export_tools import CONV_KINDS, SIZE, encoder_of
from safetensors.torch import save_file

import visrep
from visrep.encoders import ENCODERS, Encoder, InputContract, build_encoder, register_encoder
from visrep.encoders.stack import ConvStack, Layer
from visrep.errors import UserError
from visrep.export.standalone import export_standalone, standalone_source
from visrep.network_files import save_encoder

# Runs in the folder, with a hook under which importing visrep fails; nothing but torch and safetensors is imported.
SCRIPT = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "visrep":
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Refuse())
sys.path.insert(0, ".")
try:
    import visrep
    sys.exit("the hook blocks nothing")
except ImportError:
    pass
import torch
from safetensors.torch import load_file, save_file
roots = lambda: {name.partition(".")[0] for name in sys.modules}
before = roots()
from encoder import load
images = load_file("../images.safetensors")["images"]
features = load()(images).detach()
more = roots() - before - set(sys.stdlib_module_names)
assert more == {"encoder"}, more
save_file({"features": features}, "../features.safetensors")
"""


@pytest.mark.parametrize("kind", CONV_KINDS)
def test_it_runs_where_visrep_cannot_be_imported(kind: str, images: torch.Tensor, tmp_path: Path) -> None:
    original, file = encoder_of(kind), tmp_path / "source.safetensors"
    save_encoder(original, file, {})
    folder = export_standalone(file, tmp_path / "alone")
    save_file({"images": images}, tmp_path / "images.safetensors")
    done = subprocess.run([sys.executable, "-I", "-c", SCRIPT], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    from safetensors.torch import load_file

    assert torch.equal(load_file(tmp_path / "features.safetensors")["features"], original(images))
    source = (folder / "encoder.py").read_text()
    imported = re.findall(r"^\s*(?:from|import) (\w+)", source, flags=re.MULTILINE)
    assert set(imported) == {"__future__", "pathlib", "torch", "safetensors"}


def test_the_weights_are_still_an_encoder_file(encoder_file: Path, images: torch.Tensor, tmp_path: Path) -> None:
    folder = export_standalone(encoder_file, tmp_path / "alone")
    assert torch.equal(visrep.load_encoder(folder / "encoder.safetensors")(images), encoder_of("proto")(images))
    readme = (folder / "README.md").read_text()
    assert f"[9, {SIZE}, {SIZE}]" in readme and "method: proto" in readme and "agent_step: 400" in readme


def test_the_code_in_its_readme_runs(encoder_file: Path, tmp_path: Path) -> None:
    folder = export_standalone(encoder_file, tmp_path / "alone")
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    code += "print(list(features.shape), features.requires_grad)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"[1, {encoder_of('proto').feature_dim}] False"


def test_fine_tuning_it_moves_the_weights_as_here(images: torch.Tensor, tmp_path: Path) -> None:
    original = encoder_of("dmlab")
    scope: dict[str, object] = {"__file__": "encoder.py", "__name__": "alone"}
    exec(standalone_source(original), scope)  # type: ignore[arg-type]
    copy = scope["Encoder"]()  # type: ignore[operator]
    copy.load_state_dict(original.state_dict())
    for network in (original, copy):
        network(images).square().mean().backward()
    for ours, theirs in zip(original.parameters(), copy.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad) and ours.grad.any()
    with pytest.raises(ValueError, match=r"takes \[batch"):
        copy(images[:, :3])


@pytest.fixture
def odd_kind() -> object:
    @register_encoder("odd")
    class OddEncoder(ConvStack):
        table = (Layer(1, 3, 2),)
        default_init = "torch"

        def latents(self, images: torch.Tensor) -> torch.Tensor:
            return self.convs(self._scaled(images)) * self.factor

        factor = 0.5

    yield OddEncoder
    del ENCODERS["odd"]


def test_an_encoder_that_cannot_stand_alone_is_refused(odd_kind: type[Encoder], tmp_path: Path) -> None:
    file = tmp_path / "odd.safetensors"
    save_encoder(build_encoder("odd", InputContract(SIZE, SIZE)), file, {})
    with pytest.raises(UserError, match=r"'odd' cannot stand alone, and nothing was written.*factor"):
        export_standalone(file, tmp_path / "alone")
    assert not (tmp_path / "alone").exists()
    odd_kind.latents = lambda self, images: self.convs(Path and self._scaled(images))  # type: ignore[method-assign]
    with pytest.raises(UserError, match="uses Path, which is neither torch nor a function beside it"):
        export_standalone(file, tmp_path / "alone")


def test_a_file_in_the_way_is_refused(encoder_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a file: name the folder"):
        export_standalone(encoder_file, encoder_file)
