"""The two phases of a run as data: what is maximised, who trains the encoder, what is carried over.

Pre-training and fine-tuning run through the same loop (``interact``); everything that tells them apart is here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from visrep.config import Command, Config
from visrep.encoders.contract import build_encoder
from visrep.objectives.contract import Novelty
from visrep.pace import Pace, UpdateCounts, parse_update_counts
from visrep.runs.compose import Networks, begin_objective_anew
from visrep.runs.interact import Phase
from visrep.runs.update import EncoderGradient, Intrinsic

PhaseName = Literal["pretrain", "finetune"]


@dataclass(frozen=True)
class PhasePlan:
    """A phase and how its learner is made.

    Attributes:
        phase: what the loop does until when.
        intrinsic: what the policy maximises.
        encoder_gradient: whose loss trains the encoder.
        pace: when the objective is updated.
        latents: the store keeps the frozen encoder's latent images.
    """

    phase: Phase
    intrinsic: Intrinsic
    encoder_gradient: EncoderGradient
    pace: Pace
    latents: bool = False

    @property
    def augments(self) -> bool:
        """Whether a policy learns from augmented images (stored latents are those of images as they are)."""
        return self.phase.learns and not self.latents

    @property
    def asks_objective(self) -> bool:
        """Whether the objective is updated, or pays the policy."""
        return self.encoder_gradient in ("objective", "both") or self.intrinsic != "none"


def phase_names(config: Config) -> list[PhaseName]:
    """The phases that the lengths of a run leave, in order, without making any."""
    run = config.run
    reward_free, task = run.num_expl_steps > 0, run.num_train_steps > run.num_expl_steps
    return [*(("pretrain",) if reward_free else ()), *(("finetune",) if task else ())]


def plan_phases(config: Config, command: Command, networks: Networks) -> list[PhasePlan]:
    """The phases of one command, in order; empty phases are left out."""
    names, plans = phase_names(config), []
    if "pretrain" in names and command != "finetune":
        plans.append(_pretraining(config))
    if "finetune" in names and command != "pretrain":
        plans.append(_task_phase(config, networks))
    return plans


def _pretraining(config: Config) -> PhasePlan:
    """Reward-free: intrinsic reward only; method=random acts uniformly and learns nothing."""
    run = config.run
    learns = run.method != "random"
    phase = Phase(
        name="pretrain",
        end=run.num_expl_steps,
        num_seed_steps=run.num_seed_steps,
        random_until=run.num_random_steps,
        learns=learns,
        updates_per_agent_step=run.updates_per_agent_step,
        seed_action_std=_seed_action_std(config),
    )
    gradient, counts = _arm(config)
    return PhasePlan(phase, "only" if learns else "none", gradient if learns else "none", _pace(config, phase, counts))


def _task_phase(config: Config, networks: Networks) -> PhasePlan:
    """The task's reward plus intr_coef times the bonus where the method pays one; ``transfer`` rules the encoder."""
    run = config.run
    phase = Phase(
        name="finetune",
        end=run.num_train_steps,
        num_seed_steps=run.num_seed_steps,
        random_until=run.num_random_steps,
        learns=True,
        updates_per_agent_step=run.updates_per_agent_step,
        seed_action_std=_seed_action_std(config),
    )
    pays = isinstance(networks.objective, Novelty) and run.intr_coef > 0
    gradient, counts = _arm(config)
    if run.transfer == "frozen" and not _from_scratch(config):
        gradient = "none"
    latents = run.replay == "latents"
    return PhasePlan(phase, "bonus" if pays else "none", gradient, _pace(config, phase, counts), latents)


def _arm(config: Config) -> tuple[EncoderGradient, UpdateCounts]:
    """Who trains the encoder, and how often the objective is updated beside the policy."""
    run = config.run
    if run.encoder_gradient == "init":
        return "both", parse_update_counts(f"front_{run.repr_init_updates}_0")
    per_iteration = 1.0 / run.updates_per_agent_step if run.updates_per_agent_step else 1.0
    text = run.repr_updates or f"mod_{run.encoder_update_frequency}"
    return run.encoder_gradient, parse_update_counts(text, per_iteration)


def _pace(config: Config, phase: Phase, counts: UpdateCounts) -> Pace:
    return Pace(counts, phase.end, phase.updates_per_agent_step, config.run.repr_start_steps)


def _seed_action_std(config: Config) -> float | None:
    return config.run.seed_action_std if config.run.seed_actions == "policy" else None


def _from_scratch(config: Config) -> bool:
    """True where no phase before this one made an encoder that could be frozen."""
    run = config.run
    return run.num_expl_steps == 0 and run.encoder is None and not run.load_pretrained


def enter_task_phase(config: Config, networks: Networks) -> None:
    """Keep what ``keep`` and ``transfer`` say, make the rest fresh: the reference keeps the actor and the encoder."""
    if config.run.transfer == "scratch":
        encoder = networks.encoder
        fresh = build_encoder(encoder.kind, encoder.contract, **encoder.config())
        encoder.load_state_dict(fresh.state_dict())
        begin_objective_anew(config, networks)  # its heads and target copies belong to the encoder that was left behind
    assert networks.policy is not None, "a task phase acts"
    networks.policy.fresh(frozenset(config.run.keep))
