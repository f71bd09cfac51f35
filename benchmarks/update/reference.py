"""The public Proto-RL and DrQ-v2 agents, imported from checkouts that the caller names; nothing of them is kept here.

Packages that the agents import but an update does not need (hydra, gym, omegaconf) are replaced by empty stand-ins.
kornia does Proto-RL's augmentation; without it a stand-in crops by gathering, which is not slower than kornia's.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

ACTION_DIM = 6
OBS_SHAPE = (9, 84, 84)


class _RandomCrop(nn.Module):
    """kornia.augmentation.RandomCrop for images that need no padding."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        count, _, height, width = images.shape
        rows = torch.randint(height - self.size[0] + 1, (count, 1)) + torch.arange(self.size[0])
        columns = torch.randint(width - self.size[1] + 1, (count, 1)) + torch.arange(self.size[1])
        index = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)  # [N, H*W]
        flat = images.flatten(2)
        return flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1)).unflatten(2, self.size)


def _stand_ins() -> dict[str, ModuleType]:
    def module(name: str, **content: Any) -> ModuleType:
        made = ModuleType(name)
        made.__dict__.update(content)
        return made

    instantiate = lambda config: config.cls(**vars(config.params))
    made = {
        "hydra": module("hydra", utils=SimpleNamespace(instantiate=instantiate)),
        "gym": module("gym"),
        "omegaconf": module("omegaconf", OmegaConf=None),
    }
    try:
        importlib.import_module("kornia")
    except ImportError:
        made["kornia"] = module("kornia", augmentation=SimpleNamespace(RandomCrop=_RandomCrop))
    return made


def crop_implementation() -> str:
    """What cuts the reference's augmented images: kornia with its version, or the stand-in."""
    try:
        return f"kornia {importlib.import_module('kornia').__version__}"
    except ImportError:
        return "stand-in for kornia's RandomCrop"


def load(folder: Path, name: str) -> ModuleType:
    """Import module ``name`` of a checkout; its ``utils`` does not stay in ``sys.modules``."""
    if not (folder / f"{name}.py").exists():
        raise SystemExit(f"{folder} holds no {name}.py: clone the public repository there")
    with mock.patch.dict(sys.modules, _stand_ins()):
        sys.modules.pop("utils", None)
        sys.path.insert(0, str(folder))
        try:
            return importlib.import_module(name)
        finally:
            sys.path.remove(str(folder))


def proto_agent(folder: Path) -> Any:
    """Proto-RL's agent with the settings of its config.yaml, exploration phase, on the CPU."""
    proto = load(folder, "proto")
    config = lambda cls, **params: SimpleNamespace(cls=cls, params=SimpleNamespace(**params))
    heads = {"feature_dim": 50, "action_shape": (ACTION_DIM,), "hidden_dim": 1024, "hidden_depth": 2}
    return proto.ProtoAgent(
        obs_shape=OBS_SHAPE,
        action_shape=(ACTION_DIM,),
        action_range=(-1.0, 1.0),
        device=torch.device("cpu"),
        encoder_cfg=config(proto.Encoder, obs_shape=OBS_SHAPE, proj_dim=128),
        critic_cfg=config(proto.Critic, **heads),
        actor_cfg=config(proto.Actor, log_std_bounds=(-10, 2), **heads),
        proto_cfg=config(
            proto.Proto, proj_dim=128, pred_dim=512, T=0.1, num_protos=512, num_iters=3, topk=3, queue_size=2048
        ),
        discount=0.99,
        init_temperature=0.1,
        lr=1e-4,
        actor_update_frequency=2,
        critic_target_tau=0.01,
        critic_target_update_frequency=2,
        encoder_target_tau=0.05,
        encoder_update_frequency=2,
        batch_size=512,
        task_agnostic=True,
        intr_coef=0.2,
        num_seed_steps=1000,
    )


def drqv2_agent(folder: Path) -> Any:
    """DrQ-v2's agent with the settings of its medium tier, without TensorBoard metrics, on the CPU."""
    return load(folder, "drqv2").DrQV2Agent(
        obs_shape=OBS_SHAPE,
        action_shape=(ACTION_DIM,),
        device=torch.device("cpu"),
        lr=1e-4,
        feature_dim=50,
        hidden_dim=1024,
        critic_target_tau=0.01,
        num_expl_steps=2000,
        update_every_steps=1,
        stddev_schedule="linear(1.0,0.1,500000)",
        stddev_clip=0.3,
        use_tb=False,
    )


class Replay:
    """Stands in for both references' replay: the same batch every time, as their buffers hand it over."""

    def __init__(self, obs: Tensor, action: Tensor, reward: Tensor, discount: Tensor, next_obs: Tensor) -> None:
        self.obs, self.action, self.reward, self.discount, self.next_obs = obs, action, reward, discount, next_obs

    def __len__(self) -> int:
        return 1_000_000

    def sample(self, batch_size: int, discount: float) -> tuple[Tensor, ...]:
        """Proto-RL's buffer converts to float on the device."""
        return self.obs.float(), self.action, self.reward, self.next_obs.float(), self.discount

    def __next__(self) -> tuple[Tensor, ...]:
        """DrQ-v2's loader."""
        return self.obs, self.action, self.reward, self.discount, self.next_obs


@contextmanager
def given_draws(agent: Any, normals: list[Tensor], candidates: Tensor) -> Iterator[list[float]]:
    """Hand the given draws to the agent and collect the value of every loss it back-propagates, in order."""
    losses: list[float] = []
    waiting = list(normals)
    backward = Tensor.backward

    def recording(self: Tensor, *args: Any, **kwargs: Any) -> None:
        losses.append(float(self.detach()))
        backward(self, *args, **kwargs)

    def normal(shape: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
        return waiting.pop(0).clone()

    patches = [
        mock.patch.object(Tensor, "backward", recording),
        mock.patch("torch.distributions.normal._standard_normal", normal),
        mock.patch("torch.distributions.Categorical.sample", lambda self, *_: candidates),
    ]
    utils = agent.update.__func__.__globals__["utils"]
    if hasattr(utils, "_standard_normal"):  # DrQ-v2's distribution imports the name
        patches.append(mock.patch.object(utils, "_standard_normal", normal))
    for patch in patches:
        patch.start()
    try:
        yield losses
    finally:
        for patch in patches:
            patch.stop()
