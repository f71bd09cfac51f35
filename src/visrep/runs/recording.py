"""What of a step goes into the replay store: the frame itself, or the frozen encoder's latent image of it.

Shapes: n lanes, C colour channels, H W pixels, F H' W' latent image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visrep.runs.acting import Agent, FrameStacker


@dataclass(frozen=True)
class Recorder:
    """Gives the rows' frames. Latents are made once, from the stack as the policy sees it, not augmented.

    Attributes:
        agent: None keeps frames; an agent whose encoder is frozen keeps its latents in their place.
        dtype: NumPy name of stored latents.
    """

    agent: Agent | None = None
    dtype: str = "float32"

    def rows(self, stacker: FrameStacker, lanes: NDArray[np.int64], frames: NDArray[Any]) -> NDArray[Any]:
        """What to store for ``lanes`` [n], whose newest frames [n, C, H, W] the stacker already holds."""
        if self.agent is None:
            return frames
        return self.agent.latents(stacker.frames[lanes]).cpu().numpy().astype(self.dtype)  # [n, F, H', W']
