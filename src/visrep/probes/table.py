"""The scores of all codes as one table, on the console and in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from visrep.console import Console

Result = Mapping[str, Any]
NONE = "–"


def number(value: float | None, digits: int = 2) -> str:
    """A plain number, or a dash where there is none."""
    return NONE if value is None else f"{value:.{digits}f}"


def score(found: Result | None) -> str:
    """``0.93 [0.91, 0.95]``; what is worse than -1 is not worth its digits."""
    if found is None or found["point"] is None:
        return NONE
    if found["point"] < -1:
        return "< -1"
    low, high = (number(found[end]) for end in ("low", "high"))
    return f"{found['point']:.2f} [{low}, {high}]"


def _state(key: str) -> Callable[[Result], str]:
    return lambda result: score((result[key] or {}).get("mean"))


def _action(result: Result) -> str:
    found = result["action"] or {}
    return score(found.get("r2") or found.get("accuracy"))


def _geometry(key: str, digits: int) -> Callable[[Result], str]:
    return lambda result: number((result["geometry"] or {}).get(key), digits)


def _dormant(result: Result) -> str:
    found = (result["geometry"] or {}).get("dormant")
    return NONE if found is None else f"{100 * found['0.025']:.0f} %"


COLUMNS: dict[str, Callable[[Result], str]] = {
    "state R²": _state("state"),
    "state R², one frame": _state("state_single_frame"),
    "state R², network": _state("state_mlp"),
    "state R², neighbours": _state("state_knn"),
    "action": _action,
    "reward R²": lambda result: score((result["reward"] or {}).get("r2")),
    "event AUROC": lambda result: score((result["reward_events"] or {}).get("auroc")),
    "event F1": lambda result: score((result["reward_events"] or {}).get("f1")),
    "RankMe": _geometry("rankme", 1),
    "centred rank": _geometry("entropy_rank", 1),
    "dormant": _dormant,
    "alignment": _geometry("alignment", 3),
    "uniformity": _geometry("uniformity", 3),
}


def rows(codes: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells; columns in which no code has a value are left out."""
    columns = {name: [show(code["probes"]) for code in codes] for name, show in COLUMNS.items()}
    shown = {name: cells for name, cells in columns.items() if any(cell != NONE for cell in cells)}
    cells = [
        [code["name"], f"{code['features']:,}", *(column[index] for column in shown.values())]
        for index, code in enumerate(codes)
    ]
    return ["code", "features", *shown], cells


def markdown(report: Result) -> str:
    """The report as a Markdown page: notes, the table, the state factor by factor."""
    lines = [f"# Probes on {report['dataset']['name']}", ""]
    split = report["split"]
    lines += [
        f"Test rows: {split['test']['rows']:,} of {split['test']['episodes']} episodes that no probe was fitted on. "
        "Brackets: 95 % intervals over test episodes. "
        f"Action: {'accuracy' if report['dataset']['discrete_actions'] else 'R²'} from two neighbouring rows. "
        "Dormant: units below 2.5 % of their layer's average. More in docs/probes.md.",
        "",
    ]
    lines += [f"- {note}" for note in report["notes"]] + ([""] if report["notes"] else [])
    lines += _markdown_table(*rows(report["codes"]))
    named = [code for code in report["codes"] if code["probes"]["state"]]
    if named:
        heads = ["factor (ridge R²)", *(code["name"] for code in named)]
        factors = [code["probes"]["state"]["factors"] for code in named]
        lines += ["", *_markdown_table(heads, [[name, *(score(f[name]) for f in factors)] for name in factors[0]])]
    return "\n".join(lines) + "\n"


def _markdown_table(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    body = [f"| {' | '.join(row)} |" for row in cells]
    return [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *body]


def show(report: Result, console: Console) -> None:
    """The table on a terminal; plain Markdown lines elsewhere."""
    heads, cells = rows(report["codes"])
    if console.rich is None:
        for line in _markdown_table(heads, cells):
            console.line(line)
        return
    # Turned, because there are more scores than codes.
    turned = Table("", *(row[0] for row in cells), title=f"probes on {report['dataset']['name']}", title_justify="left")
    for index, head in enumerate(heads[1:], start=1):
        turned.add_row(head, *(row[index].replace(" [", "\n[") for row in cells))
    console.rich.print(turned)
