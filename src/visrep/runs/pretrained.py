"""Files that carry what a pre-training learned: the portable encoder, and the whole explorer for a task phase."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from visrep.checkpoint import load_encoder, load_module_states, save_encoder, save_module_states
from visrep.config import Config
from visrep.config_overrides import read_yaml
from visrep.errors import UserError
from visrep.runs.compose import Networks

ENCODER_FILE = "encoder.safetensors"

# Lengths, places and machine settings are each run's own.
NOT_INHERITED = frozenset(
    "num_expl_steps num_train_steps run_dir resume encoder load_pretrained pretrained_dir pretrained_step experiment "
    "device threads storage transfer keep seed".split()
)


def save_pretrained(networks: Networks, folder: Path, name: str, provenance: dict[str, Any]) -> Path:
    """Write ``encoder.safetensors`` and ``<name>.safetensors`` (encoder, objective, policy) into ``folder``."""
    save_encoder(networks.encoder, folder / ENCODER_FILE, provenance)
    return save_agent(networks, folder, name, provenance)


def save_agent(networks: Networks, folder: Path, name: str, provenance: dict[str, Any]) -> Path:
    """Write every network of the agent to ``<name>.safetensors``."""
    path = folder / f"{name}.safetensors"
    save_module_states(path, {key: module.state_dict() for key, module in _modules(networks).items()}, provenance)
    return path


def load_agent(networks: Networks, source: str) -> Path:
    """Load a pre-trained agent into freshly built networks.

    Args:
        networks: of the same architecture; the policy's weights are loaded where the file has them.
        source: a run directory, an agent file of one, or an ``encoder.safetensors`` (then only the encoder is loaded).

    Raises:
        UserError: nothing is there, or it is of another architecture.
    """
    path = find_agent(source)
    if path.name == ENCODER_FILE:
        loaded = load_encoder(path)
        _load(networks.encoder, loaded.state_dict(), path, "encoder")
        return path
    states, _ = load_module_states(path)
    for key, module in _modules(networks).items():
        if key in states:
            _load(module, states[key], path, key)
        elif key == "encoder":
            raise UserError(f"{path} holds no encoder: it has {', '.join(states)}")
    return path


def find_agent(source: str) -> Path:
    """The newest exploration agent of a run directory, its encoder file where it has none, or the file itself."""
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"encoder={source}: no such file or run directory")
    agents = _agents(path, "expl")
    if agents:
        return agents[-1]
    encoder = path / "model" / ENCODER_FILE
    if encoder.is_file():
        return encoder
    raise UserError(
        f"encoder={source}: this run directory has no model/expl_agent_*.safetensors and no model/{ENCODER_FILE}; "
        "has its pre-training finished?"
    )


def newest_agent(run_dir: Path) -> Path:
    """The agent to judge a run by: the newest of its task phase, else of its exploration."""
    agents = _agents(run_dir, "task") or _agents(run_dir, "expl")
    if not agents:
        raise UserError(f"{run_dir} has no model/*_agent_*.safetensors yet: it is written when a phase ends (or save_model=true)")
    return agents[-1]


def _agents(run_dir: Path, kind: str) -> list[Path]:
    """Agent files of one kind by their agent step, oldest first."""
    files = (run_dir / "model").glob(f"{kind}_agent_*.safetensors")
    return sorted(files, key=lambda file: int(file.stem.rpartition("_")[2]))


def find_pretrained_run(config: Config) -> str:
    """The reference's ``load_pretrained``: the agent of ``pretrained_step`` for this env and seed under ``pretrained_dir``.

    A run directory may be given itself. Unlike the reference, another seed is never taken silently.
    """
    run = config.run
    candidates, seen = [], []
    for folder in str(run.pretrained_dir).split(":"):
        root = Path(folder).expanduser()
        for config_file in sorted(root.glob("**/config.yaml")):
            agent = config_file.parent / "model" / f"expl_agent_{run.pretrained_step}.safetensors"
            values = read_yaml(config_file)
            seen.append(f"{config_file.parent} (env={values.get('env')} seed={values.get('seed')})")
            if agent.is_file() and values.get("env") == run.env and values.get("seed") == run.seed:
                candidates.append(agent)
    if candidates:
        return str(candidates[-1])
    listing = "\n".join(f"  {line}" for line in seen) or "  no run directory at all"
    raise UserError(
        f"load_pretrained: no model/expl_agent_{run.pretrained_step}.safetensors for env={run.env} seed={run.seed} under "
        f"pretrained_dir={run.pretrained_dir}; found\n{listing}\nset pretrained_step to a saved step, or name a run with encoder=<dir>"
    )


def _modules(networks: Networks) -> dict[str, nn.Module]:
    modules: dict[str, nn.Module] = {"encoder": networks.encoder, "policy": networks.policy}
    if networks.objective is not None:
        modules["objective"] = networks.objective
    return modules


def _load(module: nn.Module, state: dict[str, Any], path: Path, key: str) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reasons = "\n".join(str(error).splitlines()[1:6])
        raise UserError(
            f"{path} is a checkpoint of another architecture: its {key} does not fit this run's.\n{reasons}\n"
            "use the same image_size, frame_stack, encoder_* , method and policy keys as the run that wrote it"
        ) from error


def inherited_settings(words: list[str]) -> dict[str, Any]:
    """Settings of the run that ``encoder=<run directory>`` names, for ``visrep finetune`` to start from.

    What the pre-training decided (method, networks, picture, environment) need not be typed again; anything typed wins.
    """
    source = next((word.partition("=")[2] for word in words if word.startswith("encoder=")), "")
    config_file = Path(source).expanduser() / "config.yaml"
    if not source or not config_file.is_file():
        return {}
    return {key: value for key, value in read_yaml(config_file).items() if key not in NOT_INHERITED}
