"""The keys of ``visrep collect``, and what they mean together with the run whose policy acts."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from visrep.collecting.place import check_dataset_place
from visrep.collecting.quota import Quota
from visrep.collecting.trained import TrainedRun, find_trained
from visrep.config import RunConfig
from visrep.envs.contract import OBSERVATIONS, Observation
from visrep.envs.rendering import check_render
from visrep.envs.vector import EnvSpec
from visrep.errors import UserError, suggestion

POLICIES = ("random", "smooth", "scripted")


@dataclass(frozen=True)
class Request:
    """What to record.

    Attributes:
        out: folder of the dataset; made if missing.
        env: environment; None takes that of the run whose policy acts.
        episodes: how many; or say ``agent_steps``.
        agent_steps: at least so many; every lane finishes its episode.
        policy: "random" (uniform), "smooth" (correlated noise), "scripted" (by hand, where the environment has one), or
            a run directory or agent file, which acts deterministically, at the end of its schedules.
        num_envs: environments side by side; part of what is recorded, as their episodes have seeds of their own.
        seed: of environments and actions.
        observation: what is recorded, "pixels" or "state" (no image; a policy that learned from pixels cannot act).
        image_size: pixels; None takes that of the policy's run, or a run's default.
        action_repeat: environment frames per agent step; None likewise.
        camera: index of the camera; None likewise.
        render: MuJoCo's renderer; None likewise.
        noise_std: of Gaussian noise added to the policy's actions.
    """

    out: str
    env: str | None = None
    episodes: int | None = None
    agent_steps: int | None = None
    policy: str = "random"
    num_envs: int = 1
    seed: int = 1
    observation: str = "pixels"
    image_size: int | None = None
    action_repeat: int | None = None
    camera: int | None = None
    render: str | None = None
    noise_std: float = 0.0

    def __post_init__(self) -> None:
        check_dataset_place("out", self.out)
        for key, value, least in (("num_envs", self.num_envs, 1), ("seed", self.seed, 0)):
            if value < least:
                raise UserError(f"{key}={value} must be at least {least}")
        if not (math.isfinite(self.noise_std) and self.noise_std >= 0):
            raise UserError(f"noise_std={self.noise_std:g}: a number from 0 up; actions lie in [-1, 1]")
        if self.observation not in OBSERVATIONS:
            raise UserError(f"observation={self.observation}: {suggestion(self.observation, OBSERVATIONS)}")
        if self.render is not None:
            check_render(self.render)

    @property
    def quota(self) -> Quota:
        """How much, and by how many lanes: no more than there are episodes to share out."""
        lanes = self.num_envs if self.episodes is None else max(1, min(self.num_envs, self.episodes))
        return Quota(lanes, self.episodes, self.agent_steps)

    def trained(self) -> TrainedRun | None:
        """The run whose policy acts; None for the other policies.

        Raises:
            UserError: unknown policy, or nothing to load there.
        """
        if self.policy in POLICIES:
            return None
        if os.path.exists(Path(self.policy).expanduser()):  # False also for a name that is too long
            return find_trained(self.policy)
        raise UserError(
            f"unknown policy={self.policy}: {suggestion(self.policy, POLICIES)}; or name a run directory or an agent "
            "file (model/*_agent_*.safetensors); there is none of this name"
        )

    def env_spec(self, trained: TrainedRun | None) -> tuple[EnvSpec, list[str]]:
        """What to make, with what is not said taken from the policy's run; and notes on what differs from that run.

        Raises:
            UserError: the policy cannot act on what is to be recorded, or no environment is named.
        """
        run = _settings(trained)
        if self.env is None and trained is None:
            raise UserError("missing env=<environment>; only a trained policy's run knows its own")
        name = run["env"] if self.env is None else self.env
        given = {key: getattr(self, key) for key in ("image_size", "action_repeat", "camera", "render")}
        settings = {key: run[key] if value is None else value for key, value in given.items()}
        for key in ("image_size", "action_repeat"):
            if settings[key] < 1:
                raise UserError(f"{key}={settings[key]}: at least 1")
        notes = []
        if trained is not None:
            _check_pixels(run, self.observation, settings["image_size"])
            now = {"env": name, "action_repeat": settings["action_repeat"]}
            notes = [
                f"the policy learned with {key}={run[key]}, it acts with {value}"
                for key, value in now.items()
                if value != run[key]
            ]
        seen = cast(Observation, self.observation)
        return EnvSpec(name, **settings, observation=seen, with_observation=seen == "pixels"), notes


def _settings(trained: TrainedRun | None) -> dict[str, Any]:
    """Keys of the policy's run, or a run's defaults."""
    if trained is not None:
        return trained.config.to_dict()
    return {key: field.default for key, field in RunConfig.model_fields.items()}


def _check_pixels(run: dict[str, Any], observation: str, image_size: int) -> None:
    if run["observation"] != "pixels":
        return
    if observation == "state":
        raise UserError("this policy acts on pixels, which observation=state does not draw: use observation=pixels")
    if image_size != run["image_size"]:
        raise UserError(
            f"this policy acts on images of {run['image_size']} pixels, not image_size={image_size}: leave image_size "
            "out"
        )
