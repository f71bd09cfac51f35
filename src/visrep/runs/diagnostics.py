"""What a metrics row says about the representation, besides what the updates themselves report."""

from __future__ import annotations

import numpy as np
import torch

from visrep.data.sampler import Sampler
from visrep.probes.ranks import effective_rank
from visrep.runs.interact import Rig
from visrep.runs.update import encode

RANK_IMAGES = 256


def write_metrics(rig: Rig) -> None:
    """Write one metrics row: what the monitor collected, the features' rank, the objective's own diagnostics."""
    extra: dict[str, float] = _look(rig)
    if rig.counters.updates and rig.store.transitions >= 2 * RANK_IMAGES:  # n-step anchors are fewer than transitions
        extra |= _representation_metrics(rig)
    if rig.counters.updates and rig.learner.representation is not None:
        extra["repr_lr"] = rig.learner.representation.next_rate
    rig.monitor.write_metrics(extra)


def _look(rig: Rig) -> dict[str, float]:
    """The live probe, where it is due while the encoder is being trained; a warning goes to the log and the user."""
    updates = rig.counters.updates
    if not updates or rig.learner.encoder_gradient == "none" or not rig.watch.due(updates):
        return {}
    values, warning = rig.watch.look(rig.learner.encoder, updates)
    if warning is not None:
        rig.monitor.warn(warning)
    return values


@torch.no_grad()
def _representation_metrics(rig: Rig) -> dict[str, float]:
    """Feature rank on images drawn by a generator that is made anew each time: the run's own streams stay untouched."""
    spec_sampler = Sampler(
        rig.store,
        rig.sampler.spec,
        batch_size=RANK_IMAGES,
        frame_stack=rig.sampler.frame_stack,
        discount=rig.sampler.discount,
        generator=np.random.default_rng(rig.counters.agent_step),
    )
    features = encode(rig.learner, rig.prepared(spec_sampler.sample().to(rig.device).image(0))).float()
    values = {"feature_rank": float(effective_rank(features))}
    if rig.learner.objective is not None:
        values |= {name: float(value) for name, value in rig.learner.objective.diagnostics().items()}
    return values
