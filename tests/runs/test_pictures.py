"""Pictures at the end of the reward-free phase: what is drawn, what the numbers are, and that nothing else moves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from visrep.config import parse
from visrep.console import Console
from visrep.data.sampler import Sampler
from visrep.objectives import Transition
from visrep.results.curves import read_rows
from visrep.results.report import report_run
from visrep.runs import pictures, session

WORDS = (
    "preset=toy_maze+tiny", "env=toy/open_center", "image_size=32", "num_expl_steps=640", "num_envs=8",
    "updates_per_agent_step=0.05", "threads=1", "device=cpu", "num_eval_episodes=0", "log_save_tb=false",
    "checkpoint_frequency=100000",
)  # fmt: skip


def pretrain(run_dir: Path, *more: str) -> None:
    keys = {word.partition("=")[0]: word for word in (*WORDS, *more)}
    session.run(parse(list(keys.values()), "pretrain"), "pretrain", run_dir, Console(quiet=True))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, Any]:
    """A run directory, and the (config, rig) that its pictures were drawn from."""
    calls = []

    def spy(config, rig, folder):
        random = (torch.get_rng_state(), rig.sampler.state_dict(), rig.action_generator.bit_generator.state)
        written = pictures.write_pictures(config, rig, folder)
        after = (torch.get_rng_state(), rig.sampler.state_dict(), rig.action_generator.bit_generator.state)
        calls.append((config, rig, written, torch.equal(random[0], after[0]) and random[1:] == after[1:]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "write_pictures", spy)
        run_dir = tmp_path_factory.mktemp("pictures") / "run"
        pretrain(run_dir)
    assert len(calls) == 1
    return run_dir, calls[0]


def test_pictures_have_captions_and_stand_in_the_report(finished):
    run_dir, (_, _, written, _) = finished
    assert [path.name for path in written] == ["sample_frames.png", "neighbours.png", "coverage.png", "prototypes.png"]
    html = report_run(run_dir).read_text()
    for path in written:
        assert path.with_suffix(".txt").read_text().strip() in html


def test_the_run_does_not_notice(finished):
    assert finished[1][3], "a random stream of the run moved"


def test_visits_are_those_of_the_run(finished):
    run_dir, _ = finished
    numbers = json.loads((run_dir / "figures" / "arena.json").read_text())
    visits = np.array(numbers["visits"])
    assert (visits > 0).mean() == pytest.approx(read_rows(run_dir, "metrics")[-1]["state_coverage"])
    assert visits.sum() == numbers["agent_step"] + 8 * (1 + 640 // 8 // 200)  # every step, and each episode's first row
    assert (len(numbers["prototypes"]), len(numbers["usage"])) == (16, 16)


def test_a_prototype_lies_where_its_image_was_taken(finished):
    _, (_, rig, _, _) = finished
    objective = rig.learner.objective
    spec = pictures.BatchSpec(offsets=(0, 1), fields=frozenset({"image", "action", "state"}))
    batch = Sampler(rig.store, spec, 16, rig.sampler.frame_stack, generator=np.random.default_rng(5)).sample()
    with torch.no_grad():
        features = rig.learner.encoder(batch.image(1))
        planted = objective.embed(Transition(features, batch.at("action", 1), features))
        before = objective.prototypes.clone()
        objective.prototypes.copy_(3.0 * planted)  # length must not matter
        try:
            places = pictures.prototype_places(rig, objective)
        finally:
            objective.prototypes.copy_(before)
    taken = batch.at("state", 1)[:, :2].numpy()
    assert np.abs(places.positions - taken).max() < 1.5 / 32  # within a pixel or so: another frame may look the same
    assert np.abs(taken - taken[::-1]).max() > 0.1  # so that the wrong order would be seen
    assert places.usage.sum() == pytest.approx(1.0)


def test_a_method_without_prototypes_gets_no_map_of_them(tmp_path):
    pretrain(tmp_path / "run", "method=random")
    drawn = sorted(path.name for path in (tmp_path / "run" / "figures").glob("*.png"))
    assert drawn == ["coverage.png", "neighbours.png", "sample_frames.png"]
    assert "prototypes" not in json.loads((tmp_path / "run" / "figures" / "arena.json").read_text())


def test_too_few_rows_give_no_pictures(tmp_path):
    pretrain(tmp_path / "run", "method=random", "num_expl_steps=80")
    assert not (tmp_path / "run" / "figures").exists()


def test_the_side_of_cells_comes_from_their_centres():
    centers = np.array([[0.125, 0.125], [0.375, 0.125], [0.125, 0.875]], dtype=np.float32)
    assert pictures.cell_side(centers) == pytest.approx(0.25)
