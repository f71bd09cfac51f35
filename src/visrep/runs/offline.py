"""``visrep pretrain data=...``: a representation from recorded experience, without a policy or an environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from visrep.checkpoint import CheckpointStore
from visrep.config import Config
from visrep.console import Console, Progress, ram_bytes
from visrep.data.actions import ActionSpec
from visrep.data.dataset import Dataset, open_dataset
from visrep.data.episodes import require_reach
from visrep.data.mixture import MixedSampler
from visrep.errors import UserError
from visrep.log import MetricAccumulator, RunLog
from visrep.objectives.fitting import require_fields
from visrep.runs.augmenting import objective_augmentation, policy_augmentation
from visrep.runs.compose import Networks, Source, build_networks, build_sampler, choose_device, compile_networks
from visrep.runs.directory import RunDirectory, command_line, versions
from visrep.runs.learning import learning_rate
from visrep.runs.monitor import NONFINITE_CHECK_UPDATES, require_finite, require_finite_weights
from visrep.runs.pretrained import ENCODER_FILE, save_representation, take_over
from visrep.runs.probing import ProbeWatch, draw_probe
from visrep.runs.representation import Representation, make_representation
from visrep.runs.resuming import Outcome, saved_state
from visrep.runs.sheets import Shown, write_sheets
from visrep.runs.state import RunState, seed_globals
from visrep.runs.stopping import StopRequest
from visrep.runs.update import Augment, augmented

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
        accumulator: metrics since the last row.
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
    accumulator: MetricAccumulator
    log: RunLog
    device: torch.device

    @property
    def updates(self) -> int:
        """Made so far."""
        return self.representation.updates

    @property
    def provenance(self) -> dict[str, Any]:
        """What made the files of this run, for their metadata."""
        # What decides how images look is told of all datasets together only where they agree.
        seen = [dataset.manifest.get("environment") or {} for dataset in self.datasets]
        alike = {key: value for key, value in seen[0].items() if all(other.get(key) == value for other in seen)}
        about = [
            {"folder": str(dataset.folder), "env": dataset.manifest.get("env"), "rows": dataset.store.rows}
            for dataset in self.datasets
        ]
        return {
            "config": self.config.to_dict(),
            "environment": alike,
            "datasets": about,
            "versions": versions(),
        }

    def state(self) -> RunState:
        """Everything that decides how the run goes on."""
        state = RunState()
        for name, module in self.networks.modules().items():
            state.register(name, module)
        for name in ("representation", "sampler", "generator", "watch", "accumulator", "log"):
            state.register(name, getattr(self, name))
        return state


def pretrain_on_data(config: Config, run_dir: Path, console: Console) -> Outcome:
    """Update the objective ``num_repr_updates`` times; continue where ``run_dir`` stands if it was begun before.

    Raises:
        UserError: anything the user can mend; what is on disk stays valid.
    """
    if config.run.threads is not None:
        torch.set_num_threads(config.run.threads)
    device, reason = choose_device(config.run.device)
    # Built before the directory is made: what does not fit together leaves nothing behind.
    offline = _build(config, open_datasets(config, device), device, run_dir, console)
    with RunDirectory(run_dir, config) as directory, StopRequest() as stop:
        checkpoints = CheckpointStore(directory.state)
        saved = saved_state(config, checkpoints, directory)
        console.line(f"run directory: {run_dir}")
        if saved is not None and saved["finished"]:
            console.line("this run is finished already; choose another run_dir for a new one")
            return Outcome(run_dir, True, 0)
        console.line(f"device: {device} ({reason})")
        try:
            state = offline.state()
            if saved is not None:
                state.restore(saved["parts"])
                console.line(f"resumed at update {offline.updates:,}")
            else:
                take_over(config, offline.networks, offline.provenance["environment"], console)
            _introduce(offline, directory, console, resumed=saved is not None)
            finished = _loop(offline, state, checkpoints, directory, console, stop)
        finally:
            offline.log.close()
    return Outcome(run_dir, finished, 0)


def open_datasets(config: Config, device: torch.device) -> list[Dataset]:
    """The datasets that ``data`` names, checked against what the objective needs."""
    run = config.run
    assert config.objective is not None, "checked with the configuration"
    folders = [Path(part.strip()).expanduser() for part in str(run.data).split(",") if part.strip()]
    datasets = [open_dataset(folder, run.storage, device) for folder in folders]
    for dataset in datasets:
        provides = dataset.store.spec.provides
        require_fields(run.method, config.objective, provides, str(dataset.folder), "method")
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
    rate = learning_rate(config, lambda: run.num_repr_updates)
    representation = make_representation(
        objective, rate, True, first_index=0, clip_norm=run.repr_grad_clip, precision=run.precision
    )
    if representation is None or not objective.trains_encoder:
        raise UserError(f"method={run.method} does not train the encoder, so there is nothing to pre-train with it")
    for store, dataset in zip(stores, datasets, strict=True):
        require_reach(store, objective.needs(), run.frame_stack, str(dataset.folder))
    samplers = [
        build_sampler(
            config, store, objective.needs(), np.random.default_rng(seed), run.frame_stack, run.repr_batch_size
        )
        for store, seed in zip(stores, seeds[2:], strict=True)
    ]
    weights = run.data_weights or (1.0,) * len(stores)
    names = [str(dataset.folder) for dataset in datasets]
    channels = networks.encoder.contract.channels
    shared = policy_augmentation(config, channels)
    _, augment = objective_augmentation(config, channels, objective.augmented, shared)
    prepare = None if shared is None else shared.evaluate
    compile_networks(networks, run.compile)
    return Offline(
        config=config,
        datasets=datasets,
        networks=networks,
        representation=representation,
        sampler=MixedSampler(samplers, weights, names, np.random.default_rng(seeds[1])),
        augment=augment,
        generator=torch.Generator(device=device).manual_seed(int(seeds[0])),
        watch=ProbeWatch(run.probe_frequency, lambda: draw_probe(stores, run.frame_stack, prepare, device)),
        shown=Shown(networks.encoder, objective, stores, run.frame_stack, prepare, device),
        accumulator=MetricAccumulator(),
        log=RunLog(run_dir, 1, tensorboard=run.log_save_tb, console=console, unit="update"),
        device=device,
    )


def _introduce(offline: Offline, directory: RunDirectory, console: Console, resumed: bool) -> None:
    """Say what is learned from, and record what the run computes on."""
    shares = offline.sampler.weights
    for dataset, share in zip(offline.datasets, shares, strict=True):
        store = dataset.store
        console.line(
            f"data: {dataset.folder} ({dataset.manifest.get('env', 'unknown environment')}, {store.transitions:,} "
            f"transitions of {store.spec.frame_shape}, {100 * share:.0f} % of each batch)"
        )
    about = {**offline.provenance, "command": command_line(), "device": str(offline.device)}
    changed = directory.write_provenance(about)
    for change in changed if resumed else ():
        console.line(f"note: {change}; the run goes on, but not bit for bit as without the interruption")


def _loop(
    offline: Offline,
    state: RunState,
    checkpoints: CheckpointStore,
    directory: RunDirectory,
    console: Console,
    stop: StopRequest,
) -> bool:
    """Update until done; False when it was asked to stop (after a checkpoint)."""
    run, total, shown = offline.config.run, offline.config.run.num_repr_updates, {}
    _probe(offline)

    def checkpoint(finished: bool = False) -> None:
        require_finite_weights(offline.networks.modules(), f"update {offline.updates}")
        checkpoints.save(offline.updates, {"finished": finished, "parts": state.capture()})

    with Progress(total, run.method, done=offline.updates, console=console, unit="updates") as progress:
        while offline.updates < total:
            if stop:
                checkpoint()
                console.line(
                    f"stopped by {stop.signal_name} at update {offline.updates:,}; "
                    f"the same command with run_dir={directory.path} continues"
                )
                return False
            metrics = _update(offline)
            _probe(offline)
            if offline.updates % run.log_frequency_step == 0 or offline.updates == total:
                _write_metrics(offline, progress)
            if offline.updates % run.checkpoint_frequency == 0:
                checkpoint()
            if offline.updates % SHOWN_EVERY == 0:
                shown = {"loss": float(metrics["repr_loss"])}
            progress.update(offline.updates, **shown)
    save_representation(offline.networks, directory.model, {**offline.provenance, "updates": offline.updates})
    write_sheets(offline.shown, directory.path / "figures")
    console.line(f"encoder: {directory.model / ENCODER_FILE}")
    checkpoint(finished=True)
    return True


def _update(offline: Offline) -> dict[str, torch.Tensor]:
    objective = offline.representation.objective
    batch = offline.sampler.sample().to(offline.device)
    batch = augmented(batch, offline.augment, offline.generator, objective.needs().views)
    metrics = offline.representation.step(batch)
    if offline.device.type == "cpu" or offline.updates % NONFINITE_CHECK_UPDATES == 0:
        require_finite(metrics, f"update {offline.updates}")
    offline.accumulator.add(metrics)
    return metrics


def _write_metrics(offline: Offline, progress: Progress) -> None:
    values = offline.accumulator.means()
    values |= {name: float(value) for name, value in offline.representation.objective.diagnostics().items()}
    values["repr_lr"] = offline.representation.rate.at(offline.updates)
    if progress.agent_steps_per_second is not None:
        values["updates_per_second"] = progress.agent_steps_per_second
    values["ram_bytes"] = float(ram_bytes())
    offline.log.metrics(offline.updates, values)
    offline.accumulator.reset()


def _probe(offline: Offline) -> None:
    """The live probe, where it is due: a row of its own in the log, and a warning for the user."""
    if not offline.watch.due(offline.updates):
        return
    values, warning = offline.watch.look(offline.networks.encoder, offline.updates)
    if values:
        offline.log.metrics(offline.updates, values)
    if warning is not None:
        offline.log.warning(offline.updates, warning)
