"""``visrep probe``: encoders and their controls on one dataset; one JSON, one table, one figure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from visrep.augment import Augmentation
from visrep.console import Console, Progress
from visrep.data.budget import USABLE, available_ram, text_bytes
from visrep.data.dataset import open_dataset
from visrep.data.store import FrameStore
from visrep.encoders.contract import Encoder
from visrep.errors import UserError
from visrep.files import check_place, write_atomic, write_json_atomic, writing
from visrep.network_files import encoder_file, encoder_metadata, load_encoder
from visrep.probes import table
from visrep.probes.codes import (
    Code,
    ConstantCode,
    EncoderCode,
    PixelCode,
    Role,
    Seen,
    StateCode,
    random_twin,
)
from visrep.probes.data import FEWEST_TRAIN_ROWS, ProbeData, Split
from visrep.probes.figure import probe_figure
from visrep.probes.judge import images_to_encode, judge, reward_targets
from visrep.probes.place import REPORT, Subject, manifest_digest, replaced
from visrep.probes.view import AS_THEY_ARE, view_note, view_of
from visrep.results.figures import save

FORMAT = 1
SAMPLES = 10_000
SEEDS = range(2**63 - 1)  # what a torch.Generator takes, and the next one too
FEW_TEST_EPISODES = 10
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Candidate:
    """An encoder to be probed.

    Attributes:
        name: for the table.
        encoder: in memory.
        about: JSON values about where it comes from.
    """

    name: str
    encoder: Encoder
    about: dict[str, Any]


def load_candidates(text: str) -> list[Candidate]:
    """Encoders of ``encoder=<file or run directory>[,...]``, named after their run directory or file.

    Raises:
        UserError: absent or damaged.
    """
    found: list[Candidate] = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        path = encoder_file(word)
        encoder, metadata = load_encoder(path), encoder_metadata(path)
        home = run_of(path)
        name = home.name if home != path.parent else path.stem
        taken = [candidate.name for candidate in found]
        name = next(n for n in [name, *(f"{name} ({i})" for i in range(2, len(taken) + 3))] if n not in taken)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        found.append(Candidate(name, encoder, {"file": str(path), "sha256": digest, **metadata}))
    if not found:
        raise UserError("encoder= names no encoder: give a file or a run directory, several with commas between them")
    return found


def run_of(path: Path) -> Path:
    """The run directory of an encoder file, or its folder where it lies elsewhere."""
    path = path.expanduser().resolve()
    return path.parent.parent if path.parent.name == "model" else path.parent


def run_probes(
    candidates: Sequence[Candidate],
    store: FrameStore,
    manifest: Mapping[str, Any],
    source: str,
    console: Console,
    samples: int = SAMPLES,
    seed: int = 0,
    device: torch.device = CPU,
) -> dict[str, Any]:
    """Probe encoders and their controls on the same rows.

    Args:
        candidates: at least one.
        store: the data.
        manifest: of the dataset; see ``ProbeData``.
        source: name of the dataset, for messages and headings.
        console: where progress is shown.
        samples: train rows.
        seed: of the split, the random encoders and all else that is drawn.
        device: where encoders run; the readouts are fitted on the CPU.

    Returns:
        The report as JSON values: "dataset", "split", "settings", "notes" and "codes".

    Raises:
        UserError: too few episodes, images that an encoder does not take, too little memory.
    """
    views = [view_of(each.encoder, each.about, store.spec, each.name, source) for each in candidates]
    data = ProbeData(store, samples, max(c.encoder.contract.stack for c in candidates), seed, manifest)
    check_memory(max(candidate.encoder.feature_dim for candidate in candidates), data.split)
    seen_otherwise = [(each, view) for each, view in zip(candidates, views, strict=True) if view != AS_THEY_ARE]
    notes = [view_note(each.encoder, view, store.spec, each.name) for each, view in seen_otherwise]
    notes += _notes(data, source)
    for note in notes:
        console.line(f"note: {note}", style="yellow")
    plan = _plan(candidates, views, seed, device, data.factors is not None)
    total = sum(images_to_encode(each.role, each.stack, data) for each in plan)
    codes = []
    with console.progress(total, "probe", unit="images") as progress:
        shown = _Shown(progress)
        while plan:
            codes.append(_probe_one(plan.pop(0), data, seed, shown))
    limited = [
        str(code["name"]) for code in codes if (code["probes"]["geometry"] or {}).get("limited_by_samples", False)
    ]
    if limited:
        notes.append(f"ranks of {', '.join(limited)} come from fewer than ten samples per feature, which bounds them")
    return {
        "format": FORMAT,
        "dataset": _about_data(data, manifest, source),
        "split": _about_split(data),
        "settings": {"samples": samples, "seed": seed},
        "notes": notes,
        "codes": codes,
    }


def _probe_one(planned: _Planned, data: ProbeData, seed: int, shown: _Shown) -> dict[str, Any]:
    shown.name = planned.name
    shown.doing("making it ready")
    code = planned.make(data, shown.seen)
    probes = judge(code, data, seed, shown.seen, shown.doing)
    about = {"role": code.role, "features": code.width, "stack": code.stack, "view": str(code.view)}
    return {"name": code.name, **about, "about": planned.about, "probes": probes}


def probe(
    encoder: str,
    data: str,
    provenance: Mapping[str, Any],
    console: Console,
    out: str | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
    device: torch.device = CPU,
) -> Path:
    """The command: load, probe, show the table; write ``probe.json``, ``probe.md``, ``probe.png`` and ``probe.svg``.

    Args:
        encoder: file or run directory; several with commas between them.
        data: dataset folder.
        provenance: command and versions, for the JSON.
        console: where to show progress and table.
        out: folder; ``<run directory>/probe/<dataset name>`` by default.
        samples: train rows.
        seed: see ``run_probes``.
        device: see ``run_probes``.

    Returns:
        The folder.

    Raises:
        UserError: a key has an impossible value, the folder cannot be written (said before the work), and all that
            ``load_candidates``, ``open_dataset`` and ``run_probes`` refuse.
    """
    check_request(data, samples, seed)
    candidates = load_candidates(encoder)
    if out is None and len(candidates) > 1:
        raise UserError(f"{len(candidates)} encoders are probed together: say where to write with out=<folder>")
    name = Path(data).expanduser().resolve().name
    folder = Path(out).expanduser() if out else run_of(Path(candidates[0].about["file"])) / "probe" / name
    check_place(folder)
    dataset = open_dataset(Path(data).expanduser(), storage="disk")
    dataset.require_images()
    encoders = tuple((candidate.name, candidate.about["sha256"]) for candidate in candidates)
    earlier = replaced(folder, Subject(encoders, manifest_digest(dataset.manifest), samples, seed))
    if earlier is not None:
        console.line(f"note: {earlier}", style="yellow")
    report = run_probes(candidates, dataset.store, dataset.manifest, name, console, samples, seed, device)
    report["dataset"]["folder"] = str(Path(data).expanduser().resolve())
    table.show(report, console)  # first: no trouble with the disk costs the user the numbers
    write_report({**report, "provenance": dict(provenance)}, folder)
    console.line(f"written: {folder}/probe.json, probe.md, probe.png, probe.svg")
    return folder


def check_request(data: str, samples: int = SAMPLES, seed: int = 0) -> None:
    """UserError for what ``probe`` refuses before it looks at any file's content; ``data`` need not exist yet."""
    if seed not in SEEDS:
        raise UserError(f"seed={seed}: a whole number from 0 to {SEEDS[-1]:,}")
    if samples < FEWEST_TRAIN_ROWS:
        raise UserError(f"samples={samples}: the probes are fitted on at least {FEWEST_TRAIN_ROWS} rows")
    folder = Path(data).expanduser()
    if folder.is_file():
        raise UserError(f"data={data} is a file: name the dataset's folder, such as data={Path(data).parent}")
    if "," in data and not folder.exists():
        raise UserError(f"data={data}: a probe takes one dataset; run it once for each")


def write_report(report: Mapping[str, Any], folder: Path) -> None:
    """Write a report as JSON, Markdown and figure."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_json_atomic(folder / REPORT, report)
    write_atomic(folder / "probe.md", table.markdown(report).encode())
    figure = probe_figure(report)
    with writing(folder):
        for ending in ("png", "svg"):
            save(figure, folder / f"probe.{ending}")


def check_memory(width: int, split: Split) -> None:
    """Raise UserError, naming a number of samples that fits, unless the readouts of ``width`` features fit in RAM."""
    free = USABLE * available_ram()
    needed = _bytes_needed(width, split.total, split.train)
    if needed <= free:
        return
    share = 1.0
    while share > 0.001 and _bytes_needed(width, round(split.total * share), round(split.train * share)) > free:
        share *= 0.9
    raise UserError(
        f"{split.total:,} samples of {width:,} features need {text_bytes(needed)} of memory, {text_bytes(free)} are "
        f"free: set samples={int(split.train * share)} or lower"
    )


def _bytes_needed(width: int, total: int, train: int) -> float:
    """Two sets of features in float32; in float64 two Gram matrices, a system, its factor; a chunk."""
    system = min(2 * width, train)
    return 8.0 * total * width + 8.0 * (2 * total * system + 2 * system * system) + 2e4 * total


@dataclass(frozen=True)
class _Planned:
    """A code that is made when its turn comes, so that only one lies in memory."""

    role: Role
    stack: int
    name: str
    make: Callable[[ProbeData, Seen], Code]
    about: dict[str, Any] = field(default_factory=dict)


def _plan(
    candidates: Sequence[Candidate], views: Sequence[Augmentation], seed: int, device: torch.device, with_state: bool
) -> list[_Planned]:
    """Encoders, then a random encoder per architecture and pixels per stack, each per view; true state, constant."""
    plan = []
    twins: dict[str, tuple[Encoder, Augmentation]] = {}
    widths: dict[tuple[int, Augmentation], int] = {}
    for candidate, view in zip(candidates, views, strict=True):
        encoder, stack = candidate.encoder, candidate.encoder.contract.stack
        code = EncoderCode(candidate.name, encoder, "encoder", device, view)
        plan.append(_Planned("encoder", stack, code.name, lambda _, __, c=code: c, candidate.about))  # type: ignore[misc]
        if any(True for _ in encoder.parameters()):
            alike = json.dumps([encoder.kind, encoder.config(), encoder.contract.to_dict(), str(view)])
            twins[alike] = encoder, view
        widths[stack, view] = max(widths.get((stack, view), 0), encoder.feature_dim)
    for number, (encoder, view) in enumerate(twins.values(), start=1):
        twin = random_twin(encoder, seed, device, view)
        twin.name += f" ({number})" if len(twins) > 1 else ""
        about = {"kind": encoder.kind, "config": encoder.config(), "input": encoder.contract.to_dict()}
        plan.append(_Planned("random", twin.stack, twin.name, lambda _, __, c=twin: c, about))  # type: ignore[misc]
    for (stack, view), width in widths.items():
        make = lambda data, seen, s=stack, w=width, v=view: PixelCode(data, s, w, seen, v)
        plan.append(_Planned("pixels", stack, "pixels PCA", make))  # type: ignore[arg-type]
    if with_state:
        plan.append(_Planned("state", 0, "true state", lambda data, _: StateCode(data)))
    return [*plan, _Planned("constant", 0, "constant", lambda _, __: ConstantCode())]


class _Shown:
    """Progress over all images that are going to be encoded, and what is under way."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.name = ""
        self._done = 0
        self._what = ""

    def seen(self, images: int) -> None:
        self._done += images
        self.progress.update(self._done, doing=self._what)

    def doing(self, what: str) -> None:
        self._what = f"{self.name}: {what}"
        self.progress.update(self._done, doing=self._what)


def _notes(data: ProbeData, source: str) -> list[str]:
    notes = []
    if "state" not in data.store.spec.side:
        notes.append(f"{source} holds no state: only actions, reward and geometry are probed, without the true state")
    elif data.factors is None:
        notes.append(f"the state of {source} hardly varies: it is not probed")
    elif data.factors.excluded:
        notes.append(f"left out, because they hardly vary: {', '.join(data.factors.excluded)}")
    missing = [name for name in ("action", "reward") if name not in data.store.spec.provides]
    notes += [f"{source} holds no {name}s: they are not probed" for name in missing]
    notes += reward_targets(data).notes
    if data.episode_counts[2] < FEW_TEST_EPISODES:
        notes.append(f"only {data.episode_counts[2]} test episodes: the intervals are rough")
    return notes


def _about_data(data: ProbeData, manifest: Mapping[str, Any], source: str) -> dict[str, Any]:
    return {
        "name": source,
        "manifest_sha256": manifest_digest(manifest),
        "environment": manifest.get("environment"),
        "rows": data.store.rows,
        "frame_shape": list(data.store.spec.frame_shape),
        "discrete_actions": data.actions is not None and data.actions.discrete,
        "factors": data.factors.names if data.factors is not None else [],
    }


def _about_split(data: ProbeData) -> dict[str, Any]:
    rows = (data.split.train, data.split.val, data.split.test)
    return {
        name: {"rows": count, "episodes": episodes}
        for name, count, episodes in zip(("train", "val", "test"), rows, data.episode_counts, strict=True)
    }
