"""Files that carry what a pre-training learned: the portable encoder, and the whole explorer for a task phase."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from visrep.config import Config
from visrep.config_overrides import read_yaml
from visrep.console import Console
from visrep.data.dataset import MANIFEST, read_manifest
from visrep.encoders.contract import Encoder
from visrep.errors import UserError
from visrep.network_files import (
    encoder_metadata,
    load_encoder,
    load_module_states,
    network_file_content,
    save_encoder,
    save_module_states,
)
from visrep.objectives.contract import Novelty, UsesProjection
from visrep.runs.compose import Networks, begin_objective_anew, share_critics_projection

ENCODER_FILE = "encoder.safetensors"
REPRESENTATION = "representation"  # a file of what was pre-trained on recorded experience, without a policy

# Lengths, places and machine settings are each run's own.
NOT_INHERITED = frozenset(
    {
        "num_expl_steps", "num_train_steps", "run_dir", "resume", "encoder", "load_pretrained", "pretrained_dir",
        "pretrained_step", "experiment", "device", "threads", "storage", "transfer", "seed", "data", "data_weights",
        "num_repr_updates",
    }
)  # fmt: skip
# Of a pre-training on recorded data, those that count its updates.
OFFLINE_PACE = frozenset({"log_frequency_step", "checkpoint_frequency", "probe_frequency"})

# Of an environment's fingerprint, what decides how its images look and how far apart in time they are.
IMAGE_KEYS = ("suite", "renderer", "image_size", "action_repeat", "camera", "versions")
SAME_KEYS = "Use the same method, policy, image_size, frame_stack and encoder_* keys as the run that wrote it"


def save_pretrained(networks: Networks, folder: Path, name: str, provenance: dict[str, Any]) -> Path:
    """Write ``encoder.safetensors`` and ``<name>.safetensors`` (encoder, objective, policy) into ``folder``."""
    save_encoder(networks.encoder, folder / ENCODER_FILE, provenance)
    return save_agent(networks, folder, name, provenance)


def save_representation(networks: Networks, folder: Path, provenance: dict[str, Any]) -> Path:
    """Write ``encoder.safetensors`` and ``representation.safetensors`` (encoder, objective): there is no policy."""
    return save_pretrained(networks, folder, REPRESENTATION, provenance)


def save_agent(networks: Networks, folder: Path, name: str, provenance: dict[str, Any]) -> Path:
    """Write every network of the agent to ``<name>.safetensors``."""
    path = folder / f"{name}.safetensors"
    states = {key: module.state_dict() for key, module in networks.modules().items()}
    save_module_states(path, states, {**provenance, "encoder": _description(networks.encoder)})
    return path


@dataclass(frozen=True)
class LoadedAgent:
    """What ``load_agent`` did.

    Attributes:
        path: the file.
        parts: networks that have its weights now; the others are as they were.
        provenance: what the file says about the run that wrote it.
    """

    path: Path
    parts: frozenset[str]
    provenance: dict[str, Any]

    def image_differences(self, fingerprint: dict[str, Any]) -> list[str]:
        """What sets this run's images apart from those of the run that wrote the file, one text per difference."""
        then = self.provenance.get("environment", {})
        return [
            f"{key} {then[key]} there, {fingerprint[key]} here"
            for key in IMAGE_KEYS
            if key in then and key in fingerprint and then[key] != fingerprint[key]
        ]


def load_agent(networks: Networks, source: str, leave: Collection[str] = ()) -> LoadedAgent:
    """Load a pre-trained agent into freshly built networks.

    Args:
        networks: of the same architecture.
        source: a run directory, an agent file of one, or an ``encoder.safetensors`` (then only the encoder is loaded).
        leave: networks not to load ("policy", "objective").

    Raises:
        UserError: nothing is there, or it is of another architecture.
    """
    path = find_agent(source)
    if network_file_content(path) == "encoder":
        about = encoder_metadata(path)
        provenance, described = about["provenance"], {key: about[key] for key in ("kind", "config", "input")}
        states: dict[str, dict[str, Tensor]] = {"encoder": load_encoder(path).state_dict()}
    else:
        states, provenance = load_module_states(path)
        described = provenance.get("encoder", {})
    if "encoder" not in states:
        raise UserError(f"{path} holds no encoder: it has {', '.join(states)}")
    _check_encoder(path, described, networks.encoder)
    objective, state = networks.objective, states.get("objective")
    if isinstance(objective, UsesProjection) and state is not None and objective.lacks_projection(state):
        if networks.policy is None:  # and so no critic whose projection it could go on with
            leave = {*leave, "objective"}
        elif "objective" not in leave:
            share_critics_projection(networks)
    wanted = {key: module for key, module in networks.modules().items() if key in states and key not in leave}
    for key, module in wanted.items():
        _load(module, states[key], path, key)
    return LoadedAgent(path, frozenset(wanted), provenance)


def _description(encoder: Encoder) -> dict[str, Any]:
    return {"kind": encoder.kind, "config": encoder.config(), "input": encoder.contract.to_dict()}


def _check_encoder(path: Path, described: dict[str, Any], encoder: Encoder) -> None:
    """Weights may fit an encoder that scales its input otherwise, so what the file says is compared as well."""
    here = _flat(_description(encoder))
    wrong = [
        f"{key} {value} there, {here.get(key)} here"
        for key, value in _flat(described).items()
        if value != here.get(key) and key != "config.init"  # first weights are replaced by the file's
    ]
    if wrong:
        raise UserError(f"{path} holds an encoder of another architecture: {'; '.join(wrong)}. {SAME_KEYS}")


def _flat(description: dict[str, Any]) -> dict[str, Any]:
    parts = {key: value if isinstance(value, dict) else {"": value} for key, value in description.items()}
    return {f"{key}.{name}".rstrip("."): value for key, part in parts.items() for name, value in part.items()}


def take_over(config: Config, networks: Networks, fingerprint: dict[str, Any], console: Console) -> None:
    """Load what the run starts from, if it names anything; say what that lacks and how its images differ.

    Args:
        config: of the run that begins.
        networks: its fresh networks.
        fingerprint: of its environment.
        console: where to say it.

    Raises:
        UserError: nothing is there, it is of another architecture, or a frozen part that the run needs is not in it.
    """
    run = config.run
    source = find_pretrained_run(config) if run.load_pretrained else run.encoder
    if source is None:
        return
    explores = run.num_expl_steps > 0 or run.data is not None  # the objective goes on learning
    # What the task phase makes fresh anyway, or does not use, may be of another kind.
    pays = run.intr_coef > 0 and isinstance(networks.objective, Novelty)
    used = explores or pays or run.transfer == "finetune"
    leave = {"policy": not (run.keep or explores), "objective": not used or _other_method(config, source)}
    agent = load_agent(networks, source, leave=[key for key, left in leave.items() if left])
    held = ", ".join(sorted(agent.parts))
    console.line(f"pre-trained {held}: {agent.path}")
    lacking = [key for key in networks.modules() if key not in agent.parts]
    if "objective" in lacking and pays and run.transfer == "frozen" and not explores:
        raise UserError(
            f"{agent.path} holds only the {held}. The bonus (intr_coef={run.intr_coef:g}) also needs the pre-trained "
            f"networks of method={run.method}: name the run directory or its model/expl_agent_*.safetensors, "
            "or set intr_coef=0 (or method=none)"
        )
    if "objective" in lacking:  # its target copies were taken of the encoder that was replaced
        begin_objective_anew(config, networks)
    for key in (key for key in lacking if not leave.get(key)):
        console.line(f"note: no pre-trained {key} is taken over; it starts fresh")
    for difference in agent.image_differences(fingerprint):
        console.line(f"note: the pre-training saw other images: {difference}")


def _other_method(config: Config, source: str) -> bool:
    """Whether what ``source`` names was trained by another objective than this run's."""
    theirs = inherited_settings([f"encoder={source}"]).get("method", config.run.method)
    return bool(theirs != config.run.method)


def find_agent(source: str) -> Path:
    """The newest exploration agent of a run directory, else its representation or encoder, or the file itself."""
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"encoder={source}: no such file or run directory")
    if (path / MANIFEST).is_file():
        raise UserError(f"encoder={source} is a dataset: pre-train on it with visrep pretrain data={source}")
    agents = _agents(path, "expl")
    if agents:
        return agents[-1]
    for name in (f"{REPRESENTATION}.safetensors", ENCODER_FILE):
        if (path / "model" / name).is_file():
            return path / "model" / name
    raise UserError(
        f"encoder={source}: this run directory has no model/expl_agent_*.safetensors and no model/{ENCODER_FILE}; "
        "has its pre-training finished?"
    )


def newest_agent(run_dir: Path) -> Path:
    """The agent to judge a run by: the newest of its task phase, else of its exploration."""
    agents = _agents(run_dir, "task") or _agents(run_dir, "expl")
    if not agents:
        config = run_dir / "config.yaml"
        data = read_yaml(config).get("data") if config.is_file() else None
        if data:
            raise UserError(
                f"{run_dir} learned from recorded data (data={data}), where nobody acts: it has an encoder and no "
                f"policy. Learn one with visrep finetune encoder={run_dir}, and name that run"
            )
        raise UserError(
            f"{run_dir} has no model/*_agent_*.safetensors yet: it is written when a phase ends (or save_model=true)"
        )
    return agents[-1]


def _agents(run_dir: Path, kind: str) -> list[Path]:
    """Agent files of one kind by their agent step, oldest first."""
    files = (run_dir / "model").glob(f"{kind}_agent_*.safetensors")
    return sorted(files, key=lambda file: int(_agent_step(file)))


def find_pretrained_run(config: Config) -> str:
    """The reference's ``load_pretrained``: agent of ``pretrained_step`` for this env and seed under ``pretrained_dir``.

    A run directory may be given itself. Unlike the reference, another seed is never taken silently.
    """
    run = config.run
    candidates, seen = [], []
    for folder in str(run.pretrained_dir).split(":"):
        root = Path(folder).expanduser()
        for config_file in sorted(root.glob("**/config.yaml")):
            agents = _agents(config_file.parent, "expl")
            if not agents:
                continue
            values = read_yaml(config_file)
            steps = ", ".join(_agent_step(agent) for agent in agents)
            about = f"env={values.get('env')} seed={values.get('seed')} pretrained_step={steps}"
            seen.append(f"{config_file.parent}: {about}")
            if values.get("env") == run.env and values.get("seed") == run.seed:
                candidates += [agent for agent in agents if _agent_step(agent) == str(run.pretrained_step)]
    if candidates:
        return str(candidates[-1])
    listing = "\n".join(f"  {line}" for line in seen) or "  no exploration agent at all"
    raise UserError(
        f"load_pretrained: no model/expl_agent_{run.pretrained_step}.safetensors for env={run.env} seed={run.seed} "
        f"under pretrained_dir={run.pretrained_dir}; found\n{listing}\n"
        "set pretrained_step, env and seed to those of a saved agent, or name a run with encoder=<dir>"
    )


def _agent_step(agent: Path) -> str:
    return agent.stem.rpartition("_")[2]


def _load(module: nn.Module, state: dict[str, Tensor], path: Path, key: str) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reasons = "\n".join(str(error).splitlines()[1:6])
        raise UserError(
            f"{path} is a checkpoint of another architecture: its {key} does not fit this run's.\n{reasons}\n"
            f"{SAME_KEYS}"
        ) from error


def inherited_settings(words: list[str]) -> dict[str, Any]:
    """Settings of the run that wrote what ``encoder=...`` names, for ``visrep finetune`` to start from.

    What the pre-training decided (method, networks, picture, environment) need not be typed again; anything typed wins,
    but for what the encoder was built as (see ``visrep.config_facts``).
    """
    source = next((word.partition("=")[2] for word in words if word.startswith("encoder=")), "")
    path = Path(source).expanduser()
    if not source or not path.exists():
        return {}
    if path.is_dir():
        return inheritable(read_yaml(path / "config.yaml")) if (path / "config.yaml").is_file() else {}
    if network_file_content(path) == "encoder":
        described = encoder_metadata(path)
        provenance = described["provenance"]
    else:
        provenance = load_module_states(path)[1]
        described = provenance.get("encoder", {})
    return _built_as(described) | inheritable(provenance.get("config", {}))


def inheritable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of a pre-training's settings, those that a task phase starts from."""
    left = {key for key in values if key in NOT_INHERITED}
    if values.get("data"):  # its rates, schedules and first weights are of updates without a policy, counted as such
        left |= OFFLINE_PACE | {key for key in values if key.startswith("repr_") or key.endswith("_init")}
    return {key: value for key, value in values.items() if key not in left}


def _built_as(described: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that an encoder's own description settles; none for one of unbounded floats or oblong images."""
    shape, settings = described.get("input", {}), described.get("config", {})
    if shape.get("high") is None or shape["height"] != shape["width"]:
        return {}
    chosen = {f"encoder_{name}": settings[name] for name in ("channels", "offset") if name in settings}
    return {"encoder_kind": described["kind"], "frame_stack": shape["stack"], "image_size": shape["height"], **chosen}


def dataset_settings(words: list[str]) -> dict[str, Any]:
    """Settings that the (first) dataset of ``data=...`` decides: its environment, its images, the frames per image."""
    source = next((word.partition("=")[2] for word in words if word.startswith("data=")), "").split(",")[0].strip()
    if not source:
        return {}
    manifest = read_manifest(Path(source).expanduser())
    about = {**(manifest.get("environment") or {}), **manifest}
    keys = ("env", "observation", "image_size", "action_repeat", "frame_stack", "camera")
    return {key: about[key] for key in keys if about.get(key) is not None}
