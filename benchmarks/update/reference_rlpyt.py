"""rlpyt's ATC and RAD-SAC (astooke/rlpyt, rlpyt/ul), imported from a checkout; nothing of it is kept here.

Its update code runs as released, at the settings of its DeepMind Control configurations. Three things around it do not:
the convolution block lacks ``conv_out_shape`` and the argument ``final_nonlinearity``, so that no encoder can be built,
and the replay buffers, which are replaced by one batch in memory.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import torch
from contest import (
    ACTION_DIM,
    OBS_SHAPE,
    Contest,
    Draws,
    Losses,
    Step,
    Transitions,
    copy_in_order,
    load,
    recorded_losses,
)
from torch import Generator

from visrep.augment import parse_augmentation
from visrep.config import parse
from visrep.data.actions import ActionSpec
from visrep.encoders.contract import InputContract
from visrep.encoders.conv import ATCEncoder
from visrep.objectives.atc import ATCConfig, ATCObjective
from visrep.objectives.parts.ema import frozen_copy
from visrep.pace import LearningRate
from visrep.policies.nets import adam
from visrep.policies.sac import SAC, SACConfig
from visrep.runs.representation import Representation, make_representation
from visrep.runs.update import Learner, augmented, update

UPDATES = 10_000  # of a whole ATC pre-training, which its learning rate is planned on
LEARN_START = 10_000  # agent steps before RAD-SAC's first update
PRESET = ("preset=atc_dmc", "env=toy/maze")  # any environment: the policy's settings are all that is taken


def _ul(folder: Path, module: str) -> Any:
    return load(folder, f"rlpyt.ul.{module}")


def _repair_convolutions(folder: Path, user: str) -> None:
    """Give the convolution block that module ``user`` builds its encoders of what it asks for; layers are untouched."""
    released = load(folder, "rlpyt.models.conv2d").Conv2dModel
    size = load(folder, "rlpyt.models.utils").conv2d_output_shape

    class Conv2dModel(released):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, final_nonlinearity: bool = True, **kwargs: Any) -> None:
            assert final_nonlinearity, "the block always ends with a ReLU"
            super().__init__(*args, **kwargs)

        def conv_out_shape(self, h: int, w: int, c: int | None = None) -> tuple[int | None, int, int]:
            for layer in self.conv:
                if isinstance(layer, torch.nn.Conv2d):
                    h, w = size(h, w, layer.kernel_size, layer.stride, layer.padding)
                    c = layer.out_channels
            return c, h, w

    _ul(folder, user).Conv2dModel = Conv2dModel


@contextlib.contextmanager
def _quiet() -> Any:
    """Without what its logger prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


class ATC(Contest):
    """One unsupervised update of ATC: both shifts, loss, clipped step, target."""

    name = "atc"
    title = "one ATC update"
    checkout = "rlpyt"
    repository = "astooke/rlpyt"
    batch_size = 256
    ticks = (0,)
    bars: ClassVar[dict[str, float]] = {"bf16": 4.0, "fp32": 4.0}

    def agent(self, folder: Path) -> Any:
        """``AugmentedTemporalContrast`` with the configuration dmc_atc."""
        _repair_convolutions(folder, "models.ul.encoders")
        released = _ul(folder, "algos.ul_for_rl.augmented_temporal_contrast").AugmentedTemporalContrast
        config = _ul(folder, "experiments.ul_for_rl.configs.dmcontrol.dmc_atc").configs["dmc_atc"]
        samples = _ul(folder, "replays.ul_for_rl_replay").SamplesFromReplay

        class InMemory(released):  # type: ignore[misc, valid-type]
            samples_class = samples

            def load_replay(self, pixel_control_buffer: Any = None) -> Any:
                nothing = dict.fromkeys(samples._fields)
                return samples(**nothing | {"observation": torch.zeros(OBS_SHAPE, dtype=torch.uint8)})

        assert config["algo"]["batch_B"] == self.batch_size
        warnings.filterwarnings("ignore", message="The epoch parameter in `scheduler.step", category=UserWarning)
        algorithm = InMemory(encoder_kwargs=config["encoder"], optim_kwargs=dict(config["optim"]), **config["algo"])
        with _quiet():
            algorithm.initialize(n_updates=UPDATES)
        return algorithm

    def reference_step(self, agent: Any, data: Transitions) -> Step:
        nothing = dict.fromkeys(agent.samples_class._fields)
        observation = torch.stack([data.obs, data.next_obs])  # [T, B, 9, 84, 84]
        going_on = torch.zeros(observation.shape[:2], dtype=torch.bool)
        samples = agent.samples_class(**nothing | {"observation": observation, "done": going_on})
        agent.replay_buffer = SimpleNamespace(sample_batch=lambda batch_size: samples)
        return agent.optimize

    def our_step(self, agent: Any, data: Transitions, precision: str) -> Step:
        representation, batch = atc_representation(agent, precision), data.batch()
        shift, generator = parse_augmentation("shift(4)", 3), Generator().manual_seed(0)
        return lambda tick: representation.step(augmented(batch, shift, generator))

    def reference_losses(self, agent: Any, data: Transitions, draws: Draws) -> Losses:
        agent.random_shift_prob = 0.0
        info = self.reference_step(agent, data)(0)
        return {"repr_loss": info.atcLoss[0], "repr_grad_norm": info.gradNorm[0]}

    def our_losses(self, agent: Any, data: Transitions, draws: Draws, precision: str) -> Losses:
        metrics = atc_representation(agent, precision).step(augmented(data.batch(), None, None))
        return {name: float(metrics[name]) for name in ("repr_loss", "repr_grad_norm")}


def atc_representation(agent: Any, precision: str) -> Representation:
    """Ours at the algorithm's settings and with its weights."""
    encoder = _encoder(agent.encoder.conv)
    objective = ATCObjective(encoder, ActionSpec(ACTION_DIM), ATCConfig())
    copy_in_order(objective.compressor, agent.encoder.head)
    copy_in_order(objective.target_encoder, agent.target_encoder.conv)
    copy_in_order(objective.target_compressor, agent.target_encoder.head)
    copy_in_order(objective.head, agent.contrast)
    rate = LearningRate(agent.learning_rate, agent.learning_rate_warmup, "cosine", lambda: UPDATES)
    made = make_representation(objective, rate, True, 0, agent.clip_grad_norm, precision)
    assert made is not None, "the objective has parameters"
    return made


class RadSAC(Contest):
    """One end-to-end update of RAD-SAC: critic and encoder, at even ticks also actor, temperature and targets."""

    name = "rad_sac"
    title = "one RAD-SAC update"
    checkout = "rlpyt"
    repository = "astooke/rlpyt"
    batch_size = 512
    ticks = (0, 1)
    bars: ClassVar[dict[str, float]] = {"bf16": 2.5, "fp32": 2.5}

    def agent(self, folder: Path) -> Any:
        """``RadSacFromUl`` with the configuration serial_radsac, no encoder loaded; its SAC agent is ``.agent``."""
        _repair_convolutions(folder, "models.rl.sac_rl_models")
        released = _ul(folder, "algos.rl_from_ul.rad_sac_from_ul").RadSacFromUl
        config = _ul(folder, "experiments.rl_from_ul.configs.dmc_sac_from_ul").configs["serial_radsac"]

        class InMemory(released):  # type: ignore[misc, valid-type]
            samples_class = load(folder, "rlpyt.replays.non_sequence.time_limit").SamplesFromReplayTL
            inputs_class = load(folder, "rlpyt.agents.base").AgentInputs

            def initialize_replay_buffer(self, examples: Any, batch_spec: Any, async_: bool = False) -> None:
                """The batch is given."""

        assert config["algo"]["batch_size"] == self.batch_size
        agent = _ul(folder, "agents.dmc_sac_agent").SacAgent(
            conv_kwargs=config["conv"],
            fc1_kwargs=config["fc1"],
            pi_model_kwargs=config["pi_model"],
            q_model_kwargs=config["q_model"],
            **config["agent"] | {"load_conv": False},
        )
        algorithm = InMemory(**config["algo"])
        shapes = {"observation": OBS_SHAPE, "action": (ACTION_DIM,)}
        with _quiet():
            agent.initialize(SimpleNamespace(**{name: SimpleNamespace(shape=shape) for name, shape in shapes.items()}))
            algorithm.initialize(agent, 1_000_000, SimpleNamespace(size=1, B=1), mid_batch_reset=True, examples=None)
            agent.train_mode(LEARN_START)
        return algorithm

    def reference_step(self, agent: Any, data: Transitions) -> Step:
        inputs = lambda observation: agent.inputs_class(observation, data.action, data.reward[:, 0])
        going_on = torch.zeros(len(data.obs), dtype=torch.bool)
        samples = agent.samples_class(
            agent_inputs=inputs(data.obs),
            action=data.action,
            return_=data.reward[:, 0],
            done=going_on,
            done_n=going_on,
            target_inputs=inputs(data.next_obs),
            timeout=going_on,
            timeout_n=going_on,
        )
        agent.replay_buffer = SimpleNamespace(sample_batch=lambda batch_size: samples)
        return lambda tick: agent.optimize_agent(LEARN_START + tick)

    def our_step(self, agent: Any, data: Transitions, precision: str) -> Step:
        built, batch = rad_sac_learner(agent, precision), data.batch()
        return lambda tick: update(built, batch, tick, tick)

    def reference_losses(self, agent: Any, data: Transitions, draws: Draws) -> Losses:
        agent.augmentation = None
        waiting = [draws.noise.critic, draws.noise.actor]
        given = lambda mean, std: waiting.pop(0).clone()
        step = self.reference_step(agent, data)
        with mock.patch("torch.normal", given), recorded_losses() as losses:
            step(0)
        return dict(zip(("alpha_loss", "actor_loss", "critic_loss"), losses, strict=True))

    def our_losses(self, agent: Any, data: Transitions, draws: Draws, precision: str) -> Losses:
        """With a critic that stands still: rlpyt's actor learns from the critic before its step, ours after it."""
        built = rad_sac_learner(agent, precision)
        built.augment = None
        assert isinstance(built.policy, SAC) and built.encoder_optimizer is not None
        for optimizer in (built.policy.critic_optimizer, built.encoder_optimizer):
            optimizer.param_groups[0]["lr"] = 0.0
        metrics = update(built, data.batch(), 0, 0, noise=draws.noise)
        return {name: float(metrics[name]) for name in ("alpha_loss", "actor_loss", "critic_loss")}


def rad_sac_learner(agent: Any, precision: str) -> Learner:
    """Ours at the algorithm's settings and with its weights (docs/methods/rad_sac.md)."""
    theirs = agent.agent
    encoder = _encoder(theirs.conv)
    config = parse(PRESET).policy
    assert isinstance(config, SACConfig)
    policy = SAC(encoder.feature_dim, ACTION_DIM, config, agent.q_lr)
    copy_in_order(policy.actor.trunk, theirs.pi_fc1)
    copy_in_order(policy.actor.mlp, theirs.pi_mlp)
    for ours, trunk, heads in (
        (policy.critic, theirs.q_fc1, theirs.q_mlps),
        (policy.critic_target, theirs.target_q_fc1, theirs.target_q_mlps),
    ):
        copy_in_order(ours.trunk, trunk)
        copy_in_order(torch.nn.ModuleList([ours.q1, ours.q2]), heads)
    return Learner(
        encoder=encoder,
        policy=policy,
        generator=Generator().manual_seed(0),
        target_encoder=frozen_copy(encoder),
        augment=parse_augmentation("shift(4)", 3),
        encoder_optimizer=adam(encoder.parameters(), agent.q_lr),
        encoder_gradient="critic",
        mask_time_limits=True,
        precision=precision,
    )


def _encoder(theirs: torch.nn.Module) -> ATCEncoder:
    channels, height, width = OBS_SHAPE
    encoder = ATCEncoder(InputContract(height, width, stack=channels // 3))
    copy_in_order(encoder, theirs)
    return encoder
