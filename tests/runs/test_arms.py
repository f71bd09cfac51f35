"""ATC beside the policy: the four arms, who moves the encoder in each, schedules, own batches, latent replay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from run_tools import records, tensors

import visrep.runs.update as update_module
from visrep.cli import main
from visrep.config import load_config
from visrep.runs.representation import Representation

pytestmark = pytest.mark.usefixtures("in_process")

# The paper's preset, shrunk; learning begins at agent step 24.
SMALL = (
    "preset=atc_dmc+tiny", "env=short/toy", "num_expl_steps=0", "threads=1", "num_train_steps=100",
    "num_random_steps=24", "num_seed_steps=24", "image_size=32", "batch_size=8", "atc_code_dim=8", "atc_hidden_dim=8",
    "hidden_dim=16", "eval_frequency=100", "log_frequency_step=25", "checkpoint_frequency=40", "log_save_tb=false",
    "encoder_channels=4", "probe_frequency=20",
)  # fmt: skip
UPDATES = 100 - 24


def run(folder: Path, *more: str, command: str = "train") -> Path:
    keys = {word.partition("=")[0]: word for word in (*SMALL, *more)}
    assert main([command, *keys.values(), f"run_dir={folder}"]) == 0
    return folder


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Learning rate of every step of the objective, in order."""
    seen: list[float] = []
    step = Representation.step

    def counted(self: Representation, batch: Any) -> Any:
        seen.append(self.rate.at(self.updates + self.first_index))
        return step(self, batch)

    monkeypatch.setattr(Representation, "step", counted)
    return seen


def encoders(folder: Path) -> dict[str, torch.Tensor]:
    return tensors(folder / "model" / "encoder.safetensors")


@pytest.mark.parametrize(
    ("arm", "objective_steps"), [("critic", 0), ("objective", UPDATES), ("both", UPDATES), ("init", 5), ("none", 0)]
)
def test_one_field_switches_the_arm(arm: str, objective_steps: int, steps: list[float], tmp_path: Path) -> None:
    run(tmp_path / arm, f"encoder_gradient={arm}", "repr_init_updates=5")
    assert len(steps) == objective_steps
    measured = [row for row in records(tmp_path / arm) if row["kind"] == "metrics" and "critic_loss" in row]
    assert any("repr_loss" in row for row in measured) == (objective_steps > 0)
    assert any("probe_rankme" in row for row in measured) == (arm != "none")
    assert any("repr_lr" in row for row in measured) == (objective_steps > 0)


def test_who_moves_the_encoder(tmp_path: Path) -> None:
    """Without the objective's steps, the encoder moves where the critic trains it and nowhere else."""
    start = ["num_train_steps=26"]
    frozen = encoders(run(tmp_path / "none", "encoder_gradient=none", *start))
    for arm, moves in (("critic", True), ("both", True), ("objective", False)):
        now = encoders(run(tmp_path / arm, f"encoder_gradient={arm}", "repr_start_steps=26", *start))
        assert any(not torch.equal(now[name], frozen[name]) for name in frozen) == moves, arm


def test_the_cosine_is_planned_over_all_updates(steps: list[float], tmp_path: Path) -> None:
    run(tmp_path / "run", "repr_updates=constant_2", "repr_lr=0.5")
    assert len(steps) == 2 * UPDATES
    assert steps[0] == pytest.approx(0.5, rel=1e-3) and steps[-1] == pytest.approx(0.0, abs=1e-12)
    assert steps == sorted(steps, reverse=True)


def test_the_objective_shares_the_policys_batch_and_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Trap T1: in an iteration the objective first takes what the policy saw, after it; then it draws anew."""
    order: list[str] = []
    policys: list[torch.Tensor] = []
    objectives: list[torch.Tensor] = []
    policy_step, step = update_module._policy_step, Representation.step

    def seen_by_policy(learner: Any, batch: Any, *arguments: Any) -> Any:
        order.append("policy")
        policys.append(batch.images[0])
        return policy_step(learner, batch, *arguments)

    def seen_by_objective(self: Representation, batch: Any) -> Any:
        order.append("objective")
        objectives.append(batch.images[0])
        return step(self, batch)

    monkeypatch.setattr(update_module, "_policy_step", seen_by_policy)
    monkeypatch.setattr(Representation, "step", seen_by_objective)
    run(tmp_path / "run", "repr_updates=constant_2", "num_train_steps=30")
    assert order == ["policy", "objective", "objective"] * len(policys)
    for index, images in enumerate(policys):
        assert objectives[2 * index].data_ptr() == images.data_ptr()
        assert not torch.equal(objectives[2 * index + 1], images)


@pytest.mark.parametrize("more", [("repr_batch_size=5",), ("repr_priority_alpha=1.0", "repr_priority_steps=4")])
def test_batches_of_its_own(more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sizes = []
    step = Representation.step
    monkeypatch.setattr(
        Representation, "step", lambda self, batch: (sizes.append(len(batch.images[0])), step(self, batch))[1]
    )
    run(tmp_path / "run", *more)
    assert set(sizes) == {5 if more[0].startswith("repr_batch") else 8} and len(sizes) == UPDATES


def test_time_limits_are_left_out_or_bootstrapped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Episodes of 30 steps end by the clock alone: with masks some rows weigh nothing, without all weigh alike."""
    weights: list[Any] = []
    weigh = update_module._weight
    monkeypatch.setattr(update_module, "_weight", lambda *a: (weights.append(weigh(*a)), weights[-1])[1])
    run(tmp_path / "mask")
    seen = torch.cat(weights).flatten()
    assert 0 < float((seen == 0).float().mean()) < 0.2 and set(seen.tolist()) == {0.0, 1.0}
    weights.clear()
    run(tmp_path / "bootstrap", "time_limits=bootstrap")
    assert all(weight is None for weight in weights)


def test_learning_on_latents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen encoder's latents fill the store; the encoder then runs once per agent step and never in an update."""
    source = run(tmp_path / "source")
    passes: list[int] = []
    latent_store = tmp_path / "latents" / "buffer" / "finetune" / "dataset.json"
    from visrep.encoders.stack import ConvStack

    forward = ConvStack.latents
    monkeypatch.setattr(ConvStack, "latents", lambda self, x: (passes.append(len(x)), forward(self, x))[1])
    words = ["transfer=frozen", f"encoder={source}", "save_buffer=true", "num_eval_episodes=0", "num_train_steps=60"]
    pixels = run(tmp_path / "pixels", *words, command="finetune")
    by_pixels, passes[:] = list(passes), []
    latents = run(tmp_path / "latents", *words, "replay=latents", "latent_dtype=float16", command="finetune")
    assert 8 in by_pixels and set(passes) == {1}
    import json

    stored = json.loads(latent_store.read_text())["store"]
    assert stored["frame_dtype"] == "float16" and stored["frame_shape"] != [3, 32, 32]
    assert load_config(latents / "config.yaml").run.replay == "latents"
    for one in (pixels, latents):
        assert all(torch.equal(a, b) for a, b in zip(encoders(one).values(), encoders(source).values(), strict=True))


def test_a_state_based_agent(tmp_path: Path) -> None:
    assert main([
        "train", "preset=sac_state+tiny", "env=toy/maze_center", "num_expl_steps=0", "num_train_steps=120",
        "save_video=true", f"run_dir={tmp_path / 'state'}", "threads=1", "log_save_tb=false",
    ]) == 0  # fmt: skip
    assert not list((tmp_path / "state" / "video").iterdir())
    assert encoders(tmp_path / "state") == {}


@pytest.mark.parametrize("preset", ["atc_dmc", "curl_dmc", "rad_dmc", "sac_ae_dmc", "drq_dmc"])
def test_the_presets_run_and_their_runs_are_evaluated_and_continued(preset: str, tmp_path: Path) -> None:
    """Each as published, shrunk: images, augmentation, who trains the encoder, which parts of SAC lag behind."""
    source = tmp_path / "run"
    crop = ["augment=crop(32)"] if preset in ("curl_dmc", "rad_dmc") else []
    settled = ["env=short/toy", "num_train_steps=40", "threads=1", "log_save_tb=false"]
    words = [f"preset={preset}+atc_tiny", *settled, *crop]
    assert main(["train", *words, f"run_dir={source}"]) == 0
    rows = [row for row in records(source) if "critic_loss" in row]
    assert rows and all(("repr_loss" in row) == (preset not in ("rad_dmc", "drq_dmc")) for row in rows)
    assert main(["evaluate", f"run={source}", "episodes=1"]) == 0
    if preset not in ("rad_dmc", "drq_dmc"):
        # The file holds an objective that used its critic's projection, where it has one.
        agent = next((source / "model").glob("task_agent_*"))
        more = [f"encoder={agent}", "encoder_gradient=both", "transfer=finetune", "keep=none"]
        assert main(["finetune", *words, *more, f"run_dir={tmp_path / 'on'}"]) == 0


@pytest.mark.parametrize("method", ["ac", "curl", "atc"])
def test_two_views_without_an_augmentation_are_equal(method: str, tmp_path: Path) -> None:
    """AC, CURL and segments longer than the shift compare two views of one image; without augmentation it is itself."""
    own = {"atc": ["atc_segment=3", "repr_batch_size=8"], "curl": ["curl_feature_dim=16"], "ac": []}[method]
    kept = [word for word in SMALL if method == "atc" or not word.startswith("atc_")]
    more = [f"method={method}", "augment=none", "feature_dim=16", "num_train_steps=40", *own]
    words = {word.partition("=")[0]: word for word in (*kept, *more)}
    assert main(["train", *words.values(), f"run_dir={tmp_path / 'run'}"]) == 0
    assert any("repr_loss" in row for row in records(tmp_path / "run"))
