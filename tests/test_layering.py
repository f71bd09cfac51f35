"""The tree is the picture: imports follow the data flow; files and functions are short; encoders load with little."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "visrep"

# The data flow, first to last. A layer imports from those before it (and from itself where it is a package).
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("files", "console", "precision", "initialisation", "allocator", "pace", "registry"),
    ("log", "video"),
    ("data",),
    ("envs",),
    ("augment",),
    ("encoders",),
    ("exploration",),
    ("objectives",),
    ("policies",),
    ("network_files", "config_fields", "config_overrides"),
    ("config_checks", "config_facts"),
    ("export",),
    ("config",),
    ("config_help", "command_keys"),
    ("results",),
    ("probes",),
    ("runs",),
    ("collecting",),
    ("sweeps",),
    ("doctor",),
    ("cli",),
)
# Layers before it that a package still may not import, and why.
FORBIDDEN: dict[str, dict[str, str]] = {
    "objectives": {"envs": "a method sees batches, never where they come from"},
    "policies": {name: "a policy sees features" for name in ("envs", "data", "encoders")},
    "encoders": {"envs": "an encoder is a file that works without them", "data": "an encoder sees images"},
    "envs": {"data": "environments give frames, they do not store them"},
    "exploration": {"envs": "features in, reward out", "data": "features in, reward out"},
    "augment": {"envs": "images in, images out", "data": "images in, images out"},
    "results": {name: "results read files" for name in ("envs", "objectives", "policies", "config", "data")},
}
# Exempt: the package's own lazy attributes.
LAZY = "__init__"

LONGEST_FILE = 400
LONGEST_FUNCTION = 60
# path -> {function: why it is longer than LONGEST_FUNCTION lines}
LONG_FUNCTIONS: dict[str, dict[str, str]] = {}

# Packages that computing does not need: `import visrep; visrep.load_encoder(...)` works without them.
NOT_FOR_ENCODERS = (
    "pydantic", "gymnasium", "yaml", "rich", "av", "matplotlib", "psutil", "tensorboard", "dm_control", "mujoco",
)  # fmt: skip


def files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def layer(module: str) -> int:
    name = module.split(".")[1]
    places = [index for index, names in enumerate(LAYERS) if name in names]
    assert len(places) == 1, f"{module}: put {name!r} into LAYERS"
    return places[0]


def module_name(path: Path) -> str:
    parts = ["visrep", *path.relative_to(SOURCE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import of this package, also those inside functions and for type checkers."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] == "visrep")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            if node.module == "visrep":
                yield from ((node.lineno, f"visrep.{alias.name}") for alias in node.names)
            elif node.module is not None and node.module.startswith("visrep."):
                yield node.lineno, node.module


def wrong_imports(paths: list[Path]) -> list[str]:
    found = []
    for path in paths:
        module = module_name(path)
        if module == "visrep":
            continue
        own = module.split(".")[1]
        for line, imported in imports(path):
            other = imported.split(".")[1]
            if other == own:
                continue
            where = f"{path.relative_to(SOURCE)}:{line} imports {imported}"
            if layer(imported) >= layer(module):
                found.append(f"{where}, which comes after visrep.{own} in the data flow")
            elif other in FORBIDDEN.get(own, {}):
                found.append(f"{where}: {FORBIDDEN[own][other]}")
    return found


def test_imports_follow_the_data_flow() -> None:
    wrong = wrong_imports(files())
    assert not wrong, "\n".join(wrong)


def test_every_layer_exists() -> None:
    there = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there - {LAZY} == {name for names in LAYERS for name in names}


def test_the_check_finds_a_wrong_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    for name, text, says in (
        ("objectives/a.py", "from visrep.runs.update import update", "comes after"),
        ("objectives/b.py", "def f():\n    import visrep.envs.make", "never where they come from"),
        ("data/c.py", "if True:\n    from visrep import runs", "comes after"),
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        assert says in "".join(wrong_imports([path])), name
    fine = tmp_path / "objectives" / "d.py"
    fine.write_text("from visrep.objectives.parts import ema\nfrom visrep.data.batch import Batch\nimport torch")
    assert wrong_imports([fine]) == []


def test_files_are_short() -> None:
    lengths = {str(path.relative_to(SOURCE)): len(path.read_text(encoding="utf-8").splitlines()) for path in files()}
    long = {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE}
    assert not long, f"more than {LONGEST_FILE} lines: {long}; split by purpose"


def test_functions_are_short() -> None:
    long: dict[str, dict[str, int]] = {}
    for path in files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.setdefault(str(path.relative_to(SOURCE)), {})[node.name] = lines
    wrong = {
        name: {function: lines for function, lines in found.items() if function not in LONG_FUNCTIONS.get(name, {})}
        for name, found in long.items()
    }
    assert not any(wrong.values()), f"more than {LONGEST_FUNCTION} lines: {wrong}"
    unneeded = [f"{name}: {f}" for name, known in LONG_FUNCTIONS.items() for f in known if f not in long.get(name, {})]
    assert not unneeded, f"take these off the list: {unneeded}"


def test_an_encoder_loads_with_torch_and_safetensors_only(tmp_path: Path) -> None:
    script = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {NOT_FOR_ENCODERS!r}:
            raise ImportError(f"{{name}} is not installed here")

sys.meta_path.insert(0, Refuse())
import visrep
from visrep.encoders.contract import InputContract, build_encoder
import torch
import visrep.encoders
encoder = build_encoder("proto", InputContract(20, 20), channels=4)
visrep.save_encoder(encoder, "encoder.safetensors", {{"objective": "none"}})
images = torch.randint(0, 256, (2, 9, 20, 20), dtype=torch.uint8)
assert torch.equal(visrep.load_encoder("encoder.safetensors")(images), encoder.eval()(images))
loaded = {{name.split(".")[0] for name in sys.modules}} & set({NOT_FOR_ENCODERS!r})
assert not loaded, loaded
try:
    visrep.make_env("toy/maze")
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "gymnasium is not installed here" in done.stdout, "the hook blocks nothing"
