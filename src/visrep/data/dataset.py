"""A store as a folder that can be kept, copied and opened again: rows, and ``dataset.json`` which says what they are.

``dataset.json`` is written last and removed first, so a folder with it is complete and one without it is not a dataset.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch

from visrep.data.budget import USABLE, available_ram, text_bytes
from visrep.data.episodes import episodes, longest_episode, return_statistics
from visrep.data.files import Advice, disk_errors
from visrep.data.store import FrameStore, StoreSpec, saved_store
from visrep.errors import UserError
from visrep.files import sync_folder, write_json_atomic

FORMAT = "visrep-dataset-1"
MANIFEST = "dataset.json"
COLLECTING = "collecting"  # folder beside it: the rows of a collection that is not finished
OWN_KEYS = frozenset(
    {"format", "created_by", "store", "lanes", "rows", "transitions", "episodes", "longest_episode", "returns", "state"}
)


@dataclass(frozen=True)
class Dataset:
    """An opened dataset.

    Attributes:
        store: its rows, read-only.
        manifest: the content of ``dataset.json``.
        folder: where it lies.
    """

    store: FrameStore
    manifest: dict[str, Any]
    folder: Path

    @property
    def frame_stack(self) -> int | None:
        """Frames per image that its maker used, if it said so; a store of single frames serves any."""
        return self.manifest.get("frame_stack")

    def require_images(self) -> None:
        """UserError if its rows are latents of a frozen encoder, which no encoder takes."""
        provenance = self.manifest.get("provenance") or {}
        kind, config = (provenance.get("policy") or {}).get("kind"), provenance.get("config") or {}
        if kind == "replay" and config.get("replay") == "latents":
            shape = "x".join(map(str, self.store.spec.frame_shape))
            raise UserError(
                f"{self.folder} holds latents of a frozen encoder ({shape}), not images: its run kept replay=latents. "
                "Name the replay of a run with replay=pixels, or images from visrep collect env=<environment>"
            )


def write_dataset(
    store: FrameStore, folder: Path, manifest: dict[str, Any], *, replace: bool = False
) -> dict[str, Any]:
    """Write a copy of all readable rows and their manifest; ``store`` may live on and is not changed.

    Args:
        store: the rows. Those of episodes under way are written too.
        folder: made if missing.
        manifest: JSON values: what the rows alone do not say, by custom "frame_stack" (int), "environment" (its
            fingerprint) and "provenance" (policy, seeds, versions). Keys that this function fills are refused.
        replace: take the place of a dataset that lies there; otherwise that is an error.

    Returns:
        The whole manifest, as ``dataset.json`` holds it.

    Raises:
        UserError: a dataset lies there, disk full, no permission. ``folder`` then holds no dataset, or the old one.
    """
    clash = sorted(OWN_KEYS & set(manifest))
    if clash:
        raise ValueError(f"write_dataset fills {', '.join(clash)} itself; leave them out of the manifest")
    json.dumps(manifest)  # what cannot be written must not cost the dataset that lies there
    if replace:
        if store.storage == "disk" and store.mirror.folder == folder.resolve():
            raise ValueError(f"the store's own rows lie in {folder}: write the dataset to another folder")
        _remove(folder)
    elif (folder / MANIFEST).exists():
        raise UserError(f"{folder} holds a dataset already: choose another folder")
    state = store.export(folder)
    whole = {
        "format": FORMAT,
        "created_by": f"visrep {metadata.version('visrep')}",
        **manifest,
        "store": store.spec.to_dict(),
        "lanes": store.lanes,
        "rows": store.rows,
        "transitions": store.transitions,
        "episodes": len(episodes(store)),
        "longest_episode": longest_episode(store),
        "returns": return_statistics(store),
        "state": state,
    }
    write_json_atomic(folder / MANIFEST, whole)
    return whole


def open_dataset(
    folder: Path, storage: Literal["ram", "disk", "device"] = "ram", device: str | torch.device = "cpu"
) -> Dataset:
    """Open a dataset for sampling; every row's checksum is compared. Its files are never changed.

    Args:
        folder: what ``write_dataset`` wrote, or the replay that an older run saved.
        storage: "ram" reads all rows into memory, "disk" maps the files, "device" puts the rows on ``device``.
        device: torch device of the rows; used by "device" only.

    Raises:
        UserError: no or no finished dataset there, damaged rows or manifest, or more rows than memory (for "ram").
    """
    manifest = read_manifest(folder)
    try:
        spec, state = StoreSpec.from_dict(manifest["store"]), manifest["state"]
        lanes, window, _ = (int(state[key]) for key in ("lanes", "window", "ring"))
        size = lanes * window * spec.row_bytes
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / MANIFEST} is damaged ({error!r}): restore it from a copy") from error
    if storage == "ram" and size > USABLE * available_ram():
        raise UserError(
            f"{folder} needs {text_bytes(size)} of memory, {text_bytes(available_ram())} are available: open it with "
            "storage=disk"
        )
    remedy = _remedy(manifest)
    return Dataset(saved_store(spec, state, folder, storage, device, Advice(remedy, remedy)), manifest, folder)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a dataset, without touching its rows.

    Raises:
        UserError: no or no finished dataset there, or a damaged manifest.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise _absent(folder)
    manifest = read_json(path)
    if manifest.get("format") != FORMAT:
        raise UserError(f"{path} has format {manifest.get('format')!r}; this version of visrep reads {FORMAT!r}")
    return manifest


def read_json(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object; UserError if it cannot be read or is damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): restore it from a copy, or make the dataset anew") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged (it holds no JSON object): restore it from a copy")
    return value


def _remedy(manifest: dict[str, Any]) -> str:
    """What can be done about a damaged dataset; what is left of it stays, other rows may be whole."""
    provenance = manifest.get("provenance")
    command = provenance.get("command") if isinstance(provenance, dict) else None
    source = f"; it was written by: {command}" if command else ""
    return f"restore it from a copy, or record it again into another folder{source}"


def _absent(folder: Path) -> UserError:
    """Why there is no manifest in a folder."""
    if folder.is_file():
        return UserError(f"{folder} is a file, a dataset is a folder: name the folder that {MANIFEST} lies in")
    if not folder.is_dir():
        return UserError(f"no dataset in {folder}: the folder does not exist")
    if (folder / COLLECTING).is_dir():
        return UserError(f"the dataset in {folder} is not finished: run the same collect command again to continue it")
    run = _run_around(folder)
    if run is not None:
        phase = folder.name.removeprefix("store-").removesuffix("-live") if folder.name.startswith("store-") else ""
        return UserError(
            f"{folder} is {'a run' if run == folder else 'part of a run'}, not a dataset: make one of its replay with "
            f"visrep collect replay={run} {f'phase={phase} ' if phase else ''}out=<folder>"
        )
    hint = "its writing was interrupted; make it anew" if any(folder.glob("*.npy")) else "name another folder"
    return UserError(f"no dataset in {folder}: it has no {MANIFEST} ({hint})")


def _run_around(folder: Path) -> Path | None:
    """The run directory that ``folder`` is, or whose state or live store it is; None for any other folder."""
    places = [folder, *folder.absolute().parents[:2]]
    depth = {"state": 1}.get(folder.name, 2 if folder.parent.name == "state" else 0)
    run = places[depth]
    return run if (run / "config.yaml").is_file() and (run / "state").is_dir() else None


def _remove(folder: Path) -> None:
    """Delete a dataset, its manifest first and for certain, so that a kill here leaves no complete-looking folder."""
    if not folder.is_dir():
        return
    with disk_errors("replacing the dataset in", folder, 0):
        (folder / MANIFEST).unlink(missing_ok=True)
        sync_folder(folder)
        for rows in folder.glob("*.npy"):
            rows.unlink()
