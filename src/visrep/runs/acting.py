"""How a vector environment's frames become actions: stacking, random actions, the policy on encoded features.

Shapes: E environments, n of them in one call, S frame stack, C colour channels, H W pixels, A action, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visrep.encoders.contract import Encoder
from visrep.policies.contract import Policy
from visrep.runs.precision import autocast


class FrameStacker:
    """The last S frames of every environment; an episode starts with its first frame repeated S times."""

    def __init__(self, num_envs: int, frame_shape: tuple[int, int, int], stack: int, dtype: str = "uint8") -> None:
        channels, height, width = frame_shape
        self.channels = channels
        self.frames: NDArray[Any] = np.zeros((num_envs, stack * channels, height, width), dtype=dtype)

    def begin(self, lanes: NDArray[np.int64], frames: NDArray[Any]) -> None:
        """Start an episode in ``lanes`` with ``frames`` [n, C, H, W]."""
        self.frames[lanes] = np.tile(frames, (1, self.frames.shape[1] // self.channels, 1, 1))  # [n, S*C, H, W]

    def push(self, lanes: NDArray[np.int64], frames: NDArray[Any]) -> None:
        """Append the newest ``frames`` [n, C, H, W] in ``lanes``."""
        self.frames[lanes, : -self.channels] = self.frames[lanes, self.channels :]
        self.frames[lanes, -self.channels :] = frames

    def state_dict(self) -> dict[str, Any]:
        """The stacked frames, [E, S*C, H, W]."""
        return {"frames": torch.from_numpy(self.frames.copy())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the saved frames."""
        self.frames[:] = state["frames"].numpy()


def random_actions(num_envs: int, action_dim: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Uniform actions in [-1, 1], [E, A]."""
    return generator.uniform(-1.0, 1.0, size=(num_envs, action_dim)).astype(np.float32)


@dataclass(frozen=True)
class Agent:
    """What turns stacked frames into actions.

    Attributes:
        encoder: images to features.
        policy: features to actions.
        prepare: deterministic half of the augmentation (the centre of a crop); None where images are taken as they are.
        device: where the networks are.
        precision: "fp32" or "bf16".
    """

    encoder: Encoder
    policy: Policy
    prepare: Callable[[Tensor], Tensor] | None
    device: torch.device
    precision: Literal["fp32", "bf16"]

    @torch.no_grad()
    def latents(self, stacked: NDArray[Any]) -> Tensor:
        """The encoder's latent images [n, F, H', W'] of stacked frames [n, S*C, H, W], in float32."""
        with autocast(self.device, self.precision):
            return self.encoder.latents(self._images(stacked)).float()

    @torch.no_grad()
    def actions(
        self,
        stacked: NDArray[Any],
        agent_step: int,
        generator: torch.Generator | None = None,
        std: float | None = None,
    ) -> NDArray[np.float32]:
        """Actions [E, A] on stacked frames [E, S*C, H, W]: the policy's evaluation action where ``generator`` is None.

        Args:
            stacked: newest frames of every environment.
            agent_step: what the policy's schedules look at.
            generator: draws the policy's noise.
            std: explore around the policy's mean with this standard deviation instead of the policy's own.
        """
        with autocast(self.device, self.precision):
            features = self.encoder(self._images(stacked))  # [E, D]
            if std is not None:
                action = self.policy.explore(features, std, generator)
            else:
                action = self.policy.act(features, agent_step, sample=generator is not None, generator=generator)
        return np.clip(action.float().cpu().numpy(), -1.0, 1.0)  # [E, A]

    def _images(self, stacked: NDArray[Any]) -> Tensor:
        images = torch.from_numpy(stacked).to(self.device)
        return images if self.prepare is None else self.prepare(images)
