"""Stable-Baselines3 itself: what it does to images, extractors and their copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from export_tools import SIZE, encoder_of, weights_equal
from stable_baselines3 import A2C, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecTransposeImage

import visrep
from visrep.encoders import Encoder
from visrep.errors import UserError
from visrep.export.frames import ChannelsFirst
from visrep.export.sb3 import VisrepFeaturesExtractor

OFF_POLICY = {"buffer_size": 400, "learning_starts": 40, "batch_size": 8}
ALGORITHMS: dict[str, tuple[type[BaseAlgorithm], dict[str, Any]]] = {
    "PPO": (PPO, {"n_steps": 50, "batch_size": 25, "n_epochs": 2}),
    "A2C": (A2C, {"n_steps": 10}),
    "SAC": (SAC, OFF_POLICY),
    "TD3": (TD3, OFF_POLICY),
}
STEPS = 200


def arena(frame_stack: int | None = 3) -> gym.Env:
    return ChannelsFirst(visrep.make_env("toy/maze_center", image_size=SIZE, frame_stack=frame_stack))


def model_of(name: str, source: Any, env: Any = None, *, frozen: bool = True, **policy: Any) -> BaseAlgorithm:
    algorithm, settings = ALGORITHMS[name]
    kwargs = {
        "features_extractor_class": VisrepFeaturesExtractor,
        "features_extractor_kwargs": {"encoder": source, "frozen": frozen},
        "net_arch": [16],
        **policy,
    }
    return algorithm("CnnPolicy", env or arena(), policy_kwargs=kwargs, seed=0, device="cpu", **settings)


def extractors(model: BaseAlgorithm) -> dict[str, VisrepFeaturesExtractor]:
    """Every extractor of the policy, by name; shared ones appear once."""
    found = {k: m for k, m in model.policy.named_modules() if isinstance(m, VisrepFeaturesExtractor)}
    assert found
    return found


def features_of(model: BaseAlgorithm, extractor: VisrepFeaturesExtractor, images: torch.Tensor) -> torch.Tensor:
    policy = model.policy
    observation = policy.obs_to_tensor(images.numpy())[0]
    return extractor(preprocess_obs(observation, policy.observation_space, normalize_images=policy.normalize_images))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_frozen_weights_stay_bit_identical(name: str, encoder_file: Path, images: torch.Tensor) -> None:
    original = encoder_of("proto")
    model = model_of(name, encoder_file)
    before = {k: v.clone() for k, v in model.policy.state_dict().items()}
    for trained in (False, True):
        if trained:
            model.learn(STEPS)
        for key, extractor in extractors(model).items():
            assert weights_equal(extractor.encoder.encoder, original), (key, trained)
            assert torch.equal(features_of(model, extractor, images), original(images)), (key, trained)
    moved = {k for k, v in model.policy.state_dict().items() if not torch.equal(v, before[k])}
    assert moved and not any("extractor.encoder" in key for key in moved)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_fine_tuning_starts_from_the_encoder_and_learns(name: str, encoder_file: Path) -> None:
    original = encoder_of("proto")
    model = model_of(name, encoder_file, frozen=False)
    assert all(weights_equal(extractor.encoder.encoder, original) for extractor in extractors(model).values())
    model.learn(STEPS)
    assert not any(weights_equal(extractor.encoder.encoder, original) for extractor in extractors(model).values())


def test_separate_extractors_for_actor_and_critic_are_safe_too(encoder_file: Path) -> None:
    model = model_of("PPO", encoder_file, frozen=False, share_features_extractor=False)
    found = extractors(model)
    assert len({id(extractor) for extractor in found.values()}) == 2
    assert all(weights_equal(extractor.encoder.encoder, encoder_of("proto")) for extractor in found.values())


def test_ppo_destroys_an_unprotected_extractor() -> None:
    """The library's trap itself: if this fails one day, the protection has become needless."""

    class Plain(BaseFeaturesExtractor):
        def __init__(self, space: gym.Space) -> None:
            encoder = encoder_of("proto")
            super().__init__(space, encoder.feature_dim)
            self.encoder = encoder

        def forward(self, observations: torch.Tensor) -> torch.Tensor:
            return self.encoder(observations * 255)

    model = PPO("CnnPolicy", arena(), policy_kwargs={"features_extractor_class": Plain}, device="cpu")
    assert not weights_equal(model.policy.features_extractor.encoder, encoder_of("proto"))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_divided_or_not_the_features_are_the_same(
    name: str, normalize: bool, encoder_file: Path, images: torch.Tensor
) -> None:
    model = model_of(name, encoder_file, normalize_images=normalize)
    # Nearly black, black and white, and one grey for every byte: what a guess from the values would get wrong.
    grey = torch.arange(256, dtype=torch.uint8).repeat(9 * SIZE * SIZE)[: 9 * SIZE * SIZE].view(1, 9, SIZE, SIZE)
    for batch in (images, images // 128, (images > 127).byte() * 255, grey):
        for extractor in extractors(model).values():
            assert extractor.divided is normalize
            assert torch.equal(features_of(model, extractor, batch), encoder_of("proto")(batch))


def test_outside_of_a_policy_the_scale_must_be_said(encoder_file: Path, images: torch.Tensor) -> None:
    space = arena().observation_space
    with pytest.raises(UserError, match="pass normalize_images=True or False"):
        VisrepFeaturesExtractor(space, encoder_file)
    expected = encoder_of("proto")(images)
    whole = VisrepFeaturesExtractor(space, encoder_file, normalize_images=False)
    divided = VisrepFeaturesExtractor(space, encoder_file, normalize_images=True)
    assert torch.equal(whole(images.float()), expected) and torch.equal(divided(images / 255), expected)


def test_contradicting_the_policy_is_refused(encoder_file: Path) -> None:
    kwargs = {"encoder": encoder_file, "normalize_images": False}
    with pytest.raises(UserError, match="its policy has normalize_images=True: leave it out"):
        model_of("PPO", encoder_file, features_extractor_kwargs=kwargs)


@pytest.mark.parametrize("name", ["PPO", "SAC"])
@pytest.mark.parametrize("frozen", [True, False])
def test_saving_and_loading(name: str, frozen: bool, encoder: Encoder, images: torch.Tensor, tmp_path: Path) -> None:
    """With an encoder for source, the saved model needs no other file."""
    model = model_of(name, encoder, frozen=frozen)
    model.learn(100)
    model.save(tmp_path / "model.zip")
    again = type(model).load(tmp_path / "model.zip", env=arena(), device="cpu")
    for old, new in zip(extractors(model).values(), extractors(again).values(), strict=True):
        assert weights_equal(old.encoder.encoder, new.encoder.encoder)
    for image in images.numpy():
        np.testing.assert_array_equal(
            model.predict(image, deterministic=True)[0], again.predict(image, deterministic=True)[0]
        )
    again.learn(60)


def test_loading_a_model_whose_encoder_file_is_gone_says_so(encoder_file: Path, tmp_path: Path) -> None:
    model_of("PPO", encoder_file).save(tmp_path / "model.zip")
    encoder_file.unlink()
    with pytest.raises(UserError, match=r"encoder\.safetensors does not exist"):
        PPO.load(tmp_path / "model.zip")


@pytest.mark.parametrize("channels_first", [True, False])
def test_frames_of_vecframestack_are_oldest_first(channels_first: bool, encoder_file: Path) -> None:
    """Against the frames that visrep stacks itself, once an episode is as old as the stack."""
    single = lambda: visrep.make_env("toy/maze_center", image_size=SIZE)
    frames = VecFrameStack(DummyVecEnv([lambda: ChannelsFirst(single()) if channels_first else single()]), 3)
    ours = arena()
    model = model_of("PPO", encoder_file, frames)
    assert (model.get_env() is frames) is channels_first, "channels last: the library transposes"
    env = frames if channels_first else VecTransposeImage(frames)
    env.seed(5)
    env.reset()
    ours.reset(seed=5)
    action = np.array([1.0, 0.5], dtype=np.float32)
    for _ in range(4):
        stacked, theirs = env.step(action[None])[0][0], ours.step(action)[0]
    assert not np.array_equal(theirs[:3], theirs[-3:]), "a still picture proves nothing"
    np.testing.assert_array_equal(stacked, theirs)


@pytest.mark.parametrize(
    ("space", "says"),
    [
        (gym.spaces.Box(0, 255, (3, SIZE, SIZE), np.uint8), r"takes images \[9, 40, 40\]: 3 frames of 3 channels"),
        (gym.spaces.Box(0, 255, (3, SIZE, SIZE, 3), np.uint8), "ChannelsFirst.*image_size=40, frame_stack=3"),
        (gym.spaces.Box(0, 255, (9, 84, 84), np.uint8), "VecFrameStack with n_stack=3"),
        (gym.spaces.Discrete(4), r"Discrete\(4\) does not fit"),
        (gym.spaces.Box(0.0, 1.0, (9, SIZE, SIZE), np.float32), r"bounds 0.0..1.0.*Leave the scaling"),
    ],
)
def test_spaces_that_do_not_fit_are_refused(space: gym.Space, says: str, encoder_file: Path) -> None:
    with pytest.raises(UserError, match=says):
        VisrepFeaturesExtractor(space, encoder_file, normalize_images=True)


def test_vectors_of_another_width_are_refused(vector_file: Path) -> None:
    space = gym.spaces.Box(-np.inf, np.inf, (14,), np.float32)
    with pytest.raises(UserError, match=r"does not fit: the encoder takes float numbers \[15, 1, 1\]"):
        VisrepFeaturesExtractor(space, vector_file, normalize_images=False)


def test_channels_first_takes_images_alone() -> None:
    with pytest.raises(UserError, match="ChannelsFirst takes uint8 images"):
        ChannelsFirst(gym.make("CartPole-v1"))
    one = visrep.make_env("toy/maze", image_size=SIZE)
    frame = one.reset(seed=1)[0]
    np.testing.assert_array_equal(ChannelsFirst(one).reset(seed=1)[0], frame.transpose(2, 0, 1))
