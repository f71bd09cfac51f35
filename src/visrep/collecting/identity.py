"""What decides what a recording holds, and how that of a folder differs from the one that is asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from visrep.collecting.request import Request
from visrep.collecting.trained import TrainedRun
from visrep.data.writer import differences, finished_dataset, unfinished_collection
from visrep.envs.vector import VectorEnv
from visrep.errors import UserError

# Values of an environment's fingerprint that somebody types, and the key.
TYPED = {"image_size": "image_size", "action_repeat": "action_repeat", "camera": "camera", "renderer": "render"}


@dataclass(frozen=True)
class Recorded:
    """What lies in a folder.

    Attributes:
        identity: see ``identity``.
        lanes: environments that record, or recorded.
        manifest: of the finished dataset; None of a collection under way.
    """

    identity: dict[str, Any]
    lanes: int
    manifest: dict[str, Any] | None = None

    @property
    def what(self) -> str:
        """For messages."""
        return "an unfinished collection" if self.manifest is None else "a finished dataset"


def about_policy(request: Request, trained: TrainedRun | None) -> dict[str, Any]:
    """JSON values that say who acts."""
    return {"kind": request.policy} if trained is None else trained.about


def identity(envs: VectorEnv, request: Request, trained: TrainedRun | None) -> dict[str, Any]:
    """JSON values that decide, with the number of lanes, what is recorded."""
    values = {
        "env": envs.spec.name,
        "environment": envs.fingerprint,
        "policy": about_policy(request, trained),
        "noise_std": request.noise_std,
        "seed": envs.seed,
        "asked_for": request.quota.text,
    }
    return dict(json.loads(json.dumps(values)))


def find_recorded(folder: Path) -> Recorded | None:
    """What was recorded in ``folder``, finished or not; None where nothing was.

    Raises:
        UserError: it is damaged, or its dataset is not one that ``visrep collect`` recorded.
    """
    manifest = finished_dataset(folder)
    if manifest is None:
        saved = unfinished_collection(folder)
        if saved is not None and "replay" in saved:
            raise UserError(f"{folder} holds an unfinished copy of a run's replay: choose another out")
        return None if saved is None else Recorded(saved["identity"], saved["lanes"])
    try:
        provenance = manifest["provenance"]
        known = {key: provenance[key] for key in ("policy", "noise_std", "seed", "asked_for")}
        values = {"env": manifest["env"], "environment": manifest["environment"], **known}
        return Recorded(values, manifest["lanes"], manifest)
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder} holds a dataset that visrep collect did not record: choose another out") from error


def compare(there: Recorded, asked: dict[str, Any], request: Request) -> tuple[list[str], list[str]]:
    """Where ``there`` differs from the identity ``asked``, as ``key: value there, value asked for``.

    Returns:
        (keys that somebody typed, the rest that the environment's images depend on). The rest is not looked at where
        another environment or observation explains it.
    """
    typed = {name: key for name, key in TYPED.items() if name != "renderer" or request.render not in (None, "auto")}
    before, after = (identity["environment"] for identity in (there.identity, asked))
    both = [name for name in typed if name in before and name in after]
    old, new = (
        {"env": identity["env"], "observation": identity["environment"].get("observation", "pixels")}
        | {typed[name]: identity["environment"][name] for name in both}
        | {"policy": _policy_text(identity["policy"]), "noise_std": identity["noise_std"], "seed": identity["seed"]}
        | _amount(identity)
        for identity in (there.identity, asked)
    )
    keys = differences(old, new)
    # No more lanes record than there are episodes, so their number alone does not tell how many were asked for.
    amount = _amount(there.identity)
    same = replace(request, episodes=amount.get("episodes"), agent_steps=amount.get("agent_steps"))
    if same.quota.lanes != there.lanes:
        keys.append(f"num_envs: {there.lanes} there, {request.num_envs} asked for")
    if (old["env"], old["observation"]) != (new["env"], new["observation"]):
        return keys, []
    before, after = (
        {name: value for name, value in values.items() if name not in ("observation", *both)}
        for values in (before, after)
    )
    return keys, differences(before, after, now="here")


def _amount(identity: dict[str, Any]) -> dict[str, int]:
    """``{"episodes": 5}`` of what a quota calls "episodes=5"."""
    key, _, number = identity["asked_for"].partition("=")
    return {key: int(number)}


def _policy_text(policy: dict[str, Any]) -> str:
    return f"{policy['agent']} (sha256 {policy['sha256'][:12]})" if policy["kind"] == "trained" else policy["kind"]
