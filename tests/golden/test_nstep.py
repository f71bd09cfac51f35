"""n-step samples against DrQ-v2's replay buffer (golden file drqv2_nstep.npz)."""

from __future__ import annotations

import numpy as np
import pytest
from compare import scaled_error
from load import cases, load_case

from visrep.data.actions import ActionSpec
from visrep.data.batch import BatchSpec
from visrep.data.sampler import Sampler
from visrep.data.store import FrameStore, StoreSpec

TOLERANCE = 5e-6  # scaled error in float32, from the golden files' description


@pytest.mark.skipif(not cases("drqv2_nstep"), reason="golden arrays absent: set $VISREP_GOLDEN_DIR")
@pytest.mark.parametrize("case", cases("drqv2_nstep"))
def test_nstep_samples(case: str) -> None:
    arrays = load_case("drqv2_nstep", case)
    given, wanted = arrays["in"], arrays["out"]
    n, gamma = int(arrays["meta"]["nstep"]), float(arrays["meta"]["gamma"])
    observation, action, reward = given["observation"], given["action"].copy(), given["reward"].copy()
    action[0], reward[0] = 0, 0  # the dummy row
    rows = len(observation)
    store = FrameStore(StoreSpec((1, 1, 1), ActionSpec(action.shape[1]), {"obs": observation.shape[1:]}), rows + 2)
    for t in range(rows):
        store.add(
            [0], np.full((1, 1, 1, 1), t % 256, np.uint8), action[t : t + 1], reward[t], [t == 0],
            given["discount"][t] == 0, [t == rows - 1], {"obs": observation[t : t + 1]},
        )  # fmt: skip
    # The episode after it must not become reachable.
    black = np.zeros((1, 1, 1, 1), np.uint8)
    store.add([0], black, action[:1], [0], [True], [False], [False], {"obs": observation[:1]})
    fields = frozenset({"image", "action", "obs"})
    sampler = Sampler(store, BatchSpec((0, 1), fields, n_step=n), batch_size=1, frame_stack=1, discount=gamma)
    lanes, anchors = store.rings.locate(sampler.anchors.all())
    index = arrays["rand"]["index"]
    assert anchors.tolist() == sorted(index - 1), "exactly the admissible starts may anchor"
    batch = sampler.cut(lanes[:1].repeat(len(index)), index.astype(np.int64) - 1)
    assert batch.n_step_return is not None and batch.n_step_discount is not None
    assert scaled_error(batch.n_step_return, wanted["reward"]) <= TOLERANCE
    assert scaled_error(batch.n_step_discount, wanted["discount"]) <= TOLERANCE
    np.testing.assert_array_equal(batch.at("obs", 0).numpy(), wanted["obs"])
    np.testing.assert_array_equal(batch.at("action", 1).numpy(), wanted["action"])
    np.testing.assert_array_equal(batch.at("obs", n).numpy(), wanted["next_obs"])
    assert batch.image(n)[:, 0, 0, 0].tolist() == ((index - 1 + n) % 256).tolist()
