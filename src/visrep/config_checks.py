"""What no single setting can tell: which of a run's settings contradict each other, and which one to change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel

from visrep.augment import parse_augmentation
from visrep.config_fields import RunConfig
from visrep.encoders.contract import ENCODERS
from visrep.errors import UserError, nearest
from visrep.objectives.contract import OBJECTIVES, Novelty
from visrep.pace import parse_update_counts
from visrep.policies.contract import POLICIES

Command = Literal["train", "pretrain", "finetune"]
NO_OBJECTIVE = ("random", "none")  # values of ``method`` that name no objective
# On recorded data nobody acts and no policy learns: keys that would do nothing there.
ACTING = frozenset(
    {
        "render", "num_envs", "num_train_steps", "num_expl_steps", "num_random_steps", "num_seed_steps", "seed_actions",
        "seed_action_std", "eval_frequency", "num_eval_episodes", "policy", "encoder_gradient", "intr_coef",
        "intr_reward_norm", "transfer", "encoder_lr_scale", "keep", "n_step", "updates_per_agent_step",
        "encoder_update_frequency", "time_limits", "replay_buffer_capacity", "repr_updates", "repr_start_steps",
        "repr_init_updates", "replay", "latent_dtype", "latent_shift", "save_video", "save_model",
        "save_frequency", "save_buffer",
    }
)  # fmt: skip


def check_name(key: str, value: Any, known: Sequence[str] | Mapping[str, Any]) -> None:
    """UserError with the nearest names unless ``value`` is one of ``known``."""
    if not isinstance(value, str) or value not in known:
        near = nearest(str(value), known)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(f"unknown {key}={value}: {hint}known are {', '.join(known)}")


def check_run(run: RunConfig, command: Command) -> None:
    """Raise UserError for the first contradiction; the message says which key to change."""
    _check_encoder_kind(run)
    _check_texts(run)
    if run.data is not None:
        _check_offline(run, command)
        return
    _check_lengths(run, command)
    _check_learning(run, command)
    _check_transfer(run, command)
    _check_replay(run)
    _check_objective_batches(run, command)


def check_offline_keys(typed: Mapping[str, Any], policy: type[BaseModel]) -> None:
    """UserError for keys typed beside ``data`` that would do nothing there; presets serve runs of both kinds.

    Args:
        typed: keys of the command line.
        policy: the Config of the chosen policy.
    """
    idle = [key for key in typed if key in ACTING or key in policy.model_fields]
    if idle:
        raise UserError(
            f"{', '.join(idle)}: of no use with data=..., where nobody acts and no policy learns; leave "
            f"{'it' if len(idle) == 1 else 'them'} out (num_repr_updates is the length of such a pre-training)"
        )


def _check_encoder_kind(run: RunConfig) -> None:
    check_name("encoder_kind", run.encoder_kind, ENCODERS)
    if run.observation == "pixels" and not ENCODERS[run.encoder_kind].takes_images:
        choices = ", ".join(kind for kind, encoder in ENCODERS.items() if encoder.takes_images)
        raise UserError(
            f"encoder_kind={run.encoder_kind} takes no images: observation=state and replay=latents use such encoders "
            f"by themselves; choose {choices}"
        )


def _check_texts(run: RunConfig) -> None:
    """Settings written in a small language of their own."""
    for key, text in (("augment", run.augment), ("repr_augment", run.repr_augment)):
        if text in ("none", "shift", "same"):
            continue
        try:
            parse_augmentation(text, 3 if run.observation == "pixels" else 1)
        except UserError as error:
            raise UserError(f"{key}={text}: {error}") from error
    if run.repr_updates is not None:
        try:
            parse_update_counts(run.repr_updates)
        except ValueError as error:
            raise UserError(f"repr_updates={run.repr_updates}: {error}") from error


def _check_offline(run: RunConfig, command: Command) -> None:
    if command != "pretrain":
        raise UserError(f"data={run.data} is what `visrep pretrain` learns from; {command} acts in an environment")
    if run.method in NO_OBJECTIVE:
        raise UserError(f"pretrain data=... needs an objective, and method={run.method} is none: choose another method")
    stores = [part for part in str(run.data).split(",") if part.strip()]
    if run.data_weights is not None and len(run.data_weights) != len(stores):
        raise UserError(
            f"data_weights has {len(run.data_weights)} numbers for {len(stores)} datasets: give one for each, or leave "
            "it out for equal shares"
        )


def _check_lengths(run: RunConfig, command: Command) -> None:
    if command != "pretrain" and run.num_train_steps <= run.num_expl_steps:
        raise UserError(
            f"num_train_steps={run.num_train_steps} is the TOTAL of both phases and num_expl_steps="
            f"{run.num_expl_steps} of them are reward-free, so no agent step is left for the task: "
            f"set num_train_steps above {run.num_expl_steps} (twice it gives both phases the same length), "
            "or use `visrep pretrain` for the reward-free phase alone"
        )
    if run.method == "none" and run.num_expl_steps:
        raise UserError(
            f"method=none has no reward-free phase, but num_expl_steps={run.num_expl_steps}: set num_expl_steps=0, "
            "or method=random to explore with uniform actions"
        )


def _check_learning(run: RunConfig, command: Command) -> None:
    if run.method in NO_OBJECTIVE and run.intr_coef:
        raise UserError(
            f"intr_coef={run.intr_coef:g} weighs an intrinsic reward, but method={run.method} pays none: "
            "leave intr_coef out"
        )
    trains = _task_trains_encoder(run, command)
    if run.method in NO_OBJECTIVE and trains and run.encoder_gradient in ("objective", "both", "init"):
        raise UserError(
            f"encoder_gradient={run.encoder_gradient} needs an objective and method={run.method} has none: set "
            "encoder_gradient=critic to learn the encoder from the task, or none to leave it as it is"
        )


def _task_trains_encoder(run: RunConfig, command: Command) -> bool:
    """Whether there is a task phase and its encoder is not frozen."""
    ready = bool(run.num_expl_steps or run.encoder or run.load_pretrained)  # an encoder that could stay frozen
    return command != "pretrain" and not (run.transfer == "frozen" and ready)


def _check_transfer(run: RunConfig, command: Command) -> None:
    unknown = sorted(set(run.keep) - set(POLICIES[run.policy].parts))
    if unknown:
        raise UserError(
            f"keep={','.join(run.keep)}: policy={run.policy} has no {' and no '.join(unknown)} to keep; it has "
            f"{', '.join(POLICIES[run.policy].parts)}"
        )
    if run.load_pretrained and (run.num_expl_steps or run.pretrained_dir is None):
        raise UserError(
            "load_pretrained=true takes the reward-free phase from a finished run: "
            "set num_expl_steps=0 and pretrained_dir=<its folder>"
        )
    if command == "finetune" and run.transfer != "scratch" and run.encoder is None and not run.load_pretrained:
        raise UserError(
            f"finetune with transfer={run.transfer} starts from a pre-trained encoder: set encoder=<run directory "
            "or encoder.safetensors>, or transfer=scratch"
        )


def _check_replay(run: RunConfig) -> None:
    frozen = run.transfer == "frozen" and bool(run.encoder or run.load_pretrained)
    if run.replay == "latents" and not frozen and run.encoder_gradient != "none":
        raise UserError(
            "replay=latents stores what a frozen encoder makes of the images: it needs transfer=frozen and "
            "encoder=<run directory or encoder.safetensors> (or encoder_gradient=none, which keeps the first weights)"
        )
    if run.replay == "latents" and run.num_expl_steps:
        raise UserError("replay=latents is for the task phase alone: set num_expl_steps=0, or use visrep finetune")
    if run.batch_size > run.replay_buffer_capacity:
        raise UserError(
            f"batch_size={run.batch_size} is larger than replay_buffer_capacity={run.replay_buffer_capacity}: "
            "no batch could be filled; lower batch_size or raise the capacity"
        )
    if run.updates_per_agent_step and run.num_seed_steps >= run.replay_buffer_capacity:
        raise UserError(
            f"num_seed_steps={run.num_seed_steps} transitions before the first update never fit into "
            f"replay_buffer_capacity={run.replay_buffer_capacity}, so the run would not learn: lower num_seed_steps or "
            "raise the capacity"
        )
    if run.updates_per_agent_step and run.batch_size > run.num_seed_steps:
        raise UserError(
            f"batch_size={run.batch_size} is larger than the data at the first update, num_seed_steps="
            f"{run.num_seed_steps} transitions: raise num_seed_steps to at least {run.batch_size} or lower batch_size"
        )


def _check_objective_batches(run: RunConfig, command: Command) -> None:
    """Batches that the objective draws for itself: whether its first update finds rows enough."""
    if not (run.objective_draws and run.updates_per_agent_step and _objective_learns(run, command)):
        return
    key = "batch_size" if run.repr_batch_size is None else "repr_batch_size"
    wanted = run.repr_batch_size or run.batch_size
    begun = run.num_expl_steps if _task_trains_encoder(run, command) else 0  # the task phase has a store of its own
    stored = min(max(run.num_seed_steps, run.repr_start_steps - begun), run.replay_buffer_capacity)
    # Of each environment, the rows whose return may not be complete yet.
    waiting = run.num_envs * (run.repr_priority_steps - 1) if run.repr_priority_alpha else 0
    if wanted + waiting <= stored:
        return
    remedy = f"raise num_seed_steps to at least {wanted + waiting}"
    if wanted + waiting >= run.replay_buffer_capacity:
        remedy += f" and replay_buffer_capacity={run.replay_buffer_capacity} above it"
    where = f"the objective's first update, num_seed_steps={run.num_seed_steps} transitions"
    if not waiting:
        raise UserError(f"{key}={wanted} is larger than the data at {where}: {remedy}, or lower {key}")
    raise UserError(
        f"repr_priority_steps={run.repr_priority_steps}: a row is drawn when so many are stored after it, which leaves "
        f"too few for {key}={wanted} at {where}: {remedy}, or lower repr_priority_steps"
    )


def _objective_learns(run: RunConfig, command: Command) -> bool:
    """Whether any phase of the run updates an objective."""
    if run.method in NO_OBJECTIVE or run.encoder_gradient == "none":
        return False
    if run.num_expl_steps and command != "finetune":
        return True
    # An objective that pays follows an encoder that the critic trains.
    pays = run.intr_coef > 0 and issubclass(OBJECTIVES[run.method], Novelty)
    return _task_trains_encoder(run, command) and (run.encoder_gradient != "critic" or pays)
