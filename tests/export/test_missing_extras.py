"""Where a library is absent: one message that names the extra, and everything else still works."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

# Runs with a hook under which importing the named packages fails, as where it is not installed.
REFUSE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
"""
EXTRAS = {
    "stable_baselines3": "sb3",
    "tensordict": "torchrl",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
}


def without(packages: list[str], code: str) -> subprocess.CompletedProcess[str]:
    script = f"BLOCKED = {packages!r}\n{REFUSE}\n{code}"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


@pytest.mark.parametrize("package", EXTRAS)
def test_the_message_names_the_extra(package: str, encoder_file: Path) -> None:
    code = f"""
from visrep.errors import UserError
for kind in (ImportError, UserError):  # code that tries an import catches the first, the command line the second
    try:
        import visrep.export.{EXTRAS[package]}
        sys.exit("it was imported")
    except kind as error:
        print(error)
import visrep
visrep.load_encoder({str(encoder_file)!r})
"""
    done = without([package], code)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == second and f"No module named {package!r}" in first
    assert first.endswith(f"pip install 'visrep[{EXTRAS[package]}]'")


def test_the_command_says_so_too_and_writes_nothing(encoder_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "encoder.onnx"
    words = ["export", f"encoder={encoder_file}", "to=onnx", f"out={out}"]
    done = without(["onnxruntime"], f"from visrep.cli import main\nsys.exit(main({words!r}))")
    assert done.returncode == 2 and not out.exists() and "Traceback" not in done.stderr
    assert done.stderr.startswith("visrep export: ") and "pip install 'visrep[onnx]'" in done.stderr


def test_the_standalone_form_needs_none_of_them(encoder_file: Path, tmp_path: Path) -> None:
    words = ["export", f"encoder={encoder_file}", "to=standalone", f"out={tmp_path}/alone"]
    done = without([*EXTRAS, "torchrl"], f"from visrep.cli import main\nsys.exit(main({words!r}))")
    assert done.returncode == 0 and (tmp_path / "alone" / "encoder.py").exists(), done.stderr


def test_every_extra_that_a_message_names_exists() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS.values()) <= set(project["optional-dependencies"])
