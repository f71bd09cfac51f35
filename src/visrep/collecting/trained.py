"""A finished run's policy as the one that acts while episodes are recorded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visrep.collecting.actors import TrainedActor
from visrep.config import Config, config_from_dict
from visrep.data.actions import ActionSpec
from visrep.envs.vector import VectorEnv
from visrep.errors import UserError
from visrep.network_files import load_module_states, network_file_content
from visrep.runs.compose import Source, build_agent, build_networks, choose_device
from visrep.runs.pretrained import load_agent, newest_agent


@dataclass(frozen=True)
class TrainedRun:
    """Where a policy comes from.

    Attributes:
        path: agent file.
        config: of the run that wrote it.
        about: JSON values that identify it, wherever the file lies.
    """

    path: Path
    config: Config
    about: dict[str, Any]


def find_trained(source: str) -> TrainedRun:
    """The agent that ``policy=<source>`` names: the newest of a run directory, or the file itself.

    Raises:
        UserError: nothing there, no policy in it, or it does not say which run wrote it.
    """
    given = Path(source).expanduser()
    path = newest_agent(given) if given.is_dir() else given
    if network_file_content(path) == "encoder":
        raise UserError(
            f"policy={source}: {path.name} holds an encoder and no policy; name the run directory or one of its "
            "model/*_agent_*.safetensors"
        )
    states, provenance = load_module_states(path)
    if "policy" not in states:
        raise UserError(f"policy={source}: {path.name} holds no policy, only {', '.join(sorted(states))}")
    if "config" not in provenance:
        raise UserError(f"policy={source}: {path.name} does not say how its run was set up; was it written by visrep?")
    about = {
        "kind": "trained",
        "agent": path.name,
        "agent_step": provenance.get("agent_step"),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    return TrainedRun(path, config_from_dict(provenance["config"]), about)


def build_trained_actor(trained: TrainedRun, envs: VectorEnv) -> TrainedActor:
    """The run's networks, acting on what ``envs`` show.

    Raises:
        UserError: the environments do not show what the policy acts on, or their sizes do not fit it.
    """
    run = trained.config.run
    beside = run.observation == "state" and envs.spec.observation == "pixels"
    if beside and not envs.observation_dim:
        raise UserError(
            f"policy={trained.path} acts on state vectors, and env={envs.spec.name} has no state observation: choose a "
            "policy that learned from pixels"
        )
    frame_shape = (envs.observation_dim, 1, 1) if beside else envs.frame_shape
    device, _ = choose_device("auto")
    networks = build_networks(trained.config, Source(frame_shape, ActionSpec(envs.action_dim)), device)
    try:
        load_agent(networks, str(trained.path), leave=("objective",))
    except UserError as error:
        raise UserError(
            f"the policy, learned on env={run.env}, does not fit env={envs.spec.name} as it is recorded: {error}"
        ) from error
    agent = build_agent(trained.config, networks, device)
    return TrainedActor(envs, agent, run.frame_stack, "observation" if beside else "frames")
