"""All probes of one code on one set of rows, as plain values.

Shapes: N samples, D features, T factors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visrep.probes import scores
from visrep.probes.codes import PCA_IMAGES, Code, EncoderCode, Role, Seen
from visrep.probes.data import ProbeData
from visrep.probes.geometry import PAIRS, geometry
from visrep.probes.readout import Standardised, classify, neighbours, network, ridge
from visrep.results.statistics import Estimate

EVENT_SHARE = 0.8  # a reward is sparse where one value makes up this share of the rows
Doing = Callable[[str], None]


@dataclass(frozen=True)
class RewardEvents:
    """A reward seen as yes or no: ``labels`` bool [N] and what yes means."""

    labels: Tensor
    meaning: str


def reward_events(reward: Tensor) -> RewardEvents | None:
    """Events of a binary or sparse reward [N]; None where the reward is constant or dense.

    Of two values the larger is the event; of a sparse reward everything but its commonest value.
    """
    values, counts = reward.unique(return_counts=True)
    if len(values) == 2:
        return RewardEvents(reward == values[1], f"reward = {values[1]:g}")
    if len(values) > 2 and float(counts.max()) >= EVENT_SHARE * len(reward):
        common = values[counts.argmax()]
        return RewardEvents(reward != common, f"reward != {common:g}")
    return None


@dataclass(frozen=True)
class RewardTargets:
    """What can be read out of a reward: it must differ in train rows, to be fitted, and in test rows, to be scored.

    Attributes:
        reward: float64 [N]; None where it cannot be read out.
        events: likewise; None for a dense reward too.
        notes: why something is left out of a reward that the data hold.
    """

    reward: Tensor | None
    events: RewardEvents | None
    notes: list[str]


def reward_targets(data: ProbeData) -> RewardTargets:
    """What of the data's reward is probed."""
    reward = data.reward
    if reward is None:
        return RewardTargets(None, None, [])
    if bool((reward == reward[0]).all()):
        return RewardTargets(None, None, ["the reward is the same in all rows: it is not probed"])
    parts = {"train": slice(0, data.split.train), "test": data.split.tests}
    still = [f"{name} rows" for name, part in parts.items() if bool((reward[part] == reward[part][0]).all())]
    if still:
        same = f"the reward is the same in all {' and in all '.join(still)}"
        return RewardTargets(None, None, [f"{same}: neither it nor its events are probed"])
    return RewardTargets(reward, reward_events(reward), [])


def judge(code: Code, data: ProbeData, seed: int, seen: Seen, doing: Doing) -> dict[str, Any]:
    """Every probe that the data and the code allow.

    Args:
        code: what is probed.
        data: rows with their targets.
        seed: of everything that is drawn.
        seen: told how many images were encoded.
        doing: told what is under way.

    Returns:
        JSON values: "state", "state_single_frame", "state_mlp", "state_knn", "action", "reward" and "reward_events"
        (None where it does not apply), and "geometry".
    """
    doing("encoding")
    features = code.features(data, 0, seen)
    result: dict[str, Any] = dict.fromkeys(
        ("state", "state_single_frame", "state_mlp", "state_knn", "action", "reward", "reward_events", "geometry")
    )
    if code.role != "constant":
        doing("geometry")
        result["geometry"] = geometry(code, features, data, seed, seen)
    now = Standardised(features, data.split.train)
    doing("ridge")
    result.update(_linear(now, data, seed))
    if data.factors is not None and code.role != "constant":
        compact, targets = now.compact(seed), data.factors.values
        doing("nearest neighbours")
        result["state_knn"] = _of_state(neighbours(compact, targets, data.split), data, seed)
        doing("small network")
        result["state_mlp"] = _of_state(network(compact, targets, data.split, seed), data, seed)
    if data.actions is not None:
        doing("inverse dynamics")
        before = Standardised(code.features(data, -1, seen), data.split.train)
        result["action"] = _action(before, now, data.actions.classes, data, seed)
        del before
    del now, features  # wide ones are gigabytes
    if data.factors is not None and isinstance(code, EncoderCode) and code.stack > 1:
        doing("single frames")
        single = Standardised(code.single_frame_features(data, seen), data.split.train)
        fit = ridge([single], data.factors.values, data.split)
        result["state_single_frame"] = _of_state(fit.predictions, data, seed)
    return result


def images_to_encode(role: Role, stack: int, data: ProbeData) -> int:
    """Images that making a code and ``judge`` will report to ``seen``."""
    if role in ("state", "constant"):
        return 0
    single = data.factors is not None and role != "pixels" and stack > 1
    passes = 1 + single + (data.actions is not None)
    fitted = min(PCA_IMAGES, data.split.train) if role == "pixels" else 0
    return passes * data.split.total + 2 * min(PAIRS, data.split.total) + fitted


def _linear(now: Standardised, data: ProbeData, seed: int) -> dict[str, Any]:
    """State, reward and reward events share the features, so one factorisation serves all."""
    targets: dict[str, Tensor] = {}
    rewards = reward_targets(data)
    events = rewards.events
    if rewards.reward is not None:
        targets["reward"] = rewards.reward[:, None]
    if events is not None:
        targets["reward_events"] = events.labels.double()[:, None]
    if data.factors is not None:
        targets["state"] = data.factors.values
    if not targets:
        return {}
    fit = ridge([now], torch.cat(list(targets.values()), dim=1), data.split)
    widths = [target.shape[1] for target in targets.values()]
    found = dict(zip(targets, fit.predictions.split(widths, dim=1), strict=True))
    result: dict[str, Any] = {}
    if "state" in found:
        result["state"] = _of_state(found["state"], data, seed)
        result["state"]["penalties"] = fit.penalties[-widths[-1] :].tolist()
    if "reward" in found:
        result["reward"] = {"r2": _r2(found["reward"], targets["reward"], data, seed)["mean"]}
    if events is not None:
        result["reward_events"] = _events(found["reward_events"][:, 0].numpy(), events, data, seed)
    return result


def _events(values: scores.Array, events: RewardEvents, data: ProbeData, seed: int) -> dict[str, Any]:
    """AUROC of the ridge scores, and F1 at the threshold that is best on val (on train where val has no event)."""
    labels, tests = events.labels.numpy(), data.split.tests
    chosen_on = data.split.vals if labels[data.split.vals].any() else slice(0, data.split.train)
    positive = values >= scores.best_threshold(values[chosen_on], labels[chosen_on])
    episodes = data.episodes[tests]
    return {
        "event": events.meaning,
        "share": float(labels[tests].mean()),
        "auroc": _number(scores.auroc(values[tests], labels[tests], episodes, seed)),
        "f1": _number(scores.f1(positive[tests], labels[tests], episodes, seed)),
    }


def _action(before: Standardised, now: Standardised, classes: int, data: ProbeData, seed: int) -> dict[str, Any]:
    """From the features of two neighbouring rows to the action between them."""
    assert data.action is not None
    if not classes:
        action = data.action.double()
        return {"r2": _r2(ridge([before, now], action, data.split).predictions, action, data, seed)["mean"]}
    labels, tests = data.action[:, 0].long(), data.split.tests
    code = torch.cat([before.compact(seed), now.compact(seed + 1)], dim=1)
    predicted = classify(code, labels, classes, data.split)
    found = scores.accuracy(predicted[tests].numpy(), labels[tests].numpy(), data.episodes[tests], seed)
    return {"accuracy": _number(found)}


def _of_state(predictions: Tensor, data: ProbeData, seed: int) -> dict[str, Any]:
    assert data.factors is not None
    found = _r2(predictions, data.factors.values, data, seed)
    return {"mean": found["mean"], "factors": dict(zip(data.factors.names, found["targets"], strict=True))}


def _r2(predictions: Tensor, targets: Tensor, data: ProbeData, seed: int) -> dict[str, Any]:
    tests = data.split.tests
    found = scores.r2(predictions[tests].numpy(), targets[tests].numpy(), data.episodes[tests], seed)
    numbers = [_number(Estimate(*(np.asarray(part[index]) for part in found))) for index in range(len(found.point))]
    return {"targets": numbers[:-1], "mean": numbers[-1]}


def _number(estimate: Estimate) -> dict[str, float | None]:
    """JSON has no NaN: what is not defined is null."""
    parts = {"point": estimate.point, "low": estimate.low, "high": estimate.high}
    return {name: float(value) if math.isfinite(float(value)) else None for name, value in parts.items()}
