"""The table of README.md beside this file, from ``runs.jsonl``: ``python benchmarks/toy_maze/search/table.py``."""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).parent
STEPS = (10_000, 20_000, 30_000, 45_000)
INTRODUCTION = """# The search for the toy preset

Single runs made while the preset was found, negative ones included: runs, not results. Each is the toy preset of
its day (128 prototypes, 16 environments, one update of batch 128 per vector step, target critic 0.01, initial
alpha 0.01, Sinkhorn targets at T, unless changed) with the words below; figures are the share of reachable cells
visited, in per cent, at the first record after that many agent steps, and the last representation loss (ln 128 =
4.852 is a uniform, collapsed assignment). A dash: the run was stopped before. The arena's first drawing had a
light floor, today's has a dark one.

What it showed: (1) at the published temperature the embedding collapses to the uniform assignment whatever the
shift or the reward's scale; sharper Sinkhorn targets on an image that is mostly near zero prevent it. (2) Dividing
the reward by its running mean with a higher alpha explores further than a collapsed run without, yet less far than
an embedding that has not collapsed. (3) More updates or a narrower encoder did not help. (4) A faster target
critic got stuck in one corner more often. (5) A longer queue did not help.
"""


def main() -> None:
    """Write README.md."""
    head = ["arena", "changes", *(f"{steps:,}" for steps in STEPS), "last loss"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for line in (HERE / "runs.jsonl").read_text(encoding="utf-8").splitlines():
        run = json.loads(line)
        cells = [next((f"{100 * cov:.0f}" for step, cov, _ in run["curve"] if step >= wanted), "–") for wanted in STEPS]
        losses = [loss for _, _, loss in run["curve"] if loss is not None]
        last = f"{losses[-1]:.2f}" if losses else "–"
        lines.append(f"| {run['arena']} | `{run['changes']}` | " + " | ".join(cells) + f" | {last} |")
    (HERE / "README.md").write_text(INTRODUCTION + "\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
