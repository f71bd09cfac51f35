"""The pairs that ATC, AC and ATS take from a store: which frames meet, and which rows count.

The encoder hands the pixels on and the compressor is the identity, so that codes are frames.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from visrep.data.actions import ActionSpec
from visrep.data.sampler import Sampler
from visrep.data.store import FrameStore, StoreSpec
from visrep.encoders.contract import Encoder, InputContract
from visrep.objectives import OBJECTIVES, build_objective

# Episodes of one lane, in rows; the last is not over. A frame holds its row's number.
EPISODES = (4, 1, 6, 2, 5)
SIDE = 2


class Pixels(Encoder):
    contract = InputContract(SIDE, SIDE, channels=1, stack=1)
    feature_dim = SIDE * SIDE

    def features(self, images: Tensor) -> Tensor:
        return images.float().flatten(1)


def store_of_episodes() -> FrameStore:
    store = FrameStore(StoreSpec(frame_shape=(1, SIDE, SIDE), actions=ActionSpec(1), side={}), 64, 1, 0, "ram")
    number = 0
    for episode, length in enumerate(EPISODES):
        for step in range(length):
            ends = step == length - 1 and episode < len(EPISODES) - 1
            store.add(
                np.array([0]),
                np.full((1, 1, SIDE, SIDE), number, np.uint8),
                np.zeros((1, 1), np.float32),
                np.zeros(1, np.float32),
                np.array([step == 0]),
                np.array([False]),
                np.array([ends]),
                {},
            )
            number += 1
    return store


def objective_on_pixels(name: str, **config: Any) -> Any:
    cls = OBJECTIVES[name]
    config |= {"atc_code_dim": SIDE * SIDE}
    objective: Any = build_objective(name, Pixels(), ActionSpec(1), cls.Config(**config))
    for layer in (objective.compressor, objective.target_compressor):
        torch.nn.init.eye_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    return objective


@pytest.mark.parametrize("name", ["atc", "ats"])
@pytest.mark.parametrize(("shift", "segment"), [(1, 1), (3, 1), (2, 3), (3, 2)])
def test_rows_count_while_the_windows_first_episode_lasts(name: str, shift: int, segment: int) -> None:
    objective = objective_on_pixels(name, atc_shift=shift, atc_segment=segment)
    spec = objective.needs()
    sampler = Sampler(store_of_episodes(), spec, batch_size=4, frame_stack=1)
    count = sum(EPISODES)
    batch = sampler.cut(np.zeros(count, np.int64), np.arange(count))
    batch = batch.with_images([batch.images[0]] * spec.views)
    outputs = objective(batch).outputs
    episode = np.repeat(np.arange(len(EPISODES)), EPISODES)
    got = zip(outputs["codes"][:, 0].tolist(), outputs["target_codes"][:, 0].tolist(), outputs["valid"].tolist())
    for t in range(segment):
        for anchor in range(count):
            early, late, valid = next(got)
            positive = anchor + t + shift
            assert valid == (positive < count and episode[positive] == episode[anchor])
            if valid:
                assert (early, late) == (anchor + t, positive)


def test_the_pair_that_ends_an_episode_counts() -> None:
    """Trap T6 with rows: the last observation of an episode of 4 is row 3, and (2, 3) is a pair; (3, 4) is none."""
    objective = objective_on_pixels("atc")
    batch = Sampler(store_of_episodes(), objective.needs(), 4, 1).cut(np.zeros(4, np.int64), np.arange(4))
    assert objective(batch).outputs["valid"].tolist() == [True, True, True, False]


def test_an_episode_shorter_than_the_shift_gives_no_pair() -> None:
    objective = objective_on_pixels("atc", atc_shift=3)
    batch = Sampler(store_of_episodes(), objective.needs(), 4, 1).cut(np.zeros(3, np.int64), np.array([4, 11, 12]))
    loss = objective(batch)
    assert not loss.outputs["valid"].any() and loss.total == 0 and loss.parts["valid_share"] == 0


def test_ac_pairs_each_frame_with_itself_in_the_other_view() -> None:
    objective = objective_on_pixels("ac")
    spec = objective.needs()
    batch = Sampler(store_of_episodes(), spec, 4, 1).cut(np.zeros(18, np.int64), np.arange(18))
    other = batch.with_images([batch.images[0], batch.images[0] + 100])
    outputs = objective(other).outputs
    assert spec.views == 2 and outputs["valid"].all()
    assert torch.equal(outputs["codes"][:, 0], torch.arange(18.0))
    assert torch.equal(outputs["target_codes"][:, 0], torch.arange(18.0) + 100)
