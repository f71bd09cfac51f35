"""What ``--help`` prints and what docs/configuration.md tabulates: every key, read from the models themselves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from visrep.augment import OPERATORS, signature, summary
from visrep.config import Command, list_presets, method_configs, policy_configs
from visrep.config_fields import SECTIONS
from visrep.config_overrides import PRESET_FOLDER, read_yaml

_COMMANDS: dict[Command, str] = {
    "train": "both phases: num_expl_steps without reward, then the task up to num_train_steps in total",
    "pretrain": "the reward-free phase alone, num_expl_steps long",
    "finetune": "the task phase alone, num_train_steps long, from encoder=<run directory or encoder file>",
}


def help_text(command: Command) -> str:
    """Usage of one command: keys with defaults and descriptions, in sections, one per line."""
    lines = [f"visrep {command} [preset=name[+name]] [key=value ...]", f"  {_COMMANDS[command]}", ""]
    for section in SECTIONS:
        lines += [(section.__doc__ or "").strip(), *_rows(section), ""]
    for choice, configs in (("method", method_configs()), ("policy", policy_configs())):
        for name, model in configs.items():
            lines += [f"{choice}={name}", *_rows(model), ""]
    images = [name for name, operator in sorted(OPERATORS.items()) if "images" in operator.domain]
    lines += ["Operators of augment and repr_augment, with their defaults; + chains them, none switches them off"]
    lines += [*(f"  {signature(name):<38} {summary(name).replace('``', '')}" for name in images), ""]
    lines += ["Presets", *(f"  {name:<32} {about}" for name, about in list_presets().items())]
    return "\n".join(lines)


def markdown_tables() -> str:
    """The run's own keys and the presets as Markdown; docs/configuration.md holds this text."""
    lines: list[str] = []
    for section in SECTIONS:
        lines += [f"### {(section.__doc__ or '').strip()}", "", "| key | default | meaning |", "|---|---|---|"]
        for name, field in section.model_fields.items():
            lines.append(f"| `{name}` | {_show(field.default)} | {field.description} |")
        lines.append("")
    lines += ["### Presets", "", "| preset | what it is | keys |", "|---|---|---|"]
    for name, about in list_presets().items():
        count = len(read_yaml(PRESET_FOLDER / f"{name}.yaml"))
        lines.append(f"| `{name}` | {about} | {count} |")
    return "\n".join(lines)


def _rows(model: type[BaseModel]) -> list[str]:
    return [
        f"  {name + '=' + _show(field.get_default(call_default_factory=True)):<38} {field.description or ''}".rstrip()
        for name, field in model.model_fields.items()
    ]


def _show(value: Any) -> str:
    """A default as one would type it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[" + ",".join(map(_show, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _update_page(path: Path) -> None:
    """Replace the tables between the two marks of a Markdown page."""
    head, mark, rest = path.read_text(encoding="utf-8").partition("-->\n")
    _, end, tail = rest.partition("<!-- end of tables -->")
    path.write_text(f"{head}{mark}\n{markdown_tables()}\n\n{end}{tail}", encoding="utf-8")


if __name__ == "__main__":
    _update_page(Path(sys.argv[1]))
