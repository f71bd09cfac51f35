"""From words on the command line and preset files to plain values; and from those words to a folder's name."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from visrep.errors import UserError, nearest

PRESET_FOLDER = Path(__file__).parent / "presets"
PLACE_KEYS = frozenset({"run_dir", "resume"})  # say where and how, not what is run
_NAME_LIMIT = 150  # file systems allow 255 bytes for a name; the time stamp and copies' suffixes need some

# Last component of every nested key of the original configuration that lives on, by its group.
_MOVED = {
    "agent.params": "discount init_temperature lr actor_update_frequency critic_target_tau num_seed_steps batch_size "
    "critic_target_update_frequency encoder_target_tau encoder_update_frequency intr_coef",
    "critic.params": "feature_dim hidden_dim hidden_depth",
    "actor.params": "feature_dim hidden_dim hidden_depth log_std_bounds",
    "encoder.params": "proj_dim",
    "proto.params": "pred_dim T num_protos num_iters topk queue_size",
}
MOVED_KEYS = {f"{group}.{name}": name for group, names in _MOVED.items() for name in names.split()}

_ADVICE = {
    "agent": "use method=... and policy=...",
    "agent.class": "use method=... and policy=...",
    "agent.name": "use method=... and policy=...",
    "agent.params.obs_shape": "it follows from frame_stack and image_size",
    "agent.params.action_shape": "it follows from env",
    "agent.params.action_range": "it follows from env",
    "agent.params.task_agnostic": "the first num_expl_steps agent steps are reward-free",
    "hydra.run.dir": "use run_dir=...",
    "task": "use env=...",
    "num_train_frames": "use num_train_steps=..., in agent steps (env frames / action_repeat)",
    "num_seed_frames": "use num_seed_steps=..., in agent steps (env frames / action_repeat)",
    "eval_every_frames": "use eval_frequency=..., in agent steps (env frames / action_repeat)",
    "replay_buffer_size": "use replay_buffer_capacity=...",
    "nstep": "use n_step=...",
    "update_every_steps": "use updates_per_agent_step=... (its inverse)",
    "use_tb": "use log_save_tb=...",
}


class _Values(yaml.SafeLoader):
    """YAML 1.2's scalars: 1e-4 is a number; on, off, yes, no, dates and 1:30 are words."""


_Values.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"(~|null|Null|NULL|)", ["~", "n", "N", ""]),
    ("bool", r"(true|True|TRUE|false|False|FALSE)", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
):
    _Values.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


def _decimal(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    # PyYAML reads 010 as octal 8; typed as a seed it means ten.
    return int(str(loader.construct_scalar(node)))


_Values.add_constructor("tag:yaml.org,2002:int", _decimal)


class _Writer(yaml.SafeDumper):
    """Quotes every word that YAML 1.1 or 1.2 would take for something else, so any reader gives the same values."""


_Writer.yaml_implicit_resolvers = {
    first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, []), *_Values.yaml_implicit_resolvers.get(first, [])]
    for first in {**yaml.SafeDumper.yaml_implicit_resolvers, **_Values.yaml_implicit_resolvers}
}


def write_yaml(values: dict[str, Any]) -> str:
    """Flat values as YAML text, in their order."""
    return yaml.dump(values, Dumper=_Writer, sort_keys=False, default_flow_style=None, width=120)


def read_value(text: str) -> Any:
    """One YAML value as typed after ``key=``."""
    return yaml.load(text, Loader=_Values)  # _Values is a SafeLoader


def read_yaml(path: Path) -> dict[str, Any]:
    """A flat YAML mapping, as presets and config.yaml are; UserError names the file."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Values)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{path} should hold 'key: value' lines, one per setting")
    return values


def read_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """``["lr=1e-3", ...]`` to ``{"lr": 0.001, ...}``; UserError for other shapes and for a key given twice."""
    values: dict[str, Any] = {}
    for word in overrides:
        key, equals, text = word.partition("=")
        key = key.strip()
        if not equals or not key or key.startswith("-"):
            raise UserError(f"{word!r} is not of the form key=value, such as num_expl_steps=250000 (no spaces)")
        if key in values:
            raise UserError(f"{key} is given twice: {values[key]!r} and {text!r}; keep one of them")
        try:
            values[key] = read_value(text)
        except yaml.YAMLError as error:
            raise UserError(f"{key}: {text!r} is not a valid YAML value: {_first_line(error)}") from error
    return values


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def list_presets() -> dict[str, str]:
    """Every shipped preset and the first line of its comment."""
    return {
        path.stem: path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        for path in sorted(PRESET_FOLDER.glob("*.yaml"))
    }


def read_presets(names: Any, within: tuple[str, ...] = ()) -> dict[str, tuple[Any, str]]:
    """``"proto_dmc+tiny"`` to ``{key: (value, preset)}``, later over earlier; a name may also be a .yaml file.

    A preset's own key ``preset`` names those that it builds on. ``within`` are the presets that are being read.
    """
    values: dict[str, tuple[Any, str]] = {}
    for name in str(names).split("+"):
        if name in within:
            raise UserError(f"preset {name!r} builds on itself: {' -> '.join([*within, name])}")
        own_file = name.endswith((".yaml", ".yml"))
        path = Path(name) if own_file else PRESET_FOLDER / f"{name}.yaml"
        if not own_file and name not in list_presets():
            near = nearest(name, list_presets())
            hint = f"did you mean {', '.join(near)}? " if near else ""
            raise UserError(f"unknown preset {name!r}: {hint}known are {', '.join(list_presets())}")
        own = read_yaml(path)
        if "preset" in own:
            values.update(read_presets(own.pop("preset"), (*within, name)))
        values.update({key: (value, name) for key, value in own.items()})
    return values


def old_key_advice(key: str, value: Any) -> str | None:
    """What to type instead of a key of the original configurations; None for a key that they did not have."""
    if key in MOVED_KEYS:
        new = MOVED_KEYS[key]
        both = " (one key for actor and critic)" if key.split(".")[0] in ("actor", "critic") and new != key else ""
        typed = yaml.safe_dump(value, default_flow_style=True, width=math.inf).removesuffix("\n").removesuffix("\n...")
        return f"nested keys moved to the top level: use {new}={typed.replace(', ', ',')}{both}"
    return _ADVICE.get(key)


def override_dirname(overrides: Sequence[str]) -> str:
    """The overrides as part of a folder's name: sorted, comma-separated, without run_dir; long ones cut and hashed."""
    kept = sorted(word for word in overrides if word.partition("=")[0] not in PLACE_KEYS)
    name = re.sub(r"[^A-Za-z0-9_.,=+\-]", "-", ",".join(kept))
    if len(name) > _NAME_LIMIT:
        name = f"{name[:_NAME_LIMIT]}-{hashlib.sha256(','.join(kept).encode()).hexdigest()[:8]}"
    return name


def default_run_dir(overrides: Sequence[str], now: datetime) -> Path:
    """``exp_local/YYYY.MM.DD/HHMMSS_<overrides>``, relative to the current folder."""
    return Path("exp_local") / f"{now:%Y.%m.%d}" / f"{now:%H%M%S}_{override_dirname(overrides)}".rstrip("_")
