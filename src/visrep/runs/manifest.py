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
        policy: JSON values that say who acted, e.g. ``{"kind": "replay", "phase": "pretrain", "agent_step": 250000}``.
        frame_stack: frames per image that the policy looked at; None where it looked at none.
        more: further JSON values for the provenance.

    Returns:
        JSON values: "env", "environment" (fingerprint), "frame_stack" (if there is one), and "provenance" with
        policy, config, seed, num_envs, versions and command.
    """
    return {
        "env": envs.spec.name,
        "environment": envs.fingerprint,
        **({} if frame_stack is None else {"frame_stack": frame_stack}),
        "provenance": {
            "policy": policy,
            "config": None if config is None else config.to_dict(),
            "seed": envs.seed,
            "num_envs": envs.num_envs,
            "versions": versions(),
            "command": command_line(),
            **more,
        },
    }
