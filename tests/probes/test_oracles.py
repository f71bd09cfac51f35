"""Codes whose scores are known beforehand get them: the true state, chance, other rows' features, one frame alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from probe_tools import (
    Through,
    chance,
    constant,
    episode_mark,
    judged,
    make_store,
    position,
    probes_of,
    random_normal,
    report_of,
    waves,
    whole_state,
)
from torch import Tensor

from visrep.data.store import FrameStore
from visrep.probes import table
from visrep.probes.codes import EncoderCode, Seen
from visrep.probes.data import ProbeData
from visrep.probes.ranks import effective_rank
from visrep.probes.run import SAMPLES

READOUTS = ("state", "state_mlp", "state_knn")


def mean(found: dict[str, Any]) -> float:
    return float(found["mean"]["point"])


def test_the_identity_code_scores_as_it_must() -> None:
    """The true state as code: everything that depends on it is read out, and it equals the control."""
    report = report_of(make_store(whole_state))
    it = report["codes"][0]["probes"]
    assert mean(it["state"]) > 0.9999
    assert all(factor["point"] > 0.9999 for factor in it["state"]["factors"].values())
    assert mean(it["state_mlp"]) > 0.97 and mean(it["state_knn"]) > 0.9
    assert it["action"]["r2"]["point"] > 0.99  # a = (v' - 0.8 v) / 0.2
    assert it["reward"]["r2"]["point"] > 0.9999
    control = next(code for code in report["codes"] if code["role"] == "state")
    assert mean(control["probes"]["state"]) == pytest.approx(mean(it["state"]), abs=1e-6)
    assert it["geometry"]["features"] == 4


def test_a_rotated_identity_is_as_good() -> None:
    mixed = random_normal(4, 4, seed=3)
    it = probes_of(make_store(whole_state), Through(4, 4, function=lambda v: v @ mixed + 5))
    assert mean(it["state"]) > 0.9999


@pytest.mark.parametrize("show", [chance, constant])
def test_chance_and_a_constant_score_nothing(show: Any) -> None:
    it = probes_of(make_store(show, episodes=40))
    for readout in READOUTS:
        assert -0.6 < mean(it[readout]) < 0.05, readout
    assert abs(it["action"]["r2"]["point"]) < 0.05 and abs(it["reward"]["r2"]["point"]) < 0.1


class Shuffled(EncoderCode):
    """Right features on wrong rows."""

    def features(self, data: ProbeData, offset: int, seen: Seen) -> Tensor:
        found = super().features(data, offset, seen)
        return found[torch.randperm(len(found), generator=torch.Generator().manual_seed(5))]


def test_features_of_other_rows_score_nothing() -> None:
    data = ProbeData(make_store(whole_state, episodes=40), 5_000, 1, 0)
    right, wrong = (
        judged(kind("it", Through(4, 4), "encoder", torch.device("cpu")), data) for kind in (EncoderCode, Shuffled)
    )
    assert mean(right["state"]) > 0.9999
    for readout in READOUTS:
        assert -0.6 < mean(wrong[readout]) < 0.05, readout
    assert abs(wrong["action"]["r2"]["point"]) < 0.1 and wrong["reward"]["r2"]["point"] < 0.05


def test_what_tells_only_the_episode_scores_nothing_because_episodes_are_split() -> None:
    """Within an episode p varies around its start: where rows were split, neighbours would look the answer up."""
    store = make_store(episode_mark, episodes=40, length=30)
    it = probes_of(store)
    assert all(mean(it[readout]) < 0.2 for readout in READOUTS)
    data = ProbeData(store, 5_000, 1, 0)
    assert data.factors is not None
    code, target = next(iter(data.images(1, rows=None))).flatten(1), data.factors.values[:128, :2]
    # The leak exists: rows of the same episodes determine p well (leave one out among the first train rows).
    distance = torch.cdist(code, code) + 1e9 * torch.eye(len(code))
    guess = target[distance.topk(3, largest=False).indices].mean(1)
    looked_up = 1 - (guess - target).square().sum(0) / (target - target.mean(0)).square().sum(0)
    assert float(looked_up.mean()) > 0.4


def test_what_is_there_but_not_linearly_is_found_by_network_and_neighbours() -> None:
    it = probes_of(make_store(waves, episodes=60))
    linear, network = (
        min(it[readout]["factors"][f"state[{i}]"]["point"] for i in (0, 1)) for readout in ("state", "state_mlp")
    )
    assert network > 0.95 and linear < 0.7


def test_velocity_needs_two_frames() -> None:
    it = probes_of(make_store(position, episodes=40), Through(2, 4, stack=2))
    both, single = it["state"]["factors"], it["state_single_frame"]["factors"]
    for name in ("state[0]", "state[1]"):
        assert both[name]["point"] > 0.99 and single[name]["point"] > 0.99
    for name in ("state[2]", "state[3]"):
        assert both[name]["point"] > 0.6 and single[name]["point"] < 0.4
    alone = probes_of(make_store(position, episodes=40))
    assert alone["state_single_frame"] is None and alone["state"]["factors"]["state[2]"]["point"] < 0.4


def test_discrete_actions_are_read_as_classes() -> None:
    report = report_of(make_store(whole_state, classes=4, episodes=30))
    scores = {code["name"]: code["probes"]["action"]["accuracy"]["point"] for code in report["codes"]}
    assert scores["it"] > 0.95 and scores["true state"] > 0.95
    assert 0.15 < scores["constant"] < 0.35
    assert report["dataset"]["discrete_actions"] is True


def test_a_sparse_reward_is_an_event() -> None:
    it, blind = (
        probes_of(make_store(show, reward="sparse", episodes=40))["reward_events"] for show in (whole_state, chance)
    )
    assert it["event"] == "reward = 1" and 0 < it["share"] < 0.3
    assert it["auroc"]["point"] > 0.97 and it["f1"]["point"] > 0.6
    assert 0.3 < blind["auroc"]["point"] < 0.7 and blind["f1"]["point"] < it["f1"]["point"] - 0.2


def sparse_elsewhere(part: str) -> FrameStore:
    """A store whose sparse reward is 0 in all train or test rows."""
    store = make_store(whole_state, reward="sparse", episodes=40)
    data = ProbeData(store, SAMPLES, 1, 0)
    rows = {"train": slice(0, data.split.train), "test": data.split.tests}[part]
    assert 0 < data.reward[rows].sum() < data.reward.sum()
    store.columns["reward"].values[store.rings.positions(data.lanes[rows], data.rows[rows])] = 0
    return store


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.filterwarnings("error")
def test_a_reward_that_one_part_never_sees_is_left_out(part: str) -> None:
    report = report_of(sparse_elsewhere(part))
    assert f"the reward is the same in all {part} rows: neither it nor its events are probed" in report["notes"]
    assert all(code["probes"]["reward"] is code["probes"]["reward_events"] is None for code in report["codes"])
    assert not {"reward R²", "event AUROC", "event F1"} & set(table.rows(report["codes"])[0])
    assert "reward R²" in table.rows(report_of(make_store(reward="sparse", episodes=40))["codes"])[0]


def test_ranks_of_known_codes() -> None:
    spread = random_normal(4, 32, seed=1)
    low = probes_of(make_store(chance, episodes=40), Through(4, 32, function=lambda v: v @ spread))["geometry"]
    assert 2 < low["rankme"] <= 4.01 and low["srank"] <= 4 and low["participation_ratio"] <= 4.0001
    isotropic = probes_of(make_store(chance, episodes=40))["geometry"]
    assert isotropic["rankme"] == pytest.approx(4, rel=0.01) == isotropic["entropy_rank"]
    flat = probes_of(make_store(constant))["geometry"]
    assert flat["rankme"] == pytest.approx(1, abs=0.01) and flat["uniformity"] == pytest.approx(0, abs=1e-9)
    assert effective_rank(random_normal(2_000, 8)).item() == pytest.approx(8, rel=0.01)
