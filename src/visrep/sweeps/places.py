"""Where each command writes, and which file proves that it has done its work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """The place of one command's results.

    Attributes:
        key: of the command line; it names the folder.
        proof: pattern of files in that folder; a command that has done its work has left one.
        last: the proof is written when all the rest is there, and not before.
        own: the command makes the folder; otherwise it writes into the folder of the job that it starts from.
    """

    key: str
    proof: str
    last: bool = False
    own: bool = True

    def proven(self, folder: Path) -> bool:
        """Whether the proof is there."""
        return any(folder.glob(self.proof))


# A run's files are there before its last checkpoint: only the command itself can tell that it is finished, and does.
_RUN = Place("run_dir", "model/*.safetensors")
PLACES: dict[str, Place] = {
    "collect": Place("out", "dataset.json", last=True),
    "pretrain": _RUN,
    "probe": Place("out", "probe.json"),
    "finetune": _RUN,
    "train": _RUN,
    "evaluate": Place("run", "evaluation.json", own=False),
}
