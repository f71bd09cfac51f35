"""One batch of images through every form of an encoder gives the same features."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import gymnasium as gym
import numpy as np
import onnxruntime
import pytest
import torch
from export_tools import CONV_KINDS, encoder_of
from stable_baselines3 import PPO
from tensordict import TensorDict

import visrep
from visrep.encoders import ENCODERS, InputContract, build_encoder
from visrep.export.onnx import export_onnx
from visrep.export.sb3 import VisrepFeaturesExtractor
from visrep.export.standalone import export_standalone
from visrep.export.torchrl import VisrepFeatures
from visrep.network_files import save_encoder


def standalone_features(file: Path, out: Path, images: torch.Tensor) -> torch.Tensor:
    spec = importlib.util.spec_from_file_location("standalone_encoder", export_standalone(file, out) / "encoder.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    features: torch.Tensor = module.load()(images)
    return features


class Images(gym.Env):
    """An environment whose observations have the images' shape; nothing of it is played."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.observation_space = gym.spaces.Box(0, 255, shape, np.uint8)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)


class Numbers(Images):
    """One whose observations are floats."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, shape, np.float32)


def sb3_features(file: Path, images: torch.Tensor, frozen: bool, normalize_images: bool) -> torch.Tensor:
    kwargs = {
        "features_extractor_class": VisrepFeaturesExtractor,
        "features_extractor_kwargs": {"encoder": file, "frozen": frozen},
        "normalize_images": normalize_images,
        "net_arch": [8],
    }
    model = PPO("CnnPolicy", Images(tuple(images.shape[1:])), policy_kwargs=kwargs, device="cpu")
    features = model.policy.extract_features(model.policy.obs_to_tensor(images.numpy())[0])
    assert features.requires_grad is not frozen
    return features.detach()


@pytest.mark.parametrize("kind", CONV_KINDS)
@torch.no_grad()
def test_the_same_features_by_five_routes(kind: str, images: torch.Tensor, tmp_path: Path) -> None:
    file = tmp_path / "encoder.safetensors"
    original = encoder_of(kind)
    save_encoder(original, file, {})
    expected = original(images)
    assert expected.std() > 0.01, "features that do not vary prove nothing"

    assert torch.equal(visrep.load_encoder(file)(images), expected)
    assert torch.equal(standalone_features(file, tmp_path / "alone", images), expected)
    with torch.enable_grad():
        for frozen in (True, False):
            for normalize in (True, False):
                assert torch.equal(sb3_features(file, images, frozen, normalize), expected), (frozen, normalize)
    for frozen in (True, False):
        data = VisrepFeatures(file, frozen=frozen)(TensorDict({"pixels": images}, [len(images)]))
        assert torch.equal(data["features"], expected)

    session = onnxruntime.InferenceSession(export_onnx(file, tmp_path / "encoder.onnx"))
    (features,) = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", ["vector", "latent"])
def test_numbers_of_any_size_pass_by_five_routes_too(kind: str, tmp_path: Path) -> None:
    """The kinds that hand their input through, so that state and pixels can be compared in the same code."""
    contract = (
        InputContract(1, 1, channels=7, stack=2) if kind == "vector" else InputContract(3, 4, channels=8, stack=1)
    )
    file = tmp_path / "encoder.safetensors"
    save_encoder(build_encoder(kind, contract), file, {})
    values = 1000 * torch.randn(5, *contract.shape, generator=torch.Generator().manual_seed(1))
    expected = values.flatten(1)

    assert torch.equal(visrep.load_encoder(file)(values), expected)
    assert torch.equal(standalone_features(file, tmp_path / "alone", values), expected)
    for shape in (contract.shape, contract.shape[:1]) if kind == "vector" else (contract.shape,):
        policy = {
            "features_extractor_class": VisrepFeaturesExtractor,
            "features_extractor_kwargs": {"encoder": file},
            "net_arch": [8],
        }
        model = PPO("MlpPolicy", Numbers(shape), policy_kwargs=policy, device="cpu")
        observed = model.policy.obs_to_tensor(values.view(5, *shape).numpy())[0]
        assert torch.equal(model.policy.extract_features(observed), expected)
    data = VisrepFeatures(file)(TensorDict({"pixels": values}, [len(values)]))
    assert torch.equal(data["features"], expected)
    session = onnxruntime.InferenceSession(export_onnx(file, tmp_path / "encoder.onnx"))
    np.testing.assert_array_equal(session.run(None, {"images": values.numpy()})[0], expected)


def test_every_kind_is_tried() -> None:
    assert set(ENCODERS) == {*CONV_KINDS, "vector", "latent"} and {"proto", "atc", "atari", "dmlab"} <= set(CONV_KINDS)
