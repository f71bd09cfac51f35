"""What a report is about, and which earlier one it replaces."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

REPORT = "probe.json"


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """By which datasets are told apart: sha256 of the manifest, wherever the dataset lies."""
    return hashlib.sha256(json.dumps(dict(manifest), sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class Subject:
    """What a report is about; reports on equal subjects are equal.

    Attributes:
        encoders: sha256 of the file by name, in their order.
        dataset: ``manifest_digest``.
        samples: train rows that were asked for.
        seed: of all draws.
    """

    encoders: tuple[tuple[str, str], ...]
    dataset: str
    samples: int
    seed: int

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> Self:
        """That of a report as ``probe.json`` holds it."""
        encoders = tuple((code["name"], code["about"]["sha256"]) for code in report["codes"] if _given(code))
        settings = report["settings"]
        return cls(encoders, report["dataset"]["manifest_sha256"], settings["samples"], settings["seed"])


def replaced(folder: Path, subject: Subject) -> str | None:
    """Which report in ``folder`` a report on ``subject`` replaces, in words; None where there is none on another."""
    file = folder / REPORT
    if not file.exists():
        return None
    try:
        report = json.loads(file.read_bytes())
        if Subject.of(report) == subject:
            return None
        names = ", ".join(code["name"] for code in report["codes"] if _given(code))
        data, settings = report["dataset"], report["settings"]
        about = f"{names} on {data['folder']}, samples={settings['samples']} seed={settings['seed']}"
    except (OSError, ValueError, LookupError, TypeError):
        about = "it cannot be read"
    return f"the earlier report in {folder} will be replaced ({about}); out=<folder> keeps it"


def _given(code: Mapping[str, Any]) -> bool:
    """Whether a report's code is an encoder that was asked for, not a control."""
    return bool(code["role"] == "encoder")
