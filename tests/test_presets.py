"""Presets of published agents against the numbers of the papers and their released code, written out here."""

from __future__ import annotations

from typing import Any

import pytest

from visrep.config import parse

Values = dict[str, Any]

# SAC on three stacked frames, the same in rlpyt's, CURL's, RAD's, SAC-AE's and DrQ's code.
SAC: Values = {
    "policy": "sac", "frame_stack": 3, "num_expl_steps": 0, "intr_coef": 0.0, "transfer": "scratch", "discount": 0.99,
    "n_step": 1, "updates_per_agent_step": 1.0, "init_temperature": 0.1, "actor_update_frequency": 2,
    "critic_target_update_frequency": 2, "critic_target_tau": 0.01, "feature_dim": 50, "hidden_dim": 1024,
    "hidden_depth": 2, "log_std_bounds": [-10.0, 2.0], "encoder_channels": 32, "encoder_offset": 0.0,
    "num_eval_episodes": 10,
}  # fmt: skip
# All but DrQ's: parts that count as encoder lag behind less, and the temperature is slow.
SLOW_TEMPERATURE: Values = {"alpha_lr": 1e-4, "alpha_beta1": 0.5, "trunk_target_tau": 0.05, "conv_target_tau": 0.05}
# What SAC-AE began and CURL, RAD and DrQ took over: cheetah for 500,000 env frames.
SAC_AE_FAMILY: Values = SAC | {
    "env": "cheetah_run", "action_repeat": 4, "num_train_steps": 500_000 // 4, "num_random_steps": 1_000,
    "num_seed_steps": 1_000, "seed_actions": "uniform", "time_limits": "bootstrap", "encoder_kind": "proto",
    "alpha_loss": "alpha", "critic_loss_scale": 1.0, "target_action_features": "online", "trunk_init": "orthogonal",
}  # fmt: skip
CROPPED: Values = SAC_AE_FAMILY | SLOW_TEMPERATURE | {
    "image_size": 100, "augment": "crop(84)", "replay_buffer_capacity": 100_000, "lr": 2e-4, "trunk_tanh": False,
    "encoder_init": "delta_orthogonal", "log_density": "sac_ae", "augmentations": 1,
}  # fmt: skip
RIVALS: dict[str, Values] = {
    "curl_dmc": CROPPED | {
        "method": "curl", "encoder_gradient": "both", "batch_size": 512, "repr_lr": 1e-3, "repr_updates": "constant_1",
        "curl_feature_dim": 50, "curl_target_tau": 0.05, "curl_compat": "released",
    },
    "rad_dmc": CROPPED | {"method": "none", "encoder_gradient": "critic", "batch_size": 128},
    "sac_ae_dmc": SAC_AE_FAMILY | SLOW_TEMPERATURE | {
        "method": "sac_ae", "encoder_gradient": "both", "image_size": 84, "augment": "none", "batch_size": 128,
        "lr": 1e-3, "repr_lr": None, "repr_updates": "constant_1", "trunk_tanh": True, "log_density": "sac_ae",
        "encoder_init": "delta_orthogonal", "sac_ae_dim": 50, "latent_penalty": 1e-6, "decoder_weight_decay": 1e-7,
        "decoder_channels": 32, "augmentations": 1,
    },
    "drq_dmc": SAC_AE_FAMILY | {
        "method": "none", "encoder_gradient": "critic", "image_size": 84, "augment": "shift", "shift_pad": 4,
        "batch_size": 512, "lr": 1e-3, "replay_buffer_capacity": 100_000, "augmentations": 2, "trunk_tanh": True,
        "alpha_lr": None, "alpha_beta1": 0.9, "trunk_target_tau": None, "conv_target_tau": 0.01,
        "log_density": "exact",
    },
}  # fmt: skip
ATC: Values = SAC | SLOW_TEMPERATURE | {
    "method": "atc", "encoder_gradient": "objective", "encoder_kind": "atc", "encoder_init": "torch", "image_size": 84,
    "augment": "shift", "shift_pad": 4, "replay_buffer_capacity": 100_000, "num_random_steps": 10_000,
    "num_seed_steps": 10_000, "seed_actions": "policy", "seed_action_std": 0.75, "time_limits": "mask",
    "alpha_loss": "log_alpha", "critic_loss_scale": 0.5, "target_action_features": "target", "trunk_tanh": False,
    "trunk_init": "torch", "log_density": "rlpyt", "augmentations": 1, "eval_frequency": 1_000, "repr_lr": 1e-3,
    "repr_warmup": 0, "repr_anneal": "cosine", "repr_grad_clip": 10.0, "repr_batch_size": None, "atc_shift": 1,
    "atc_segment": 1, "atc_code_dim": 128, "atc_hidden_dim": 512, "atc_target_tau": 0.01, "atc_init": "torch",
}  # fmt: skip
# Action repeat, agent steps after the warm-up, lr, batch size, ATC's updates per update of the policy.
ATC_TASKS = {
    "cheetah_run": (4, 250_000, 2e-4, 512, 2),
    "ball_in_cup_catch": (4, 75_000, 1e-3, 256, 1),
    "cartpole_swingup": (8, 37_500, 1e-3, 256, 1),
    "cartpole_swingup_sparse": (8, 125_000, 1e-3, 256, 1),
    "walker_walk": (2, 250_000, 1e-3, 256, 1),
    "hopper_hop": (4, 250_000, 1e-3, 256, 1),
}
ATC_OFFLINE: Values = {
    "method": "atc", "encoder_kind": "atc", "encoder_init": "kaiming", "atc_init": "kaiming", "frame_stack": 3,
    "image_size": 84, "augment": "shift", "shift_pad": 4, "batch_size": 256, "num_repr_updates": 10_000,
    "repr_lr": 1e-3, "repr_warmup": 1_000, "repr_anneal": "cosine", "repr_grad_clip": 10.0, "atc_shift": 1,
    "atc_segment": 1, "atc_code_dim": 128, "atc_hidden_dim": 512, "atc_target_tau": 0.01,
}  # fmt: skip


def of_task(task: str) -> Values:
    repeat, steps, lr, batch_size, updates = ATC_TASKS[task]
    return ATC | {
        "env": task, "action_repeat": repeat, "num_train_steps": 10_000 + steps, "lr": lr, "batch_size": batch_size,
        "repr_updates": f"constant_{updates}",
    }  # fmt: skip


PUBLISHED = RIVALS | {f"atc_{task}": of_task(task) for task in ATC_TASKS} | {"atc_offline": ATC_OFFLINE}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_a_preset_is_as_published(preset: str) -> None:
    published = PUBLISHED[preset]
    values = parse([f"preset={preset}"]).to_dict()
    assert {key: values[key] for key in published} == published
