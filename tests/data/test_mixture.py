"""Several stores in one batch."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from histories import SPEC, History, fill
from scipy.stats import binomtest

from visrep.data.actions import ActionSpec
from visrep.data.batch import BatchSpec
from visrep.data.mixture import MixedSampler
from visrep.data.sampler import Sampler
from visrep.data.store import FrameStore, StoreSpec
from visrep.errors import UserError

FIELDS = frozenset({"image", "action", "reward", "state"})
NAMES = ["data/cup", "data/walker"]


def filled(seed: int, rows: int = 60) -> FrameStore:
    store = FrameStore(SPEC, rows, 2)
    fill(store, History(2, seed, (5, 20)), rows)
    return store


def mixed(spec: BatchSpec, weights: list[float], batch: int = 16, seed: int = 0) -> MixedSampler:
    samplers = [Sampler(filled(s), spec, batch, 2, generator=np.random.default_rng(10 * seed + s)) for s in (1, 2)]
    return MixedSampler(samplers, weights, NAMES, np.random.default_rng(seed))


def sources(images: torch.Tensor) -> np.ndarray:
    """The seed of the history that each sample's newest frame came from; it is written into the frame."""
    flat = np.ascontiguousarray(images[:, -2:].numpy()).reshape(len(images), -1)
    return flat.view(np.int32)[:, 2]


def test_every_sample_equals_one_of_its_own_store() -> None:
    spec = BatchSpec((0, 1), FIELDS, n_step=2, image_offsets=(0, 2), crossing="mask")
    mixture = mixed(spec, [1.0, 3.0])
    again = mixed(spec, [1.0, 3.0])
    for _ in range(5):
        batch = mixture.sample()
        counts = again.generator.multinomial(16, [0.25, 0.75])
        parts = [s.cut(*s.anchors.draw(s.generator, n)) for s, n in zip(again.samplers, counts.tolist()) if n]
        assert torch.equal(batch.images[0], torch.cat([p.images[0] for p in parts]))
        assert torch.equal(batch.image(2), torch.cat([p.image(2) for p in parts]))
        for name in FIELDS - {"image"}:
            assert torch.equal(batch.fields[name], torch.cat([p.fields[name] for p in parts]))
        assert torch.equal(batch.valid, torch.cat([p.valid for p in parts]))
        assert batch.n_step_return is not None and batch.n_step_discount is not None
        assert batch.n_step_return.shape == batch.n_step_discount.shape == (16, 1)
        assert sources(batch.image(0)).tolist() == [1] * counts[0] + [2] * counts[1]


def test_the_weights_decide_how_often_a_store_is_drawn() -> None:
    mixture = mixed(BatchSpec(), [1.0, 3.0])
    drawn = np.concatenate([sources(mixture.sample().image(0)) for _ in range(300)])
    assert binomtest(int((drawn == 2).sum()), len(drawn), 0.75).pvalue > 1e-3
    assert binomtest(int((drawn == 2).sum()), len(drawn), 0.70).pvalue < 1e-3  # the test can fail


def test_held_batches_stay_and_the_state_continues_the_sequence() -> None:
    mixture = mixed(BatchSpec(), [1.0, 1.0])
    mixture.sample()
    state = json.loads(json.dumps(mixture.state_dict()))
    held = [mixture.sample().image(0) for _ in range(8)]
    other = mixed(BatchSpec(), [1.0, 1.0], seed=5)
    other.load_state_dict(state)
    assert all(torch.equal(images, other.sample().image(0)) for images in held)


def test_unfit_stores_and_weights_are_refused() -> None:
    def one(store_spec: StoreSpec, spec: BatchSpec) -> Sampler:
        return Sampler(FrameStore(store_spec, 10), spec, 4, 2)

    image, action = BatchSpec(), BatchSpec(fields=frozenset({"image", "action"}))
    small, large = StoreSpec((3, 64, 64), ActionSpec(2)), StoreSpec((3, 84, 84), ActionSpec(2))
    with pytest.raises(UserError, match=r"different images.*data/cup has 3 x 64 x 64 uint8, data/walker has 3 x 84 x"):
        MixedSampler([one(small, image), one(large, image)], [1, 1], NAMES)
    latent = StoreSpec((3, 64, 64), ActionSpec(2), frame_dtype="float16")
    with pytest.raises(UserError, match="64 uint8, data/walker has 3 x 64 x 64 float16"):
        MixedSampler([one(small, image), one(latent, image)], [1, 1], NAMES)
    wide = StoreSpec((3, 64, 64), ActionSpec(6))
    with pytest.raises(UserError, match=r"different actions.*dim=2.*dim=6.*objective without actions"):
        MixedSampler([one(small, action), one(wide, action)], [1, 1], NAMES)
    assert MixedSampler([one(small, image), one(wide, image)], [1, 1], NAMES).batch_size == 4
    states = [StoreSpec((3, 64, 64), None, {"state": (n,)}) for n in (3, 4)]
    with pytest.raises(UserError, match=r"different state cannot be mixed: data/cup has \(3,\)"):
        MixedSampler([one(s, BatchSpec(fields=frozenset({"state"}))) for s in states], [1, 1], NAMES)
    for weights in ([1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")]):
        with pytest.raises(UserError, match="2 stores need as many positive weights"):
            MixedSampler([one(small, image), one(small, image)], weights, NAMES)
    with pytest.raises(ValueError, match="equal specs"):
        MixedSampler([one(small, image), one(small, action)], [1, 1], NAMES)
    with pytest.raises(UserError, match=r"data/(cup|walker): batch larger than data"):
        MixedSampler([one(small, image), one(small, image)], [1, 1], NAMES).sample()
