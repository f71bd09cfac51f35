"""What a pre-trained encoder was built as wins over presets, and typing something else is refused."""

from __future__ import annotations

import pytest

from visrep.config import RunConfig, parse
from visrep.errors import UserError


def finetune(base: list[str], *words: str) -> RunConfig:
    inherited = parse(base, "pretrain").to_dict()
    return parse(["encoder=runs/x", "num_train_steps=70", *words], "finetune", inherited).run


def test_the_encoder_wins_over_a_preset() -> None:
    run = finetune(["image_size=36", "frame_stack=2", "encoder_channels=8"], "preset=atc_cartpole_swingup")
    assert (run.image_size, run.frame_stack, run.encoder_kind, run.encoder_channels) == (36, 2, "proto", 8)
    assert (run.env, run.action_repeat, run.encoder_init) == ("cartpole_swingup", 8, "torch")
    assert finetune(["image_size=36"], "preset=sac_state").observation == "pixels"


@pytest.mark.parametrize(
    "typed", ["frame_stack=2", "encoder_kind=atc", "encoder_channels=4", "encoder_offset=0.5", "observation=state"]
)
def test_what_is_typed_cannot_contradict_the_encoder(typed: str) -> None:
    with pytest.raises(UserError, match=f"{typed}, but runs/x was pre-trained with {typed.partition('=')[0]}="):
        finetune([], typed)


@pytest.mark.parametrize(
    ("base", "words", "shown"),
    [
        (["image_size=100", "augment=crop(84)"], ["image_size=84", "augment=shift"], (84, "shift")),
        (["image_size=100", "augment=crop(84)"], ["preset=atc_cartpole_swingup"], (84, "crop(84)")),
        (["image_size=36"], ["preset=curl_dmc"], (36, "shift")),
        (["image_size=36"], ["augment=crop(36)", "image_size=40"], (40, "crop(36)")),
        (["image_size=84"], ["preset=curl_dmc"], (100, "crop(84)")),
    ],
)
def test_images_of_the_encoders_size_however_they_are_made(
    base: list[str], words: list[str], shown: tuple[int, str]
) -> None:
    run = finetune(base, *words)
    assert (run.image_size, run.augment) == shown


@pytest.mark.parametrize("words", [["image_size=84"], ["augment=crop(32)"], ["augment=crop(90)", "preset=curl_dmc"]])
def test_images_of_another_size_are_refused(words: list[str]) -> None:
    with pytest.raises(UserError, match=r"but runs/x takes images of 36x36 pixels \(.*image_size=36.*leave .* out"):
        finetune(["image_size=36"], *words)
    with pytest.raises(UserError, match="image_size=big: expected a whole number"):
        finetune(["image_size=36"], "image_size=big")
