"""Validity masks and returns against the public code of ATC (golden file atc_valid_mask)."""

import numpy as np
import pytest
import torch
from load import cases, load_case
from objective_case import RUNS, Expected

from visrep.data.batch import BatchSpec
from visrep.data.returns import discounted_return, generalised_advantage, n_step_return, valid_steps
from visrep.data.sampler import Sampler
from visrep.data.store import FrameStore, StoreSpec

FILE = "atc_valid_mask"


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", cases(FILE))
def test_against_public_code(case: str, run: str) -> None:
    c = load_case(FILE, case)
    want, meta = Expected(c, run, 5e-6), c["meta"]
    gamma, lambda_, n = float(meta["gamma"]), float(meta["lambda"]), int(meta["n_step"])
    done = torch.from_numpy(c["in"]["done"])
    reward, value, bootstrap = (want.inputs[name] for name in ("reward", "value", "bootstrap"))
    want.check(valid_steps(done).to(want.dtype), "valid")
    want.check(discounted_return(reward, done, bootstrap, gamma), "discounted_return")
    advantage, returns = generalised_advantage(reward, value, done, bootstrap, gamma, lambda_)
    want.check(advantage, "advantage")
    want.check(returns, "gae_return")
    returns, ended = n_step_return(reward, done, n, gamma)
    want.check(returns, "nstep_return")
    np.testing.assert_array_equal(ended.numpy(), c["out"]["nstep_done"])


@pytest.mark.parametrize("case", cases(FILE))
def test_the_samplers_mask_is_the_same(case: str) -> None:
    """Windows cut from a store: an offset is valid exactly where the public mask is 1."""
    c = load_case(FILE, case)
    done = c["in"]["done"]
    steps, columns = done.shape
    store = FrameStore(StoreSpec((1, 1, 1), None, rewards=False), 2 * steps * columns, columns)
    first = np.ones(columns, bool)
    for t in range(steps):
        frames = np.full((columns, 1, 1, 1), t, np.uint8)
        store.add(np.arange(columns), frames, None, None, first, np.zeros(columns), done[t])
        first = done[t]
    sampler = Sampler(store, BatchSpec(tuple(range(steps)), crossing="mask"), columns, 1)
    batch = sampler.cut(np.arange(columns), np.zeros(columns, np.int64))
    np.testing.assert_array_equal(batch.valid.numpy().T, c["out"]["valid"].astype(bool))
