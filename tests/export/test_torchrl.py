"""TorchRL itself: keys, leading dimensions, its transforms of images, its target networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from export_tools import SIZE, encoder_of, weights_equal
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torchrl.data import OneHot
from torchrl.envs import Compose, GymWrapper, TransformedEnv
from torchrl.envs.transforms import CatFrames, PermuteTransform, ToTensorImage
from torchrl.modules import QValueActor
from torchrl.objectives import DQNLoss, SoftUpdate

import visrep
from visrep.errors import UserError
from visrep.export.frames import ChannelsFirst
from visrep.export.torchrl import VisrepFeatures


@pytest.mark.parametrize("leading", [(), (5,), (5, 1), (1, 5, 1)])
def test_any_leading_dimensions(leading: tuple[int, ...], encoder_file: Path, images: torch.Tensor) -> None:
    pixels = images[0] if leading == () else images.view(*leading, *images.shape[1:])
    data = VisrepFeatures(encoder_file)(TensorDict({"pixels": pixels}, leading))
    expected = encoder_of("proto")(images)
    assert data["features"].shape == (*leading, expected.shape[1])
    flat = data["features"].view(-1, expected.shape[1])
    torch.testing.assert_close(flat, expected[: len(flat)])


def test_other_keys(encoder_file: Path, images: torch.Tensor) -> None:
    module = VisrepFeatures(encoder_file, in_key="camera", out_key="seen")
    assert module.in_keys == ["camera"] and module.out_keys == ["seen"]
    assert torch.equal(module(TensorDict({"camera": images}, [5]))["seen"], encoder_of("proto")(images))


def test_on_an_environment_with_torchrls_own_stacking(encoder_file: Path) -> None:
    """CatFrames puts the oldest frame first and repeats the first one, as visrep does."""
    env = TransformedEnv(
        GymWrapper(visrep.make_env("toy/maze_center", image_size=SIZE)),
        Compose(PermuteTransform((-1, -3, -2), in_keys=["pixels"]), CatFrames(N=3, dim=-3, in_keys=["pixels"])),
    )
    ours = ChannelsFirst(visrep.make_env("toy/maze_center", image_size=SIZE, frame_stack=3))
    env.set_seed(4)
    ours.reset(seed=4)
    data, expected = env.reset(), [ours.reset()[0]]
    stacks = [data["pixels"]]
    for _ in range(4):
        data["action"] = torch.tensor([1.0, 0.5])
        data = env.step(data)["next"]
        stacks.append(data["pixels"])
        expected.append(ours.step(np.array([1.0, 0.5]))[0])
    frames = torch.stack(stacks)
    assert torch.equal(frames, torch.from_numpy(np.stack(expected)))
    assert not torch.equal(frames[3, :3], frames[3, -3:]), "a still picture proves nothing"

    rollout = env.rollout(3)
    features = VisrepFeatures(encoder_file)(rollout)["features"]
    assert torch.equal(features, encoder_of("proto")(rollout["pixels"]))


@pytest.mark.parametrize("frozen", [True, False])
def test_losses_and_target_networks(frozen: bool, encoder_file: Path, images: torch.Tensor) -> None:
    original = encoder_of("proto")
    net = TensorDictSequential(
        VisrepFeatures(encoder_file, frozen=frozen),
        TensorDictModule(torch.nn.Linear(original.feature_dim, 3), in_keys=["features"], out_keys=["action_value"]),
    )
    actor = QValueActor(net, in_keys=["pixels"], spec=OneHot(3))
    loss = DQNLoss(actor, action_space="one_hot", delay_value=True)
    loss.make_value_estimator(gamma=0.9)
    updater = SoftUpdate(loss, eps=0.995)
    optimiser = torch.optim.Adam(loss.parameters(), 1e-2)
    following = {"pixels": images, "reward": torch.ones(5, 1), "done": torch.zeros(5, 1, dtype=torch.bool)}
    following["terminated"] = following["done"]
    action = torch.nn.functional.one_hot(torch.arange(5) % 3, 3)
    for _ in range(20):
        data = TensorDict({"pixels": images, "action": action, "next": following}, [5])
        optimiser.zero_grad()
        loss(data)["loss"].backward()
        optimiser.step()
        updater.step()
    encoder = actor.module[0].module[0].module.encoder.encoder
    assert weights_equal(encoder, original) is frozen
    assert len(list(loss.parameters())) == (2 if frozen else 2 + len(list(original.parameters())))


def test_divided_images_are_refused(encoder_file: Path, images: torch.Tensor) -> None:
    divided = ToTensorImage(in_keys=["pixels"])(TensorDict({"pixels": images.permute(0, 2, 3, 1)}, [5]))
    assert divided["pixels"].shape == images.shape and divided["pixels"].max() <= 1
    with pytest.raises(UserError, match=r"of float32, but .* rather than ToTensorImage, which divides by 255"):
        VisrepFeatures(encoder_file)(divided)


def test_other_shapes_are_refused(encoder_file: Path, images: torch.Tensor) -> None:
    with pytest.raises(UserError, match=r"\[5, 3, 40, 40\] of uint8.*takes uint8 images \[9, 40, 40\]"):
        VisrepFeatures(encoder_file)(TensorDict({"pixels": images[:, :3]}, [5]))


def test_vectors_come_with_or_without_pixels(vector_file: Path) -> None:
    module, values = VisrepFeatures(vector_file, in_key="observation"), torch.randn(2, 3, 15)
    for given in (values, values[..., None, None]):
        assert torch.equal(module(TensorDict({"observation": given}, [2, 3]))["features"], values)
    with pytest.raises(UserError, match=r"\[2, 3, 14\] of float32, but the encoder takes float numbers \[15, 1, 1\]"):
        module(TensorDict({"observation": values[..., :14]}, [2, 3]))
