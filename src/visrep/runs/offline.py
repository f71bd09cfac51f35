"""``visrep pretrain data=...``: a representation from recorded experience, without a policy or an environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from visrep.config import Config
from visrep.console import Console, Progress
from visrep.data.actions import ActionSpec
from visrep.data.batch import BatchSpec
from visrep.data.dataset import Dataset, open_dataset
from visrep.data.episodes import require_reach
from visrep.data.mixture import MixedSampler
from visrep.errors import UserError
from visrep.log import RunLog
from visrep.objectives.fitting import require_fields
from visrep.runs.augmenting import action_note, objective_augmentation, policy_augmentation
from visrep.runs.compose import Networks, Source, build_networks, build_sampler, compile_networks, reward_priority
from visrep.runs.finite import require_finite_weights
from visrep.runs.fit import require_weights
from visrep.runs.learning import learning_rate
from visrep.runs.opening import Opened, opened, prepare_device
from visrep.runs.pretrained import ENCODER_FILE, save_representation, take_over
from visrep.runs.probing import ProbeWatch, draw_probe, states_agree
from visrep.runs.representation import Representation, make_representation
from visrep.runs.sheets import Shown, write_sheets
from visrep.runs.state import RunState, seed_globals
from visrep.runs.update import Augment, augmented
from visrep.runs.window import MetricsWindow

SHOWN_EVERY = 10  # updates between looks at the loss for the progress bar: each waits for the device


@dataclass
class Offline:
    """The parts of one pre-training on recorded experience.

    Attributes:
        config: of the run.
        datasets: opened.
        networks: encoder and objective; no policy.
        representation: the objective with its optimisers.
        sampler: batches, mixed over the datasets.
        augment: what the objective's images go through; None for nothing.
        generator: of the augmentation.
        watch: live probes.
        shown: what the pictures at the end are made of.
        window: metrics since the last row.
        log: counts updates.
        device: of networks and batches.
    """

    config: Config
    datasets: list[Dataset]
    networks: Networks
    representation: Representation
    sampler: MixedSampler
    augment: Augment | None
    generator: torch.Generator
    watch: ProbeWatch
    shown: Shown
    window: MetricsWindow
    log: RunLog
    device: torch.device

    @property
    def updates(self) -> int:
        """Made so far."""
        return self.representation.updates

    @property
    def environment(self) -> dict[str, Any]:
        """What decides how images look, as far as all datasets agree."""
        seen = [dataset.manifest.get("environment") or {} for dataset in self.datasets]
        return {key: value for key, value in seen[0].items() if all(other.get(key) == value for other in seen)}

    def provenance(self, run: Opened) -> dict[str, Any]:
        """What made the files of this run, for their metadata."""
        about = [
            {"folder": str(dataset.folder), "env": dataset.manifest.get("env"), "rows": dataset.store.rows}
            for dataset in self.datasets
        ]
        return run.provenance(self.environment, datasets=about)

    def state(self) -> RunState:
        """Everything that decides how the run goes on."""
        state = RunState()
        for name, module in self.networks.modules().items():
            state.register(name, module)
        for name in ("representation", "sampler", "generator", "watch", "window", "log"):
            state.register(name, getattr(self, name))
        return state


def pretrain_on_data(config: Config, run_dir: Path, console: Console) -> bool:
    """Update the objective ``num_repr_updates`` times; continue where ``run_dir`` stands if it was begun before.

    Returns:
        False when it was interrupted after a checkpoint.

    Raises:
        UserError: anything the user can mend; what is on disk stays valid.
    """
    device, reason = prepare_device(config)
    # Built before the directory is made: what does not fit together leaves nothing behind.
    offline = _build(config, open_datasets(config, device), device, run_dir, console)
    with opened(config, run_dir, console, (device, reason), "update") as run:
        if run.saved is not None and run.saved["finished"]:
            run.say_finished()
            return True
        try:
            state = offline.state()
            if run.saved is not None:
                state.restore(run.saved["parts"])
                console.line(f"resumed at update {offline.updates:,}")
            else:
                take_over(config, offline.networks, offline.environment, console)
            _introduce(offline, run)
            return _loop(offline, state, run)
        finally:
            offline.log.close()


def open_datasets(config: Config, device: torch.device) -> list[Dataset]:
    """The datasets that ``data`` names, checked against what the objective needs."""
    run = config.run
    assert config.objective is not None, "checked with the configuration"
    folders = [Path(part.strip()).expanduser() for part in str(run.data).split(",") if part.strip()]
    datasets = [open_dataset(folder, run.storage, device) for folder in folders]
    for dataset in datasets:
        dataset.require_images()
        provides = dataset.store.spec.provides
        require_fields(run.method, config.objective, provides, str(dataset.folder), "method")
        if run.repr_priority_alpha and "reward" not in provides:
            raise UserError(
                f"repr_priority_alpha={run.repr_priority_alpha:g} favours rewards, but {dataset.folder} has none: "
                "leave the key out, or record the data with their rewards"
            )
    return datasets


def _build(config: Config, datasets: list[Dataset], device: torch.device, run_dir: Path, console: Console) -> Offline:
    run, stores = config.run, [dataset.store for dataset in datasets]
    seed_globals(run.seed)
    seeds = np.random.SeedSequence(run.seed).generate_state(len(stores) + 2)
    # An objective that looks at no actions is built without knowing them.
    source = Source(stores[0].spec.frame_shape, stores[0].spec.actions or ActionSpec(1), acts=False)
    networks = build_networks(config, source, device)
    objective = networks.objective
    assert objective is not None, "checked with the configuration"
    require_weights(networks.encoder, f"method={run.method}")
    rate = learning_rate(config, lambda: run.num_repr_updates)
    representation = make_representation(
        objective, rate, True, first_index=0, clip_norm=run.repr_grad_clip, precision=run.precision
    )
    if representation is None or not objective.trains_encoder:
        raise UserError(f"method={run.method} does not train the encoder, so there is nothing to pre-train with it")
    sampler = _mixture(config, datasets, objective.needs(), seeds[1:])
    channels = networks.encoder.contract.channels
    shared = policy_augmentation(config, channels)
    _, augment = objective_augmentation(config, channels, objective.augmented, shared)
    prepare = None if shared is None else shared.evaluate
    one_state = states_agree(datasets)
    compile_networks(networks, run.compile)
    return Offline(
        config=config,
        datasets=datasets,
        networks=networks,
        representation=representation,
        sampler=sampler,
        augment=augment,
        generator=torch.Generator(device=device).manual_seed(int(seeds[0])),
        watch=ProbeWatch(run.probe_frequency, lambda: draw_probe(stores, run.frame_stack, prepare, device, one_state)),
        shown=Shown(networks.encoder, objective, stores, run.frame_stack, prepare, device),
        window=MetricsWindow(device, updates=0),
        log=RunLog(run_dir, 1, tensorboard=run.log_save_tb, console=console, unit="update"),
        device=device,
    )


def _mixture(
    config: Config, datasets: list[Dataset], needs: BatchSpec, seeds: NDArray[np.unsignedinteger[Any]]
) -> MixedSampler:
    """The objective's batches from all datasets; the first seed is the mixture's, then one for each dataset."""
    run, names, samplers = config.run, [str(dataset.folder) for dataset in datasets], []
    for dataset, seed in zip(datasets, seeds[1:], strict=True):
        require_reach(dataset.store, needs, run.frame_stack, str(dataset.folder))
        generator, priority = np.random.default_rng(seed), reward_priority(config)
        samplers.append(
            build_sampler(config, dataset.store, needs, generator, run.frame_stack, run.repr_batch_size, priority)
        )
    weights = run.data_weights or (1.0,) * len(datasets)
    return MixedSampler(samplers, weights, names, np.random.default_rng(seeds[0]))


def _introduce(offline: Offline, run: Opened) -> None:
    """Say what is learned from and what may surprise about it, and record what the run computes on."""
    shares = offline.sampler.weights
    for dataset, share in zip(offline.datasets, shares, strict=True):
        store = dataset.store
        run.console.line(
            f"data: {dataset.folder} ({dataset.manifest.get('env', 'unknown environment')}, {store.transitions:,} "
            f"transitions of {store.spec.frame_shape}, {100 * share:.0f} % of each batch)"
        )
    run.announce(offline.provenance(run))
    networks = offline.networks
    note = action_note(offline.config, networks.encoder.contract.channels, False, networks.objective)
    for text in [*_differences(offline.datasets), *([note] if note is not None else [])]:
        run.console.line(f"note: {text}", style="yellow")


def _differences(datasets: list[Dataset]) -> list[str]:
    """What sets datasets that are mixed apart in look or pace: one text per key that not all of them agree on."""
    texts = []
    for key in ("renderer", "camera", "action_repeat"):
        values = [(dataset.manifest.get("environment") or {}).get(key) for dataset in datasets]
        if len({str(value) for value in values if value is not None}) > 1:
            each = ", ".join(f"{value} in {dataset.folder}" for value, dataset in zip(values, datasets, strict=True))
            texts.append(f"the datasets differ in {key}: {each}; they are mixed as they are")
    return texts


def _loop(offline: Offline, state: RunState, run: Opened) -> bool:
    """Update until done; False when it was asked to stop (after a checkpoint)."""
    keys, total, shown = offline.config.run, offline.config.run.num_repr_updates, {}
    offline.window.begin(updates=offline.updates)
    _probe(offline)

    def checkpoint(finished: bool = False) -> None:
        require_finite_weights(offline.networks.modules(), f"update {offline.updates}")
        run.checkpoints.save(offline.updates, {"finished": finished, "parts": state.capture()})

    with Progress(total, keys.method, done=offline.updates, console=run.console, unit="updates") as progress:
        while offline.updates < total:
            if run.stop:
                checkpoint()
                run.say_stopped(f"update {offline.updates:,}")
                return False
            metrics = _update(offline)
            _probe(offline)
            if offline.updates % keys.log_frequency_step == 0 or offline.updates == total:
                _write_metrics(offline)
            if offline.updates % keys.checkpoint_frequency == 0:
                checkpoint()
            if offline.updates % SHOWN_EVERY == 0:
                shown = {"loss": float(metrics["repr_loss"])}
            progress.update(offline.updates, **shown)
    folder = run.directory
    save_representation(offline.networks, folder.model, {**offline.provenance(run), "updates": offline.updates})
    write_sheets(offline.shown, folder.path / "figures")
    run.console.line(f"encoder: {folder.model / ENCODER_FILE}")
    checkpoint(finished=True)
    return True


def _update(offline: Offline) -> dict[str, torch.Tensor]:
    objective = offline.representation.objective
    batch = offline.sampler.sample().to(offline.device)
    batch = augmented(batch, offline.augment, offline.generator, objective.needs().views)
    metrics = offline.representation.step(batch)
    offline.window.add(metrics, offline.updates, f"update {offline.updates}")
    return metrics


def _write_metrics(offline: Offline) -> None:
    values = offline.window.row(updates=offline.updates)
    values |= {name: float(value) for name, value in offline.representation.objective.diagnostics().items()}
    values["repr_lr"] = offline.representation.next_rate
    offline.log.metrics(offline.updates, values)


def _probe(offline: Offline) -> None:
    """The live probe, where it is due: a row of its own in the log, and a warning for the user."""
    if not offline.watch.due(offline.updates):
        return
    values, warning = offline.watch.look(offline.networks.encoder, offline.updates)
    if values:
        offline.log.metrics(offline.updates, values)
    if warning is not None:
        offline.log.warning(offline.updates, warning)
