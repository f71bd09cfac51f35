"""The folder that a dataset is written to, and what is told of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visrep.data.dataset import COLLECTING, MANIFEST
from visrep.errors import UserError
from visrep.files import writing


def check_dataset_place(key: str, folder: str) -> None:
    """UserError unless ``data=...`` can name a dataset in ``folder``, which was given as ``key``."""
    if not folder.strip():
        raise UserError(f"{key} is empty: name a folder")
    if "," in folder:
        raise UserError(f"{key}={folder}: no comma in it, data=<folder>,<folder> separates datasets by commas")


def dataset_folder(out: str) -> Path:
    """The folder ``out``, made if missing.

    Raises:
        UserError: it is a file, cannot be made, or holds other things than a dataset, finished or not.
    """
    folder = Path(out).expanduser()
    with writing(folder):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"out={out} is a file: name a folder that does not exist yet")
        folder.mkdir(parents=True, exist_ok=True)
    others = sorted(path.name for path in folder.iterdir() if path.name != ".lock")
    if others and not {MANIFEST, COLLECTING} & set(others):
        raise UserError(
            f"out={out} is not empty and holds no dataset ({', '.join(others[:3])}): name a folder that does "
            "not exist yet"
        )
    return folder


def summary(manifest: dict[str, Any], folder: Path) -> str:
    """A dataset in one line; the return is left out where no episode is there from its beginning to its end."""
    parts = [f"{manifest['episodes']:,} episodes", f"{manifest['transitions']:,} agent steps"]
    if manifest["returns"] is not None:
        parts.append(f"mean return {manifest['returns']['mean']:.4g}")
    return f"{', '.join(parts)}: {folder}"
