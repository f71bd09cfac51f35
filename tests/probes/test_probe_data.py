"""Rows to probe on: whole episodes on one side, everything of a row belongs together."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from probe_tools import make_store, position, whole_state

from visrep.errors import UserError
from visrep.probes.data import ProbeData, split_episodes, state_factors


def test_no_episode_lies_on_two_sides() -> None:
    data = ProbeData(make_store(episodes=20, length=30), 10_000, 1, seed=4)
    train, val, test = data.split.train, data.split.vals, data.split.tests
    parts = [set(data.episodes[:train]), set(data.episodes[val]), set(data.episodes[test])]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert data.episode_counts == (14, 2, 4) == tuple(map(len, parts))
    assert data.split.total == len(set(zip(data.lanes.tolist(), data.rows.tolist()))) == 20 * 30
    # An episode of the split is one of the store: 31 rows, of which the first has no row before it.
    steps = data.store.episode_steps[data.store.rings.positions(data.lanes, data.rows)]
    begins = data.rows - steps
    assert all(len(set(begins[data.episodes == episode])) == 1 for episode in set(data.episodes))
    assert len(set(begins)) == 20 and steps.min() == 1


def test_a_row_has_its_own_state_action_reward_and_predecessor() -> None:
    data = ProbeData(make_store(whole_state), 200, 2, seed=0)
    assert data.split.train == 200 and data.action is not None and data.factors is not None
    assert data.factors_before is not None and data.reward is not None
    now, before = data.factors.values, data.factors_before
    torch.testing.assert_close(now[:, 2:], 0.8 * before[:, 2:] + 0.2 * data.action.double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(data.reward, now[:, 0] - 2 * now[:, 3], atol=1e-6, rtol=0)
    shown, earlier = (torch.cat([part.clone() for part in data.images(2, offset)]) for offset in (0, -1))
    torch.testing.assert_close(shown[:, 4:, 0, 0], now.float())  # oldest frame first
    torch.testing.assert_close(shown[:, :4], earlier[:, 4:])
    some = np.array([7, 3])
    torch.testing.assert_close(next(data.images(2, rows=some)), shown[some])


def test_the_draw_depends_on_the_seed_alone() -> None:
    store = make_store()
    one, same, other = (ProbeData(store, 100, 1, seed) for seed in (1, 1, 2))
    assert np.array_equal(one.rows, same.rows) and not np.array_equal(one.rows, other.rows)


def test_a_split_leaves_something_for_each_part() -> None:
    for count in (5, 6, 9, 50):
        train, val, test = split_episodes(np.arange(count) * 7, np.random.default_rng(0))
        assert len(train) and len(val) and len(test) >= 2 and len(train) + len(val) + len(test) == count
    with pytest.raises(UserError, match=r"at least 5, but the data have 4; collect more episodes"):
        ProbeData(make_store(episodes=4), 100, 1, 0)
    with pytest.raises(UserError, match=r"too few rows to probe: 3 for training.*raise samples="):
        ProbeData(make_store(), 3, 1, 0)


def test_angles_are_read_as_sine_and_cosine() -> None:
    state = np.array([[1.0, math.pi / 2], [2.0, math.pi / 2 + 2 * math.pi]])
    values, names = state_factors(state, {"environment": {"state_names": ["x", "pole"], "angles": [1]}})
    assert names == ["x", "sin pole", "cos pole"]
    np.testing.assert_allclose(values, [[1, 1, 0], [2, 1, 0]], atol=1e-12)
    assert state_factors(state, {})[1] == ["state[0]", "state[1]"]
    for wrong in ({"state_names": ["x"]}, {"angles": [2]}):
        with pytest.raises(UserError, match=r"the dataset's state has 2 values"):
            state_factors(state, wrong)


def test_factors_that_hardly_vary_are_no_targets() -> None:
    store = make_store(position)
    store.columns["state"].values[:, 1] = 0.25
    data = ProbeData(store, 100, 1, 0)
    assert data.factors is not None and data.factors.excluded == ["state[1]"]
    assert data.factors.names == ["state[0]", "state[2]", "state[3]"] and data.factors.values.shape[1] == 3
