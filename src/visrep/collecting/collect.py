"""``visrep collect``: from its keys to a dataset on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visrep.collecting.actors import Actor, NoisyActor, RandomActor, ScriptedActor, SmoothActor
from visrep.collecting.identity import Recorded, about_policy, compare, find_recorded, identity
from visrep.collecting.place import dataset_folder, summary
from visrep.collecting.record import Recorder, record
from visrep.collecting.request import Request
from visrep.collecting.trained import TrainedRun, build_trained_actor
from visrep.console import Console
from visrep.data.actions import ActionSpec
from visrep.data.budget import USABLE, available_disk, text_bytes
from visrep.data.store import StoreSpec
from visrep.data.writer import DatasetWriter
from visrep.envs.make import make_script
from visrep.envs.vector import VectorEnv
from visrep.errors import UserError
from visrep.files import take_lock
from visrep.runs.manifest import replay_manifest
from visrep.runs.stopping import StopRequest

CHECKPOINT_SECONDS = 10.0


def collect(console: Console, request: Request, checkpoint_seconds: float = CHECKPOINT_SECONDS) -> int:
    """Record whole episodes into a dataset; the same request continues what a kill or Ctrl-C has left, or is done.

    Args:
        console: where to print.
        request: what to record.
        checkpoint_seconds: at most so much time's finished episodes are lost by a kill.

    Returns:
        Exit status: 0 finished, now or before; 130 stopped by Ctrl-C.

    Raises:
        UserError: a wrong key, a folder that holds other data, or no room on the disk.
    """
    quota, trained = request.quota, request.trained()
    spec, notes = request.env_spec(trained)
    for note in notes:
        console.line(f"note: {note}", style="yellow")
    folder = dataset_folder(request.out)
    with (
        take_lock(folder, "wait for the other collection, or choose another out"),
        StopRequest() as stop,
        VectorEnv(spec.settled(), quota.lanes, request.seed) as envs,
    ):
        about = identity(envs, request, trained)
        there = find_recorded(folder)
        if there is not None:
            _check_same(there, about, request, folder, console)
            if there.manifest is not None:
                console.line(f"this dataset is finished already: {summary(there.manifest, folder)}")
                return 0
        recorder = _recorder(envs, request, trained, folder, about)
        if already := int(recorder.episodes.sum()):
            console.line(f"continuing {folder}: {already:,} episodes are recorded")
        total = quota.total_agent_steps(envs.max_agent_steps or 0)
        if not record(recorder, console, stop, total, checkpoint_seconds):
            console.line(f"stopped by {stop.signal_name}; the same command continues from the last whole episodes")
            return 130
        run = None if trained is None else trained.config.run
        # Of a policy on state vectors the stack says nothing about images.
        stack = run.frame_stack if run is not None and run.observation == request.observation else None
        manifest = replay_manifest(
            None if trained is None else trained.config,
            envs,
            about_policy(request, trained),
            stack,
            noise_std=request.noise_std,
            asked_for=quota.text,
        )
        whole = recorder.writer.finish(manifest)
    console.line(summary(whole, folder))
    return 0


def _check_same(there: Recorded, asked: dict[str, Any], request: Request, folder: Path, console: Console) -> None:
    """Refuse to go on with what other keys recorded; a finished dataset may come from another machine."""
    keys, surroundings = compare(there, asked, request)
    if there.manifest is not None and not keys:
        for line in surroundings:
            console.line(f"note: it was recorded under other conditions: {line}", style="yellow")
    elif keys or surroundings:
        lines = "".join(f"  {line}\n" for line in keys or surroundings)
        raise UserError(f"{folder} holds {there.what} of other data:\n{lines}use the same values, or another out")


def _recorder(
    envs: VectorEnv, request: Request, trained: TrainedRun | None, folder: Path, about: dict[str, Any]
) -> Recorder:
    """The parts of a recording, begun or continued in ``folder``."""
    quota = request.quota
    if envs.max_agent_steps is None:
        raise UserError(
            f"env={envs.spec.name} does not say its time limit, so the room for its episodes is unknown: give it an "
            "attribute max_agent_steps"
        )
    widths = {"state": envs.state_dim, "observation": envs.observation_dim}
    side: dict[str, tuple[int, ...]] = {name: (width,) for name, width in widths.items() if width}
    spec = StoreSpec(envs.frame_shape, ActionSpec(envs.action_dim), side, envs.frame_dtype)
    rows = quota.rows_per_lane(envs.max_agent_steps)
    _check_disk(spec.row_bytes * rows * quota.lanes, folder)
    actor = _actor(envs, request, trained)
    writer = DatasetWriter(folder, spec, rows, quota.lanes, about)
    return Recorder(envs, actor, writer, quota)


def _check_disk(nbytes: int, folder: Path) -> None:
    """Rows are recorded in one place and copied, without gaps, to another when they are complete."""
    free = available_disk(folder)
    if 2 * nbytes > USABLE * free:
        raise UserError(
            f"recording needs {text_bytes(2 * nbytes)} on the disk of {folder} (the data and, at the end, a second "
            f"copy), {text_bytes(free)} are free: make room, record less, or choose a smaller image_size"
        )


def _actor(envs: VectorEnv, request: Request, trained: TrainedRun | None) -> Actor:
    actor: Actor
    if trained is not None:
        actor = build_trained_actor(trained, envs)
    elif request.policy == "scripted":
        name, repeat = envs.spec.name, envs.spec.action_repeat
        actor = ScriptedActor(envs, [make_script(name, repeat) for _ in range(envs.num_envs)])
    else:
        actor = SmoothActor(envs) if request.policy == "smooth" else RandomActor(envs)
    return NoisyActor(actor, request.noise_std) if request.noise_std else actor
