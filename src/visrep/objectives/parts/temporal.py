"""What ATC, AC and ATS share: an observation's code, and the momentum code of an observation k steps later.

Stooke, Lee, Abbeel, Laskin: "Decoupling Representation Learning from Reinforcement Learning", ICML 2021.
Shapes: B windows, T anchors per window, N = T·B rows (time-major), S frame stack, C colour channels, H W pixels,
D features, E code.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from visrep.data.actions import ActionSpec
from visrep.data.batch import Batch, BatchSpec
from visrep.encoders.contract import Encoder
from visrep.initialisation import initialise
from visrep.objectives.contract import Loss, Objective, ObjectiveConfig
from visrep.objectives.parts.codes import code_statistics
from visrep.objectives.parts.ema import ema_, frozen_copy
from visrep.precision import at_least_float32, without_autocast


class TemporalConfig(ObjectiveConfig):
    """Settings of code and target, ATC's values for DeepMind Control."""

    atc_code_dim: int = Field(128, ge=1, description="dimension of the code (rlpyt: latent_size); Atari and DMLab 256")
    atc_target_tau: float = Field(0.01, ge=0, le=1, description="EMA rate of the target encoder and compressor")
    atc_init: Literal["torch", "kaiming"] = Field(
        "torch", description="initial weights of the compressor: torch's (the paper's runs on line), kaiming (off line)"
    )


class TemporalObjective(Objective):
    """Codes of T anchors per window and momentum codes of their positives; a subclass ``compare``s them."""

    turn: ClassVar[Literal["before policy", "after policy"]] = "after policy"  # as the released code

    def __init__(self, encoder: Encoder, actions: ActionSpec, config: TemporalConfig, shift: int, segment: int) -> None:
        """Make compressor and targets.

        Args:
            encoder: shared.
            actions: not used; the codes are action-free.
            config: settings of code and target.
            shift: k, agent steps from an anchor to its positive.
            segment: T, consecutive anchors of one window.
        """
        super().__init__(encoder, actions)
        self.tau, self.shift, self.segment = config.atc_target_tau, shift, segment
        self.compressor = nn.Linear(encoder.feature_dim, config.atc_code_dim)
        initialise(self.compressor, config.atc_init)
        # The target is encoder and compressor; what compares the codes has no copy.
        self.target_encoder = frozen_copy(encoder)
        self.target_compressor = frozen_copy(self.compressor)

    @property
    def views(self) -> int:
        """Two where one frame is anchor and positive, so that each gets an augmentation of its own."""
        return 2 if self.segment > self.shift else 1

    def needs(self) -> BatchSpec:
        """Windows of T + k observations, masked behind an episode's end; no actions."""
        anchors = range(self.segment)
        offsets = {*anchors, *(t + self.shift for t in anchors)}
        return BatchSpec(offsets=tuple(offsets), views=self.views, crossing="mask")

    def forward(self, batch: Batch) -> Loss:
        """Loss over the rows whose positive lies in the window's first episode."""
        anchors = range(self.segment)
        positives = [t + self.shift for t in anchors]
        features = self.encoder(_join([batch.image(t) for t in anchors]))  # [N, D]
        codes = self.compressor(features)
        with torch.no_grad():
            target_codes = self.target_compressor(
                self.target_encoder(_join([batch.image(t, self.views - 1) for t in positives]))
            )
        valid = _join([batch.valid[:, batch.offsets.index(t)] for t in positives])  # [N]
        codes, target_codes = at_least_float32(codes), at_least_float32(target_codes)
        with without_autocast(codes):
            loss = self.compare(codes, target_codes, valid)
        with torch.no_grad():
            about = code_statistics(features, codes) | {"valid_share": valid.to(codes.dtype).mean()}
        outputs = {"features": features.detach(), "codes": codes.detach(), "target_codes": target_codes, "valid": valid}
        return Loss(loss.total, loss.parts | about, loss.outputs | outputs)

    def compare(self, codes: Tensor, target_codes: Tensor, valid: Tensor) -> Loss:
        """The loss on anchor codes [N, E], codes of their positives [N, E] and bool [N], in float32 or better."""
        raise NotImplementedError

    def after_update(self) -> None:
        """EMA of encoder and compressor with ``atc_target_tau``, after every step."""
        ema_(
            [*self.target_encoder.parameters(), *self.target_compressor.parameters()],
            [*self.encoder.parameters(), *self.compressor.parameters()],
            self.tau,
        )


def _join(times: list[Tensor]) -> Tensor:
    """T tensors [B, ...] to [N, ...], time-major; one tensor is not copied."""
    return times[0] if len(times) == 1 else torch.cat(times)
