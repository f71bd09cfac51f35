"""What a dataset says about where it comes from: the same for recorded episodes and for a run's saved replay."""

from __future__ import annotations

from typing import Any

from visrep.config import Config
from visrep.envs.vector import VectorEnv
from visrep.runs.directory import command_line, versions


def replay_manifest(
    config: Config | None,
    envs: VectorEnv,
    policy: dict[str, Any],
    frame_stack: int | None = None,
    **more: Any,
) -> dict[str, Any]:
    """The manifest that ``write_dataset`` and ``DatasetWriter.finish`` take.

    Args:
        config: of the run that learned the acting policy, or whose replay this is; None where no run is behind it.
        envs: that gave the rows; its seed is the episodes' seed.
        policy: JSON values that say who acted, e.g. what ``replayed`` gives.
        frame_stack: frames per image that the policy looked at; None where it looked at none.
        more: further JSON values for the provenance.

    Returns:
        JSON values: "env", "environment" (fingerprint), "frame_stack" (if there is one), and "provenance" with
        policy, config, seed, num_envs, versions and command.
    """
    about = {"policy": policy, "config": None if config is None else config.to_dict()}
    origin = {"seed": envs.seed, "num_envs": envs.num_envs, "versions": versions()}
    return _manifest(envs.spec.name, envs.fingerprint, frame_stack, {**about, **origin}, more)


def past_replay_manifest(
    config: Config, provenance: dict[str, Any], policy: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """``replay_manifest`` of a run that is over, without its environments.

    Args:
        config: of the run.
        provenance: the run's provenance.json.
        policy: what ``replayed`` gives.
        more: further JSON values for the provenance.

    Returns:
        See ``replay_manifest``; the versions are those that the run was made with.
    """
    keys = config.run
    origin = {"seed": keys.seed, "num_envs": keys.num_envs, "versions": provenance["versions"]}
    about = {"policy": policy, "config": config.to_dict(), **origin}
    return _manifest(keys.env, provenance["environment"], keys.frame_stack, about, more)


def replayed(phase: str, agent_step: int) -> dict[str, Any]:
    """Who acted where rows are a run's replay: whatever the run had learned until then."""
    return {"kind": "replay", "phase": phase, "agent_step": agent_step}


def _manifest(
    env: str, environment: dict[str, Any], frame_stack: int | None, about: dict[str, Any], more: dict[str, Any]
) -> dict[str, Any]:
    return {
        "env": env,
        "environment": environment,
        **({} if frame_stack is None else {"frame_stack": frame_stack}),
        "provenance": {**about, "command": command_line(), **more},
    }
