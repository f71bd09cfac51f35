"""The configuration of a run: flat keys from the command line and presets, checked, saved as config.yaml.

Three typed parts make it up: RunConfig, the method's Config and the policy's Config. Their keys share one flat
namespace, so a name belongs to exactly one of the three.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

import visrep.encoders
import visrep.objectives
import visrep.policies  # noqa: F401  (these packages fill the registries)
from visrep.config_checks import NO_OBJECTIVE, Command, check_name, check_offline_keys, check_run
from visrep.config_facts import facts_of_data, facts_of_encoder
from visrep.config_fields import RunConfig
from visrep.config_overrides import (
    default_run_dir,
    list_presets,
    old_key_advice,
    override_dirname,
    read_overrides,
    read_presets,
    read_yaml,
    write_yaml,
)
from visrep.errors import UserError, nearest
from visrep.objectives.contract import OBJECTIVES, ObjectiveConfig
from visrep.policies.contract import POLICIES, PolicyConfig

__all__ = [
    "NO_OBJECTIVE",
    "Command",
    "Config",
    "RunConfig",
    "config_from_dict",
    "default_run_dir",
    "differing_keys",
    "list_presets",
    "load_config",
    "override_dirname",
    "parse",
]

# A run may be continued with these changed: they alter where and how it computes, not what.
# (checkpoint_frequency is not among them: the store's ring is sized by it.)
MAY_DIFFER = frozenset(
    {
        "device", "threads", "resume", "run_dir", "experiment",
        "log_save_tb", "save_video", "save_model", "save_buffer", "save_frequency",
    }
)  # fmt: skip
ABSENT = "<absent>"
# With recorded data there are no agent steps: these count the objective's updates.
OFFLINE_DEFAULTS = {"num_expl_steps": 0, "log_frequency_step": 100, "checkpoint_frequency": 2_500}
OFFLINE_METHOD = "atc"  # Proto-RL, the default, needs to act: on fixed data its prototypes hardly leave chance

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Config:
    """Everything a run is told.

    Attributes:
        run: settings of the run.
        objective: settings of the method; None for method=random and method=none.
        policy: settings of the policy.
    """

    run: RunConfig
    objective: ObjectiveConfig | None
    policy: PolicyConfig

    def to_dict(self) -> dict[str, Any]:
        """All keys in one flat dict of JSON values, in the order of declaration."""
        parts = [part for part in (self.run, self.objective, self.policy) if part is not None]
        return {key: value for part in parts for key, value in part.model_dump(mode="json").items()}

    def to_yaml(self) -> str:
        """The text of config.yaml; ``preset=<that file>`` or ``config_from_dict`` reads it back."""
        return write_yaml(self.to_dict())


def method_configs() -> dict[str, type[ObjectiveConfig]]:
    """The Config of every registered method, by name."""
    return {name: cls.Config for name, cls in sorted(OBJECTIVES.items())}


def policy_configs() -> dict[str, type[PolicyConfig]]:
    """The Config of every registered policy, by name."""
    return {name: cls.Config for name, cls in sorted(POLICIES.items())}


def parse(overrides: Sequence[str], command: Command = "train", base: Mapping[str, Any] | None = None) -> Config:
    """The words after the command to a checked configuration.

    ``preset=a+b`` composes left to right and any explicit key wins over it. A preset's key that belongs to another
    method or policy than the chosen one is left out, so that one preset can serve several methods. ``base`` holds
    settings that both win over (the run whose encoder is used, or what recorded data decide); but what the data were
    recorded with, or the encoder was built as, wins over presets and cannot be typed otherwise.

    Raises:
        UserError: naming the key, what was given and what to type instead.
    """
    explicit = read_overrides(overrides)
    if "objective" in explicit:  # what the literature calls it
        if "method" in explicit:
            raise UserError("method and objective are one key: give one of them")
        explicit["method"] = explicit.pop("objective")
    chosen = explicit.pop("preset", None)
    presets = {} if chosen is None else read_presets(chosen)
    base, shared = dict(base or {}), {key: value for key, (value, _) in presets.items()}
    facts = facts_of_data(explicit, base) | (facts_of_encoder(explicit, shared, base) if command == "finetune" else {})
    begin = {} if explicit.get("data") is None else {"method": OFFLINE_METHOD}
    values = begin | base | shared | facts | explicit
    models = _models(values)
    _check_keys(explicit, models, "")
    known = _owners()
    for key, (value, origin) in presets.items():
        if key not in known:
            _check_keys({key: value}, models, f"preset {origin}: ")
    usable = {name for model in models for name in model.model_fields}
    return _build({k: v for k, v in values.items() if k in usable}, explicit, models, command)


def config_from_dict(values: Mapping[str, Any]) -> Config:
    """A saved configuration (the mapping in config.yaml) back to a Config; keys it lacks get their defaults."""
    models = _models(values)
    _check_keys(values, models, "")
    return _assemble(values, models)


def load_config(path: Path) -> Config:
    """Read a config.yaml; UserError names the file where it cannot be read."""
    return config_from_dict(read_yaml(path))


def differing_keys(
    saved: Mapping[str, Any], new: Mapping[str, Any], ignore: frozenset[str] = MAY_DIFFER
) -> list[tuple[str, Any, Any]]:
    """(key, saved value, new value) wherever two flat configurations differ, but for the keys that may differ."""
    keys = [key for key in dict.fromkeys([*saved, *new]) if key not in ignore]
    pairs = [(key, saved.get(key, ABSENT), new.get(key, ABSENT)) for key in keys]
    return [(key, old, fresh) for key, old, fresh in pairs if old != fresh]


# -- which keys there are, and whose ----------------------------------------------------------------------------------


def _models(values: Mapping[str, Any]) -> list[type[BaseModel]]:
    """RunConfig and the Configs of the method and policy that the values choose."""
    method = values.get("method", RunConfig.model_fields["method"].default)
    policy = values.get("policy", RunConfig.model_fields["policy"].default)
    methods, policies = method_configs(), policy_configs()
    check_name("method", method, [*methods, *NO_OBJECTIVE])
    check_name("policy", policy, policies)
    models: list[type[BaseModel]] = [RunConfig, *([methods[method]] if method in methods else []), policies[policy]]
    check_unique(models)
    return models


def check_unique(models: Sequence[type[BaseModel]]) -> None:
    """Raise TypeError (a programming error) if two models of one configuration declare the same key."""
    seen: dict[str, type[BaseModel]] = {}
    for model in models:
        for key in model.model_fields:
            if key in seen:
                raise TypeError(f"key {key!r} is declared by both {seen[key].__qualname__} and {model.__qualname__}")
            seen[key] = model


def _owners() -> dict[str, list[str]]:
    """Every key of every model to the choices that have it; an empty list for the run's own keys."""
    owners: dict[str, list[str]] = {key: [] for key in RunConfig.model_fields}
    registries: tuple[tuple[str, Mapping[str, type[BaseModel]]], ...] = (
        ("method", method_configs()), ("policy", policy_configs())
    )  # fmt: skip
    for choice, configs in registries:
        for name, model in configs.items():
            for key in model.model_fields:
                owners.setdefault(key, []).append(f"{choice}={name}")
    return owners


def _check_keys(given: Mapping[str, Any], models: Sequence[type[BaseModel]], origin: str) -> None:
    """UserError for the first key that none of the chosen models has."""
    usable = [key for model in models for key in model.model_fields]
    owners = _owners()
    for key, value in given.items():
        if key in usable:
            continue
        if key in owners:
            raise UserError(
                f"{origin}key {key!r} belongs to {' and '.join(owners[key])}, which this run does not use: "
                f"leave it out, or choose {' or '.join(owners[key])}"
            )
        advice = old_key_advice(key, value)
        if advice:
            raise UserError(f"{origin}key {key!r} is not used here: {advice}")
        last = key.rpartition(".")[2]
        near = [last] if last in owners else nearest(last, [*usable, "preset"])
        hint = f"did you mean {', '.join(near)}?" if near else "no key is spelled like it"
        raise UserError(f"{origin}unknown key {key!r}: {hint} (--help lists them all)")


# -- building and checking --------------------------------------------------------------------------------------------


def _build(
    values: dict[str, Any], explicit: Mapping[str, Any], models: Sequence[type[BaseModel]], command: Command
) -> Config:
    """Settle the defaults that depend on the command and the method, then check the whole."""
    run = _validate(RunConfig, {k: v for k, v in values.items() if k in RunConfig.model_fields})
    settled: dict[str, Any] = {}
    if run.method in NO_OBJECTIVE and "intr_coef" not in explicit:
        settled["intr_coef"] = 0.0
    if run.method == "none" and "num_expl_steps" not in explicit:
        settled["num_expl_steps"] = 0
    # The separate phases have one length each; only `train` has a total made of two.
    if command == "pretrain" and run.data is not None:
        check_offline_keys(explicit, models[-1])
        settled |= {key: value for key, value in OFFLINE_DEFAULTS.items() if key not in values}
    elif command == "pretrain":
        if "num_train_steps" in explicit and run.num_train_steps != run.num_expl_steps:
            raise UserError("pretrain is the reward-free phase alone: set num_expl_steps=..., not num_train_steps")
        if run.num_expl_steps == 0 or run.method == "none":
            raise UserError("pretrain needs a reward-free phase: num_expl_steps above 0 and a method other than none")
        settled["num_train_steps"] = run.num_expl_steps
    elif command == "finetune":
        if explicit.get("num_expl_steps", 0) != 0:
            raise UserError(
                "finetune is the task phase alone: leave num_expl_steps out and set num_train_steps to its length"
            )
        alone = "num_train_steps" in explicit or "num_expl_steps" in settled
        settled["num_train_steps"] = run.num_train_steps - (0 if alone else run.num_expl_steps)
        settled["num_expl_steps"] = 0
        if settled["num_train_steps"] < 1:
            raise UserError("finetune: set num_train_steps=<agent steps of the task phase>; the settings imply none")
    config = _assemble(values | settled, models)
    check_run(config.run, command)
    return config


def _assemble(values: Mapping[str, Any], models: Sequence[type[BaseModel]]) -> Config:
    parts = [_validate(model, {k: v for k, v in values.items() if k in model.model_fields}) for model in models]
    run, policy = parts[0], parts[-1]
    objective = parts[1] if len(parts) == 3 else None
    assert isinstance(run, RunConfig) and isinstance(policy, PolicyConfig)
    assert objective is None or isinstance(objective, ObjectiveConfig)
    return Config(run, objective, policy)


def _validate(model: type[M], values: Mapping[str, Any]) -> M:
    """Build one model; every complaint becomes a line ``key=value: expected ...``."""
    # "none" is how one types the absence of an optional value; YAML's own word is null.
    optional = [key for key in values if type(None) in _leaves(model.model_fields[key].annotation)]
    values = {key: None if key in optional and value in ("none", "") else value for key, value in values.items()}
    for key, value in values.items():
        annotation = model.model_fields[key].annotation
        # pydantic would read true as the number 1.
        if isinstance(value, bool) and bool not in _leaves(annotation):
            raise UserError(f"{key}={str(value).lower()}: expected {_expected(annotation)}, got true or false")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{key}={value}: expected {_expected(annotation)}, got a number that is not finite")
    try:
        return model(**values)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            reason = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
            if not problem["loc"]:
                lines.append(reason)
                continue
            key = str(problem["loc"][0])
            given = values.get(key, problem["input"])
            expected = _expected(model.model_fields[key].annotation)
            if problem["type"] == "string_pattern_mismatch":
                expected, reason = model.model_fields[key].description or expected, "it is none of these"
            lines.append(f"{key}={given}: expected {expected}, got {given!r} ({type(given).__name__}): {reason}")
        raise UserError("\n".join(dict.fromkeys(lines))) from error


_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "none",
}


def _leaves(annotation: Any) -> list[Any]:
    """The plain types inside unions; Literal and containers count as leaves."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [leaf for part in get_args(annotation) for leaf in _leaves(part)]
    return [annotation]


def _expected(annotation: Any) -> str:
    """What a value of this type looks like, in words."""
    words = []
    for leaf in _leaves(annotation):
        if get_origin(leaf) is Literal:
            words.append("one of " + ", ".join(map(str, get_args(leaf))))
        elif get_origin(leaf) in (tuple, list):
            inner = [part for part in get_args(leaf) if part is not Ellipsis]
            words.append("a list [" + ", ".join(map(_expected, inner)) + ("" if len(inner) > 1 else ", ...") + "]")
        else:
            words.append(_NAMES.get(leaf, getattr(leaf, "__name__", str(leaf))))
    return " or ".join(words)
