"""A run in which actions do not mean in augmented images what they meant says so, once; no other run does."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_tools import words
from test_offline import dataset, pretrain

from visrep.cli import main

pytestmark = pytest.mark.usefixtures("in_process")

BEGIN = "note: actions are learned from as they were taken"
FLIP = "flip: left and right are swapped, so an action that moves sideways means its mirror image"


def notes(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith(BEGIN)]


@pytest.mark.parametrize(
    ("more", "whose"),
    [
        (["augment=flip"], "for the policy: "),  # both phases; Proto needs no actions
        (["augment=shift(2)+flip", "method=icm"], "for the policy and method=icm: "),
        (["augment=shift", "method=icm", "repr_augment=flip"], "for method=icm: "),
        (["augment=shift", "repr_augment=flip"], None),
        (["augment=flip", "method=random", "num_train_steps=120"], None),  # nobody learns
        (["method=icm"], None),
    ],
)
def test_on_line(more: list[str], whose: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = "pretrain" if "num_train_steps=120" in more else "train"
    assert main([command, *words(tmp_path, "num_eval_episodes=0", *more)]) == 0
    said = notes(capsys.readouterr().out)
    assert len(said) == (whose is not None)
    assert all(line.endswith(f", {whose}{FLIP}") for line in said), said


def test_latents_are_of_images_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A policy on a frozen encoder's stored latents never sees an augmented image."""
    assert main(["pretrain", *words(tmp_path / "pre", "num_eval_episodes=0", "num_train_steps=120")]) == 0
    task = words(None, f"encoder={tmp_path / 'pre'}", "num_eval_episodes=0", "num_train_steps=60", "augment=flip")
    task = [word for word in task if not word.startswith(("preset=", "num_expl_steps="))]
    for replay, lines in (("pixels", 1), ("latents", 0)):
        run_dir = tmp_path / replay
        more = (f"replay={replay}", "transfer=frozen", "intr_coef=0", f"run_dir={run_dir}")
        capsys.readouterr()
        assert main(["finetune", *task, *more]) == 0
        assert len(notes(capsys.readouterr().out)) == lines


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["method=inverse", "augment=flip"], True),
        (["method=inverse", "augment=none", "repr_augment=flip"], True),
        (["method=inverse", "augment=flip", "repr_augment=none"], False),
        (["method=curl", "augment=flip"], False),  # looks at no actions, and no policy learns
        (["method=vae_t", "augment=flip"], False),  # reconstructs images as they are
    ],
)
def test_off_line(more: list[str], says: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pretrain(tmp_path / "run", dataset(tmp_path / "data"), *more) == 0
    said = notes(capsys.readouterr().out)
    assert len(said) == says and all(line.endswith(f"for {more[0]}: {FLIP}") for line in said), said
