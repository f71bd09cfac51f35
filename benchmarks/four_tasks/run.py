"""Encoders of one task and of four, and every task learned on each: ``visrep sweep`` with ``sweep.yaml``.

    python benchmarks/four_tasks/run.py [--keep]

Leaves ``data/<stage>_<axes>.jsonl`` beside this file for every finished run on a target task; ``--keep`` runs nothing
and writes these of what is finished. Started again it skips finished jobs.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import sweep_records

if __name__ == "__main__":
    sys.exit(sweep_records.main(__doc__, Path(__file__).parent, ("frozen",), "source"))
