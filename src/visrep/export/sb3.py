"""Stable-Baselines3: a features extractor around a pre-trained encoder.

Shapes: B batch, S frame stack, C colour channels, H W pixels, D features.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
from gymnasium import Space, spaces
from torch import Tensor

from visrep.encoders.contract import Encoder, InputContract
from visrep.errors import UserError
from visrep.export.common import accepted_shapes, describe, missing_extra, takes_images
from visrep.export.reuse import ReusedEncoder

try:
    from stable_baselines3.common.policies import BaseModel
    from stable_baselines3.common.preprocessing import is_image_space
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
except ImportError as error:
    raise missing_extra("sb3", error) from error


class VisrepFeaturesExtractor(BaseFeaturesExtractor):
    """``policy_kwargs=dict(features_extractor_class=VisrepFeaturesExtractor, features_extractor_kwargs=...)``.

    What Stable-Baselines3 does to images and extractors, and what becomes of it here:

    - It divides uint8 images by 255 unless the policy says ``normalize_images=False``. The extractor asks the policy
      that builds it, and multiplies by 255 again where that one divides: features are the same, to the bit.
    - PPO and A2C initialise the extractor orthogonally after building it. The encoder's weights stay.
    - Target networks are moving averages, which changes even equal weights, by rounding. Frozen weights are left out.

    Args:
        observation_space: as the policy hands it over, channels first.
        encoder: encoder file, run directory, or an encoder (then the saved model needs no file when it is loaded).
        frozen: keep the weights; otherwise they learn with the policy (fine-tuning).
        normalize_images: only for building one outside of a policy: whether the images will come divided by 255.

    Raises:
        UserError: the space does not fit the encoder's contract; or whether images come divided cannot be known.
    """

    def __init__(
        self,
        observation_space: Space,
        encoder: Encoder | Path | str,
        frozen: bool = True,
        normalize_images: bool | None = None,
    ) -> None:
        reused = ReusedEncoder(encoder, frozen)
        _check_space(observation_space, reused.contract)
        super().__init__(observation_space, reused.feature_dim)
        self.encoder = reused
        self.divided = _normalizes(normalize_images) and is_image_space(observation_space)

    def forward(self, observations: Tensor) -> Tensor:
        """[B, S*C, H, W] as the policy preprocesses them (vectors: [B, S*C]) to [B, D]."""
        # A divided image is whole numbers over 255: rounding gives these numbers back exactly.
        images = (observations * 255.0).round() if self.divided else observations
        images = images.reshape(-1, *self.encoder.contract.shape)
        features: Tensor = self.encoder(images)
        return features


def _check_space(space: Space, contract: InputContract) -> None:
    wanted = f"the encoder takes {describe(contract)}"
    fits = isinstance(space, spaces.Box) and space.shape in accepted_shapes(contract)
    if not takes_images(contract):
        if not fits:
            raise UserError(f"observation space {space} does not fit: {wanted}")
        return
    if not isinstance(space, spaces.Box) or not fits:
        raise UserError(
            f"observation space {space} does not fit: {wanted}. visrep.export.frames.ChannelsFirst(visrep.make_env("
            f"..., image_size={contract.height}, frame_stack={contract.stack})) gives it; so does VecFrameStack with "
            f"n_stack={contract.stack} over frames of that size"
        )
    if np.any(space.low != 0) or np.any(space.high != 255):
        raise UserError(
            f"observation space {space} has bounds {space.low.min()}..{space.high.max()}: {wanted}. Leave the scaling "
            "of images to the encoder"
        )


def _normalizes(stated: bool | None) -> bool:
    """Whether the policy under construction divides images by 255; nothing that it hands over tells."""
    frame = inspect.currentframe()
    while frame is not None:
        builder = frame.f_locals.get("self")
        if isinstance(builder, BaseModel):
            if stated is not None and stated != builder.normalize_images:
                raise UserError(
                    f"normalize_images={stated} was given to the features extractor, but its policy has "
                    f"normalize_images={builder.normalize_images}: leave it out of features_extractor_kwargs"
                )
            return bool(builder.normalize_images)
        frame = frame.f_back
    if stated is None:
        raise UserError(
            "this features extractor is built outside of a Stable-Baselines3 policy, so it cannot see whether images "
            "will be divided by 255: pass normalize_images=True or False"
        )
    return stated
