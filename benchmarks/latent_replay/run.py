"""Updates from stored latent images against updates from pixels, and the bytes that one step takes in the store.

    python benchmarks/latent_replay/run.py [--encoder atc] [--threads 4,1] [--widths 1024,256] [--write]

The policy is ATC's SAC on its DeepMind Control encoder (32x7x7 latents; ``--encoder proto``: 32x35x35). "pixels"
augments stacked frames by a random shift and encodes them with the frozen encoder; "latents" augments what that encoder
gave once by a subpixel shift, and runs no convolution; "pixels, encoder trained" is the end-to-end agent for scale.
Store, sampler, learner and update are the framework's. Every round times all contestants, one after the other;
sampling is timed apart. The products of an update (convolutions, matrices) are counted too: with equal speed in all of
them and nothing else to do, a ratio of times would be the ratio of these counts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from visrep.allocator import keep_freed_memory
from visrep.augment import parse_augmentation
from visrep.config import parse
from visrep.data.actions import ActionSpec
from visrep.data.batch import BatchSpec
from visrep.data.sampler import Sampler
from visrep.data.store import FrameStore, StoreSpec
from visrep.encoders import Encoder, InputContract, build_encoder
from visrep.objectives.parts.ema import frozen_copy
from visrep.policies.nets import adam
from visrep.policies.sac import SAC, SACConfig
from visrep.runs.update import Learner, update

FRAME, STACK, ACTIONS, EPISODE = (3, 84, 84), 3, ActionSpec(6), 100
ROWS = 2_000
LR = 1e-3
WARM_UP_ROUNDS = 2
TICKS = (0, 1)  # actor and targets learn at even ticks
BAR = 5.0
PRESET = ("preset=atc_dmc", "env=toy/maze")  # any environment: the policy's settings are all that is taken


@dataclass
class Contestant:
    """One way to learn: a sampler, a learner, and the bytes of a stored step."""

    sampler: Sampler
    learner: Learner
    step_bytes: int


def filled(spec: StoreSpec) -> FrameStore:
    """A store of random rows."""
    store, rng = FrameStore(spec, ROWS), np.random.default_rng(0)
    for row in range(ROWS):
        first, last = row % EPISODE == 0, row % EPISODE == EPISODE - 1
        values = rng.integers(0, 256, (1, *spec.frame_shape)).astype(spec.frame_dtype)
        action = np.zeros((1, ACTIONS.dim)) if first else rng.uniform(-1, 1, (1, ACTIONS.dim))
        store.add([0], values, action, [0.0 if first else rng.random()], [first], [False], [last])
    return store


def contestant(encoder: Encoder, source: str, batch_size: int, precision: str, hidden_dim: int) -> Contestant:
    """``source``: pixels, pixels trained, or the dtype in which latents are stored."""
    latents = not source.startswith("pixels")
    trained = source == "pixels, trained"
    spec = StoreSpec(FRAME, ACTIONS)
    learning: Encoder = frozen_copy(encoder)
    augment = parse_augmentation("shift(4)", FRAME[0])
    if latents:
        filters, height, width = encoder.latent_shape
        spec = StoreSpec(encoder.latent_shape, ACTIONS, frame_dtype=source)
        contract = InputContract(height, width, channels=filters, stack=1, low=None, high=None)
        learning = build_encoder("latent", contract)
        augment = parse_augmentation("subpixel_shift(1)", filters, "latents")
    if trained:
        learning.requires_grad_(True)
    settings = parse([*PRESET, f"hidden_dim={hidden_dim}"]).policy
    assert isinstance(settings, SACConfig)
    learner = Learner(
        encoder=learning,
        policy=SAC(encoder.feature_dim, ACTIONS.dim, settings, LR),
        generator=torch.Generator().manual_seed(0),
        target_encoder=frozen_copy(learning) if trained else None,
        augment=augment,
        encoder_optimizer=adam(learning.parameters(), LR) if trained else None,
        encoder_gradient="critic" if trained else "none",
        mask_time_limits=True,
        precision=precision,  # type: ignore[arg-type]
    )
    fields = frozenset({"image", "action", "reward", "is_last", "terminal"})
    sampler = Sampler(
        filled(spec), BatchSpec((0, 1), fields, n_step=1), batch_size, 1 if latents else STACK,
        generator=np.random.default_rng(0),
    )  # fmt: skip
    return Contestant(sampler, learner, spec.row_bytes)


def measure(contestants: dict[str, Contestant], repeats: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Seconds per update and per sampled batch, one contestant after the other in every round."""
    seconds: dict[str, dict[str, list[float]]] = {name: {"sample": [], "update": []} for name in contestants}
    for round_ in range(WARM_UP_ROUNDS + repeats):
        for name, one in contestants.items():
            taken = {"sample": 0.0, "update": 0.0}
            for tick in TICKS:
                began = clock()
                batch = one.sampler.sample()
                sampled = clock()
                update(one.learner, batch, tick, tick)
                taken["sample"] += (sampled - began) / len(TICKS)
                taken["update"] += (clock() - sampled) / len(TICKS)
            if round_ >= WARM_UP_ROUNDS:
                for what, value in taken.items():
                    seconds[name][what].append(value)
    return {
        name: {
            "step_bytes": contestants[name].step_bytes,
            "gflop": gflop(contestants[name]),
            "seconds": lists,
            "medians": {what: statistics.median(values) for what, values in lists.items()},
        }
        for name, lists in seconds.items()
    }


def gflop(contestant: Contestant) -> float:
    """Billions of floating-point operations in the products of an update, the mean over the ticks."""
    with FlopCounterMode(display=False) as counter:
        for tick in TICKS:
            update(contestant.learner, contestant.sampler.sample(), tick, tick)
    return float(counter.get_total_flops()) / len(TICKS) / 1e9


def table(results: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| policy | learns from | bytes per step | sample ms | update ms | pixels / this | with sampling | GFLOP "
        "| pixels / this by GFLOP |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for policy, rows in results.items():
        pixels, products = rows["pixels"]["medians"], rows["pixels"]["gflop"]
        for name, row in rows.items():
            sample, step = row["medians"]["sample"], row["medians"]["update"]
            lines.append(
                f"| {policy} | {name} | {row['step_bytes']:,} | {1e3 * sample:.2f} | {1e3 * step:.1f} | "
                f"{pixels['update'] / step:.1f} | {(pixels['sample'] + pixels['update']) / (sample + step):.1f} | "
                f"{row['gflop']:.2f} | {products / row['gflop']:.1f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", default="4,1", help="a run beside others takes one thread")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--widths", default="1024,256", help="of the heads: the paper's, that of preset=atc_small")
    parser.add_argument("--encoder", choices=("atc", "proto"), default="atc", help="7x7 or 35x35 latent images")
    parser.add_argument("--cpu-time", action="store_true", help="CPU seconds: for --threads 1 on a busy machine")
    parser.add_argument("--write", action="store_true", help="write results.json and results.md beside this file")
    args = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    encoder = build_encoder(args.encoder, InputContract(FRAME[1], FRAME[2], FRAME[0], STACK)).requires_grad_(False)
    clock = time.process_time if args.cpu_time else time.perf_counter
    results: dict[str, Any] = {}
    widths, threads = (map(int, text.split(",")) for text in (args.widths, args.threads))
    for count, width, precision in itertools.product(threads, widths, ("fp32", "bf16")):
        torch.set_num_threads(count)
        sources = {
            "pixels": "pixels", "latents fp16": "float16", "latents fp32": "float32",
            "pixels, encoder trained": "pixels, trained",
        }  # fmt: skip
        contestants = {
            name: contestant(encoder, source, args.batch_size, precision, width) for name, source in sources.items()
        }
        results[f"{count} thread(s), heads {width} wide, {precision}"] = measure(contestants, args.repeats, clock)
    print(table(results))
    if args.write:
        write(args, results)


def write(args: argparse.Namespace, results: dict[str, Any]) -> None:
    """Figures and the command that made them."""
    chosen = f"--threads {args.threads} --repeats {args.repeats}"
    flags = f"{chosen} --batch-size {args.batch_size} --widths {args.widths} --encoder {args.encoder}"
    command = f"python benchmarks/latent_replay/run.py {flags}{' --cpu-time' if args.cpu_time else ''} --write"
    setup = {
        "command": command,
        "threads": args.threads,
        "clock": "CPU seconds of the process" if args.cpu_time else "wall-clock",
        "repeats": args.repeats,
        "batch_size": args.batch_size,
        "encoder": args.encoder,
        "bar": BAR,
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
    folder = Path(__file__).parent
    (folder / "results.json").write_text(json.dumps({"setup": setup, "results": results}, indent=2) + "\n")
    facts = "; ".join(f"{key} {value}" for key, value in setup.items() if key != "command")
    (folder / "results.md").write_text("\n".join([table(results), "", f"Command: `{command}`. {facts}.", ""]))


if __name__ == "__main__":
    main()
