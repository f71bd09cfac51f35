"""Writing files so that a crash leaves the old or the new content, never a part; standard library only."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from visrep.errors import UserError

TEMPORARY = ".tmp-"


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Replace ``path`` by ``data``: write beside it, sync, rename.

    Raises:
        UserError: disk full or not writable; ``path`` is as it was.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
    with writing(path, len(data)):
        try:
            write_synced(temporary, data)
            temporary.replace(path)
            sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_json_atomic(path: Path, value: Any) -> None:
    """``write_atomic`` of a JSON value, indented for human readers."""
    write_atomic(path, (json.dumps(value, indent=2) + "\n").encode())


def write_synced(path: Path, data: bytes | memoryview) -> None:
    """Write a new file and force it to the disk."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Force a folder's entries (new names, renames) to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems do not offer this for folders; the rename is atomic there all the same.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Delete what interrupted writes left in a folder that no other process writes to."""
    for leftover in folder.glob(f"{TEMPORARY}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def take_lock(folder: Path, advice: str, shared: bool = False) -> IO[str]:
    """Lock a folder for this process until the returned file is closed, or the process ends in any way.

    A shared lock goes together with other shared ones: it is for processes that only read.

    Raises:
        UserError: another process holds it; ``advice`` says what to do.
    """
    import fcntl  # not on Windows, where encoder files are read all the same

    lock = open(folder / ".lock", "w", encoding="utf-8")  # noqa: SIM115  (open as long as the lock lasts)
    try:
        fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise UserError(f"{folder} is in use by another running process: {advice}") from error
    return lock


@contextlib.contextmanager
def writing(path: Path, needed_bytes: int = 0, note: str = "") -> Iterator[None]:
    """Turn the operating system's refusals inside the block into UserErrors that name ``path`` and the remedy."""
    try:
        yield
    except OSError as error:
        tail = f"; {note}" if note else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"no space left for {path}: {needed_bytes:,} bytes are needed, {_free(path)} are free. Make room and "
                f"run the same command again{tail}"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(
                f"cannot write {path} ({error.strerror}): choose another folder or change its permissions{tail}"
            ) from error
        raise UserError(f"cannot write {path}: {error.strerror or error}{tail}") from error


def check_place(folder: Path) -> None:
    """Leave nothing behind, but raise UserError unless files can be written to a folder, which need not exist yet."""
    with writing(folder, note="nothing was done yet"):
        existing = next(place for place in (folder, *folder.parents) if place.exists())
        if existing.is_dir():
            tempfile.TemporaryFile(dir=existing).close()
            return
    raise UserError(f"cannot write into {folder}, because {existing} is a file: name a folder")


def _free(path: Path) -> str:
    existing = next((p for p in (path, *path.parents) if p.exists()), Path("."))
    with contextlib.suppress(OSError):
        return f"{shutil.disk_usage(existing).free:,}"
    return "an unknown number"
