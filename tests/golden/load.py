"""Golden arrays: numbers computed by public code, read from ``$VISREP_GOLDEN_DIR``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

Case = dict[str, dict[str, np.ndarray[Any, Any]]]


def golden_dir() -> Path:
    """Folder of the golden files; default ``../shared/golden`` beside the repository."""
    return Path(os.environ.get("VISREP_GOLDEN_DIR", Path(__file__).parents[3] / "shared" / "golden"))


def cases(file: str) -> list[str]:
    """Names of the cases of one file, or an empty list where the file is absent (parametrised tests then skip)."""
    path = golden_dir() / f"{file}.npz"
    if not path.exists():
        return []
    with np.load(path) as data:
        return list(dict.fromkeys(key.split("/", 1)[0] for key in data.files))


def load_case(file: str, case: str) -> Case:
    """Arrays of one case as {kind: {name: array}}."""
    tree: Case = {}
    with np.load(golden_dir() / f"{file}.npz") as data:
        for key in data.files:
            name, kind, rest = key.split("/", 2)
            if name == case:
                tree.setdefault(kind, {})[rest] = data[key]
    return tree
