"""Settings of a run that belong to no method and no policy: each key, its default, its bounds, what it means.

Keys, defaults and units are those of the public Proto-RL configuration where it has them (agent steps unless the
description says otherwise); its nested keys moved to the top level under their own names. The sections below are the
headings of ``--help`` and of docs/configuration.md.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class TaskFields(_Section):
    """The task"""

    observation: Literal["pixels", "state"] = Field(
        "pixels", description="what the agent sees: images, or the task's own state vector (no rendering)"
    )
    env: str = Field("cheetah_run", min_length=1, description="environment: a DeepMind Control name, or suite/name")
    frame_stack: Count = Field(3, description="frames per observation; at an episode's start the first one repeats")
    action_repeat: Count = Field(2, description="env frames per agent step; rewards are summed")
    image_size: int = Field(84, ge=8, description="height and width of the rendered image, pixels")
    camera: int | None = Field(None, ge=0, description="camera id; none = the environment's usual one")
    render: Literal["auto", "warp", "egl", "osmesa"] = Field(
        "auto", description="MuJoCo renderer; auto takes EGL on an NVIDIA device and warp otherwise"
    )
    num_envs: Count = Field(1, description="environments stepped in parallel, each in a process of its own")
    seed: CountOrZero = Field(1, description="seed of everything random in the run")


class LengthFields(_Section):
    """Length of the run"""

    num_train_steps: Count = Field(500_000, description="TOTAL agent steps, the reward-free phase included")
    num_expl_steps: CountOrZero = Field(250_000, description="agent steps of the reward-free phase")
    num_random_steps: CountOrZero = Field(1_000, description="first agent steps, acted uniformly at random")
    num_seed_steps: CountOrZero = Field(1_000, description="transitions in the replay store before the first update")
    seed_actions: Literal["uniform", "policy"] = Field(
        "uniform", description="how the first num_random_steps act: uniformly, or around the untrained policy's mean"
    )
    seed_action_std: Positive = Field(0.75, description="std of those actions before the tanh, for seed_actions=policy")
    eval_frequency: Count = Field(50_000, description="agent steps between evaluations; step 0 is evaluated too")
    num_eval_episodes: CountOrZero = Field(10, description="episodes per evaluation; 0 = no evaluation")


class MethodFields(_Section):
    """What is learned, and from what"""

    method: str = Field(
        "proto",
        description="pre-training objective (on data: atc); random = none, act uniformly; none = no reward-free phase",
    )
    policy: str = Field("sac", description="actor-critic that acts and learns on the encoder's features")
    encoder_gradient: Literal["objective", "critic", "both", "init", "none"] = Field(
        "objective",
        description="whose loss trains the encoder where it is not frozen; init = the objective for repr_init_updates "
        "when learning begins, the critic from then on",
    )
    encoder_kind: str = Field("proto", description="registered encoder architecture")
    encoder_channels: Count = Field(32, description="channels of each convolution")
    encoder_offset: float = Field(
        0.0, allow_inf_nan=False, description="subtracted after dividing by 255; DrQ-v2 uses 0.5"
    )
    encoder_init: Literal["orthogonal", "delta_orthogonal", "kaiming", "torch"] | None = Field(
        None, description="first weights of the encoder; none = as published for its kind"
    )
    intr_coef: NotNegative = Field(0.2, description="weight of the intrinsic reward in the task phase; 0 = bonus off")
    intr_reward_norm: Literal["none", "mean"] = Field(
        "none", description="mean divides the intrinsic reward by its running mean"
    )
    transfer: Literal["frozen", "finetune", "scratch"] = Field(
        "frozen", description="the encoder in the task phase: frozen, trained further, or re-initialised"
    )
    encoder_lr_scale: Positive = Field(
        1.0, description="learning rate of the critic's optimiser on the encoder, relative to lr"
    )
    keep: tuple[Literal["actor", "critic", "alpha"], ...] = Field(
        ("actor",), description="parts of the exploration policy that the task phase starts from, e.g. actor,critic"
    )
    encoder: str | None = Field(None, description="pre-trained encoder: a run directory or an encoder.safetensors")
    load_pretrained: bool = Field(
        False, description="take the exploration phase from a finished run under pretrained_dir; needs num_expl_steps=0"
    )
    pretrained_step: CountOrZero = Field(250_000, description="agent step of the saved exploration agent to load")
    pretrained_dir: str | None = Field(None, description="folders to look in for that run, separated by colons")


class UpdateFields(_Section):
    """Optimisation"""

    lr: Positive = Field(1e-4, description="learning rate of every Adam optimiser")
    batch_size: Count = Field(512, description="transitions per update")
    discount: float = Field(0.99, ge=0, le=1, description="discount per agent step")
    n_step: Count = Field(1, description="rewards summed before bootstrapping")
    updates_per_agent_step: NotNegative = Field(
        1.0, description="updates per agent step, over all environments together; 0.5 = one every second step"
    )
    encoder_update_frequency: Count = Field(2, description="updates per step of the objective and its EMA")
    augment: str = Field(
        "shift",
        description="augmentation of the policy's images, e.g. crop(84)+cutout; all operators: at the end of "
        "--help and in docs/augmentations.md",
    )
    shift_pad: CountOrZero = Field(
        4, description="pixels in each direction of an augmentation's shift without a number; 0 = none"
    )
    time_limits: Literal["bootstrap", "mask"] = Field(
        "bootstrap", description="transitions cut off by a time limit: bootstrapped, or left out of the policy's losses"
    )
    replay_buffer_capacity: Count = Field(100_000, description="transitions kept; the oldest are overwritten")


class RepresentationFields(_Section):
    """The objective's updates"""

    repr_lr: Positive | None = Field(None, description="learning rate of the objective's optimisers; none = lr")
    repr_warmup: CountOrZero = Field(0, description="objective updates of a linear warm-up from 0")
    repr_anneal: Literal["constant", "cosine"] = Field(
        "constant", description="cosine lowers the objective's learning rate to 0 over all planned updates"
    )
    repr_grad_clip: Positive | None = Field(None, description="bound of the objective's gradient norm; none = no bound")
    repr_updates: str | None = Field(
        None,
        description="objective updates per policy update: constant_X, front_X_Y, linear_X, quadratic_X, cosine_X, "
        "pulse_X_Y, mod_X; none = one every encoder_update_frequency",
    )
    repr_start_steps: CountOrZero = Field(
        0, description="agent steps before the objective's first update, which never comes before the policy's first"
    )
    repr_init_updates: Count = Field(10_000, description="objective updates at the start with encoder_gradient=init")
    repr_batch_size: int | None = Field(
        None, ge=1, description="rows of the objective's own batches; none = the policy's batch serves both"
    )
    repr_augment: str = Field(
        "same", description="augmentation of the objective's images; same = the policy's, none where it reconstructs"
    )
    repr_priority_alpha: NotNegative = Field(
        0.0, description="reward-prioritised objective batches: priority 1 + alpha*R^beta; 0 = uniform"
    )
    repr_priority_beta: NotNegative = Field(1.0, description="exponent beta of that priority")
    repr_priority_steps: Count = Field(
        100, description="agent steps whose rewards are summed for R; a row is drawn when so many are stored after it"
    )

    @property
    def objective_draws(self) -> bool:
        """Whether the objective draws batches of its own instead of sharing the policy's."""
        return self.repr_batch_size is not None or self.repr_priority_alpha > 0


class OfflineFields(_Section):
    """Pre-training on recorded experience"""

    data: str | None = Field(
        None, description="pretrain on these datasets (folders, separated by commas) instead of by acting"
    )
    data_weights: tuple[float, ...] | None = Field(
        None, description="share of each dataset in a batch, e.g. 0.5,0.25,0.25; none = equal"
    )
    num_repr_updates: Count = Field(10_000, description="objective updates of a pre-training on data")
    probe_frequency: CountOrZero = Field(1_000, description="objective updates between live probes; 0 = none")


class MachineFields(_Section):
    """The machine"""

    device: str = Field(
        "auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:<index> or mps"
    )
    threads: int | None = Field(None, ge=1, description="CPU threads of the learner; none = torch's own choice")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16 runs convolutions and layers under autocast")
    compile: Literal["off", "on", "cudagraphs"] = Field("off", description="torch.compile, with CUDA graphs or without")
    replay: Literal["pixels", "latents"] = Field(
        "pixels", description="what the replay store keeps; latents = the frozen encoder's output instead of images"
    )
    latent_dtype: Literal["float16", "float32"] = Field("float32", description="numbers of stored latents")
    latent_shift: float = Field(
        1.0, ge=0, le=1, description="random subpixel shift of replayed latents, in latent pixels; 0 = none"
    )
    storage: Literal["ram", "disk", "device"] = Field(
        "ram", description="where the replay store lives; disk = memory-mapped in the run directory"
    )


class OutputFields(_Section):
    """What the run leaves, and how it resumes"""

    experiment: str = Field("bench", description="a name of your own, kept in config.yaml")
    run_dir: str | None = Field(None, description="run directory; none = exp_local/YYYY.MM.DD/HHMMSS_<overrides>")
    resume: Literal["auto", "previous", "never"] = Field(
        "auto",
        description="auto continues from the newest checkpoint in run_dir, previous from the one before it; "
        "never refuses a directory that holds a run",
    )
    checkpoint_frequency: Count = Field(
        10_000, description="agent steps between checkpoints; with data=, updates (2500)"
    )
    log_frequency_step: Count = Field(
        10_000, description="agent steps between rows of metrics.jsonl; with data=, updates (100)"
    )
    log_save_tb: bool = Field(True, description="write TensorBoard events to tb/")
    save_video: bool = Field(True, description="write video/<agent_step>.mp4 at each evaluation")
    save_model: bool = Field(False, description="write model/{expl,task}_agent_<agent_step>.safetensors")
    save_frequency: Count = Field(10_000, description="agent steps between those model files")
    save_buffer: bool = Field(False, description="leave each phase's replay as a dataset in buffer/<phase>")
    save_pixels: bool = Field(False, description="accepted for compatibility; the store always keeps pixels")


SECTIONS: tuple[type[_Section], ...] = (
    TaskFields, LengthFields, MethodFields, UpdateFields, RepresentationFields, OfflineFields, MachineFields,
    OutputFields,
)  # fmt: skip


class RunConfig(
    TaskFields,
    LengthFields,
    MethodFields,
    UpdateFields,
    RepresentationFields,
    OfflineFields,
    MachineFields,
    OutputFields,
):
    """Every setting of a run outside the method's and the policy's own Config."""

    @field_validator("data_weights", mode="before")
    @classmethod
    def _weights(cls, value: Any) -> Any:
        # "0.5,0.5" is what one types; a list is what config.yaml holds.
        if isinstance(value, int | float):
            return (value,)
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("keep", mode="before")
    @classmethod
    def _parts(cls, value: Any) -> Any:
        # "actor,critic" and "none" are what one types; a list is what config.yaml holds.
        if value is None or (isinstance(value, str) and value.lower() in ("none", "")):
            return ()
        parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
        # Sorted, so that the order of typing is no difference between two configurations.
        return tuple(sorted({str(part) for part in parts})) if isinstance(parts, list | tuple) else parts
