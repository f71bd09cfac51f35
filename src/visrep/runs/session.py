"""One run from its configuration to its directory: builds the parts, resumes, and sends each phase through the loop."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from visrep.config import Command, Config
from visrep.console import Console, Progress
from visrep.data.dataset import write_dataset
from visrep.envs.make import make_env
from visrep.envs.vector import VectorEnv
from visrep.log import RunLog
from visrep.runs.augmenting import action_note
from visrep.runs.compose import (
    Networks,
    Source,
    build_agent,
    build_networks,
    compile_networks,
    env_spec,
    replay_budget,
    store_spec,
)
from visrep.runs.counters import Counters
from visrep.runs.coverage import Coverage
from visrep.runs.diagnostics import write_metrics
from visrep.runs.directory import live_folder, mirror_folder
from visrep.runs.evaluation import evaluate, evaluation_lanes
from visrep.runs.finite import require_finite_weights
from visrep.runs.fit import check_fit
from visrep.runs.interact import Rig, interact
from visrep.runs.manifest import replay_manifest, replayed
from visrep.runs.monitor import Monitor
from visrep.runs.opening import Opened, opened, prepare_device
from visrep.runs.phases import PhasePlan, enter_task_phase, plan_phases
from visrep.runs.pictures import write_pictures
from visrep.runs.pretrained import save_agent, save_pretrained, take_over
from visrep.runs.rig import build_rig, register
from visrep.runs.state import RunState, seed_globals
from visrep.video import not_showable, write_video


@dataclass
class Session:
    """Parts that live as long as the process; phases build the rest on them."""

    opened: Opened
    command: Command
    envs: VectorEnv
    networks: Networks
    counters: Counters
    log: RunLog
    coverage: Coverage | None
    eval_envs: VectorEnv | None = None
    saved_at: int = field(default=-1)
    phase_saves: int = 0  # checkpoints written by this process in the running phase

    @property
    def config(self) -> Config:
        """Of the run."""
        return self.opened.config

    @property
    def provenance(self) -> dict[str, Any]:
        """What made the files of this run, for their metadata."""
        return self.opened.provenance(self.envs.fingerprint, agent_step=self.counters.agent_step)


def run(config: Config, command: Command, run_dir: Path, console: Console, console_episodes: bool = True) -> bool:
    """Run ``command`` (train, pretrain or finetune) in ``run_dir``; continue where it stands if it was begun before.

    ``console_episodes`` prints a line for every training episode and evaluation.

    Returns:
        False when it was interrupted after a checkpoint.

    Raises:
        UserError: anything the user can mend; what is on disk stays valid.
    """
    with opened(config, run_dir, console, prepare_device(config), "agent step") as begun:
        envs = VectorEnv(env_spec(config), config.run.num_envs, config.run.seed)
        try:
            session = _build(begun, command, envs, console_episodes)
            try:
                return _run_phases(session)
            finally:
                session.log.close()
                if session.eval_envs is not None:
                    session.eval_envs.close()
        finally:
            envs.close()


def _show_budget(begun: Opened, envs: VectorEnv, networks: Networks) -> None:
    latents = networks.encoder if begun.config.run.replay == "latents" else None
    budget = replay_budget(begun.config, store_spec(begun.config, envs, latents), begun.directory.path)
    for line in budget.table().splitlines():
        begun.console.line(line)
    budget.check()


def _build(begun: Opened, command: Command, envs: VectorEnv, console_episodes: bool) -> Session:
    config, keys = begun.config, begun.config.run
    seed_globals(keys.seed)
    networks = build_networks(config, Source.of(envs), begun.device)
    check_fit(config, networks, envs)
    _show_budget(begun, envs, networks)
    take_over(config, networks, envs.fingerprint, begun.console)
    compile_networks(networks, keys.compile)
    log = RunLog(
        begun.directory.path,
        keys.action_repeat,
        tensorboard=keys.log_save_tb,
        console=begun.console if console_episodes else None,
        train_columns=("length", "success"),
        eval_columns=("success", "episodes", "return_std"),
    )
    return Session(
        opened=begun,
        command=command,
        envs=envs,
        networks=networks,
        counters=Counters(),
        log=log,
        coverage=_coverage(config, envs),
    )


def _coverage(config: Config, envs: VectorEnv) -> Coverage | None:
    if not envs.state_dim:
        return None
    if not envs.num_cells:
        return Coverage(envs.state_dim)
    spec = env_spec(config)
    env: Any = make_env(spec.name, image_size=spec.image_size).unwrapped
    return Coverage(envs.state_dim, envs.num_cells, env.coverage_cells)


def _run_phases(session: Session) -> bool:
    plans = plan_phases(session.config, session.command, session.networks)
    begun, counters, saved = session.opened, session.counters, session.opened.saved
    first_phase = 0 if saved is None else int(saved["phase"])
    if first_phase >= len(plans):
        begun.say_finished()
        return True
    begun.console.line(f"environment: {begun.config.run.env}, renderer {session.envs.fingerprint.get('renderer')}")
    begun.announce(session.provenance)
    _say_notes(session, plans)
    for index in range(first_phase, len(plans)):
        plan = plans[index]
        if plan.phase.name == "finetune":
            enter_task_phase(session.config, session.networks)
        counters.phase = index
        rig, state = _build_phase(session, plan)
        if saved is not None:
            state.restore(saved["parts"])
            session.saved_at = counters.agent_step
            begun.console.line(f"resumed {plan.phase.name} at agent step {counters.agent_step:,}")
            saved = None
        else:
            session.log.event(counters.agent_step, f"phase {plan.phase.name} begins")
        if not _run_phase(session, plan, rig, state, index):
            return False
    return True


def _say_notes(session: Session, plans: list[PhasePlan]) -> None:
    """What may surprise about the run, before it begins."""
    config, envs = session.config, session.envs
    learning = [plan for plan in plans if plan.augments]
    objective = session.networks.objective if any(plan.asks_objective for plan in learning) else None
    notes = [action_note(config, envs.frame_shape[0], bool(learning), objective)]
    if config.run.save_video and config.run.num_eval_episodes and config.run.observation == "pixels":
        reason = not_showable(envs.frame_shape[0], envs.frame_dtype)
        notes.append(None if reason is None else f"no videos are written: {reason}")
    for note in filter(None, notes):
        session.opened.console.line(f"note: {note}", style="yellow")


def _build_phase(session: Session, plan: PhasePlan) -> tuple[Rig, RunState]:
    session.phase_saves = 0
    name, folder = plan.phase.name, session.opened.directory.state
    monitor = Monitor(
        session.log,
        session.counters,
        session.config.run.num_envs,
        session.coverage,
        session.config.run.log_frequency_step,
        session.opened.device,
    )
    rig = build_rig(
        session.config,
        session.networks,
        session.envs,
        session.counters,
        monitor,
        plan,
        live_folder(folder, name),
        session.opened.device,
    )
    return rig, register(rig, session.networks, session.log, mirror_folder(folder, name))


def _run_phase(session: Session, plan: PhasePlan, rig: Rig, state: RunState, index: int) -> bool:
    """One phase through the loop; returns False when it was interrupted (after a checkpoint)."""
    counters = session.counters
    with Progress(
        plan.phase.end, plan.phase.name, done=counters.agent_step, console=session.opened.console
    ) as progress:

        def every_step(rig: Rig) -> bool:
            _housekeeping(session, plan, rig, state, index, progress)
            return not session.opened.stop

        completed = interact(rig, plan.phase, every_step)
        if not completed:
            if session.saved_at != counters.agent_step or counters.owed:
                _checkpoint(session, state, index, rig)
            session.opened.say_stopped(f"agent step {counters.agent_step:,}")
            return False
        progress.update(counters.agent_step)
    _finish_phase(session, plan, rig, state, index)
    return True


def _housekeeping(session: Session, plan: PhasePlan, rig: Rig, state: RunState, index: int, progress: Progress) -> None:
    run, counters, step = session.config.run, session.counters, session.counters.agent_step
    if rig.monitor.metrics_due:
        write_metrics(rig)
    if _crossed(counters.evaluated_at, step, run.eval_frequency):
        _evaluate(session)
    if run.save_model and step and _crossed(step - run.num_envs, step, run.save_frequency):
        save_agent(session.networks, session.opened.directory.model, _agent_name(plan, step), session.provenance)
    if _crossed(max(session.saved_at, 0), step, run.checkpoint_frequency):
        _checkpoint(session, state, index, rig)
        session.phase_saves += 1
        if plan.phase.name == "finetune" and session.phase_saves == 2:
            # Both checkpoints that are kept now belong to this phase: nothing refers to the first one's rows any more.
            for folder in session.opened.directory.state.glob("store-pretrain*"):
                shutil.rmtree(folder)
    returns = rig.monitor.recent_return
    shown: dict[str, object] = {} if math.isnan(returns) else {"return": returns}
    if run.encoder_gradient == "init":
        shown["first updates left"] = counters.owed
    progress.update(step, **shown)


def _finish_phase(session: Session, plan: PhasePlan, rig: Rig, state: RunState, index: int) -> None:
    """Files that the phase leaves; the last phase also evaluates once more and marks the run as finished."""
    run, counters = session.config.run, session.counters
    require_finite_weights(session.networks.modules(), session.counters.where)
    write_metrics(rig)
    last = plan.phase.end >= run.num_train_steps
    if last and counters.evaluated_at < counters.agent_step:
        _evaluate(session)
    # Named by the phase's end: with several environments the last stride may overshoot it.
    name = _agent_name(plan, plan.phase.end)
    save_pretrained(session.networks, session.opened.directory.model, name, session.provenance)
    if plan.phase.name == "pretrain" and run.observation == "pixels":
        write_pictures(session.config, rig, session.opened.directory.path / "figures")
    if run.save_buffer:
        acted = replayed(plan.phase.name, counters.agent_step)
        manifest = replay_manifest(session.config, session.envs, acted, run.frame_stack)
        write_dataset(rig.store, session.opened.directory.path / "buffer" / plan.phase.name, manifest, replace=True)
    session.log.event(counters.agent_step, f"phase {plan.phase.name} ends")
    counters.next_phase()
    if last:
        _checkpoint(session, state, index + 1, rig)


def _agent_name(plan: PhasePlan, agent_step: int) -> str:
    return f"{'expl' if plan.phase.name == 'pretrain' else 'task'}_agent_{agent_step}"


def _crossed(before: int, now: int, frequency: int) -> bool:
    """Whether a multiple of ``frequency`` lies in (before, now]; with several environments steps come in strides."""
    return before < 0 or now // frequency > before // frequency


def _checkpoint(session: Session, state: RunState, index: int, rig: Rig) -> None:
    require_finite_weights(session.networks.modules(), session.counters.where)
    session.opened.checkpoints.save(session.counters.agent_step, {"phase": index, "parts": state.capture()})
    session.saved_at = session.counters.agent_step


def _evaluate(session: Session) -> None:
    run, counters = session.config.run, session.counters
    counters.evaluated_at = counters.agent_step
    if run.num_eval_episodes == 0:
        return
    if session.eval_envs is None:
        lanes = evaluation_lanes(run.num_envs, run.num_eval_episodes)
        session.eval_envs = VectorEnv(env_spec(session.config), lanes, run.seed + 1)
    per_lane = run.num_eval_episodes // session.eval_envs.num_envs
    result = evaluate(
        session.eval_envs,
        build_agent(session.config, session.networks, session.opened.device),
        frame_stack=run.frame_stack,
        episodes=run.num_eval_episodes,
        agent_step=counters.agent_step,
        first_episode=per_lane * (counters.agent_step // run.eval_frequency),
    )
    session.log.evaluation(
        counters.agent_step,
        episode=counters.episodes,
        episode_reward=result.mean_return,
        success=result.success,
        episodes=len(result.returns),
        return_std=float(np.std(result.returns)),
    )
    if run.save_video and not_showable(session.envs.frame_shape[0], session.envs.frame_dtype) is None:
        write_video(session.opened.directory.video / f"{counters.agent_step}.mp4", result.frames)
