"""How a vector environment's frames become actions: stacking, random actions, the policy on encoded features.

Shapes: E environments, n of them in one call, S frame stack, C colour channels, H W pixels, A action, D features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visrep.encoders.contract import Encoder
from visrep.policies.contract import Policy
from visrep.runs.precision import autocast


class FrameStacker:
    """The last S frames of every environment; an episode starts with its first frame repeated S times."""

    def __init__(self, num_envs: int, frame_shape: tuple[int, int, int], stack: int) -> None:
        channels, height, width = frame_shape
        self.channels = channels
        self.frames = np.zeros((num_envs, stack * channels, height, width), dtype=np.uint8)

    def begin(self, lanes: NDArray[np.int64], frames: NDArray[np.uint8]) -> None:
        """Start an episode in ``lanes`` with ``frames`` [n, C, H, W]."""
        self.frames[lanes] = np.tile(frames, (1, self.frames.shape[1] // self.channels, 1, 1))  # [n, S*C, H, W]

    def push(self, lanes: NDArray[np.int64], frames: NDArray[np.uint8]) -> None:
        """Append the newest ``frames`` [n, C, H, W] in ``lanes``."""
        self.frames[lanes, : -self.channels] = self.frames[lanes, self.channels :]
        self.frames[lanes, -self.channels :] = frames

    def state_dict(self) -> dict[str, Any]:
        """The stacked frames, uint8 [E, S*C, H, W]."""
        return {"frames": torch.from_numpy(self.frames.copy())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the saved frames."""
        self.frames[:] = state["frames"].numpy()


def random_actions(num_envs: int, action_dim: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Uniform actions in [-1, 1], [E, A]."""
    return generator.uniform(-1.0, 1.0, size=(num_envs, action_dim)).astype(np.float32)


@torch.no_grad()
def policy_actions(
    encoder: Encoder,
    policy: Policy,
    stacked: NDArray[np.uint8],
    agent_step: int,
    device: torch.device,
    precision: str,
    generator: torch.Generator | None,
) -> NDArray[np.float32]:
    """Actions of the policy on stacked frames [E, S*C, H, W]; its evaluation action where ``generator`` is None."""
    images: Tensor = torch.from_numpy(stacked).to(device)
    with autocast(device, precision):
        features = encoder(images)  # [E, D]
        action = policy.act(features, agent_step, sample=generator is not None, generator=generator)
    return np.clip(action.float().cpu().numpy(), -1.0, 1.0)  # [E, A]
