"""Augmentations as text: what is understood, and what each mistake is told."""

import pytest
import torch

from visrep.augment import Augmentation, parse_augmentation
from visrep.augment.color import Grayscale
from visrep.augment.contract import register_operator
from visrep.augment.crop import Crop
from visrep.augment.shift import Shift, random_shift
from visrep.augment.turn import Flip
from visrep.errors import UserError


def images(height: int = 16, width: int = 16, count: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 9, height, width), generator=generator).to(torch.uint8)


@pytest.mark.parametrize(
    ("text", "operators"),
    [
        ("none", ()),
        (" none ", ()),
        ("shift", (Shift(),)),
        ("shift()", (Shift(),)),
        ("shift(4)", (Shift(4),)),
        (" shift ( 2 , p = 0.1 ) ", (Shift(2, 0.1),)),
        ("shift(p=0.5, pad=3)", (Shift(3, 0.5),)),
        ("crop(8)+grayscale(p=1e-1) + flip", (Crop(8), Grayscale(0.1), Flip())),
    ],
)
def test_understood(text: str, operators: tuple[object, ...]) -> None:
    assert parse_augmentation(text, 3).operators == operators


@pytest.mark.parametrize(
    ("text", "channels", "says"),
    [
        ("shfit(4)", 3, r"there is no 'shfit'; did you mean shift\? known: .*translate"),
        ("", 3, "cannot read ''"),
        ("shift(4)+", 3, "cannot read ''"),
        ("shift(4", 3, r"cannot read 'shift\(4'"),
        ("shift(4) flip", 3, r"cannot read 'shift\(4\) flip'"),
        ("none+shift", 3, '"none" stands alone'),
        ("shift(4.5)", 3, "pad is a whole number, got '4.5'"),
        ("shift(p=often)", 3, "p is a number, got 'often'"),
        ("shift(,)", 3, "pad is a whole number, got ''"),
        ("shift(1, 0.5, 3)", 3, r"shift takes shift\(pad=4, p=1.0\); '3' is one argument too many"),
        ("shift(padd=3)", 3, r"it has no 'padd': did you mean pad\? known: p, pad"),
        ("shift(3, pad=3)", 3, "pad is given twice"),
        ("shift(p=0.5, 3)", 3, "put '3' before the arguments that have names"),
        ("shift(0)", 3, r'at least 1; write "none"'),
        ("shift(p=0)", 3, "above 0 and up to 1"),
        ("flip(p=1.1)", 3, r"augmentation flip\(p=1.1\): p is the share"),
        ("flip(p=nan)", 3, "above 0 and up to 1"),
        ("crop(0)", 3, "at least 1"),
        ("cutout(9, 5)", 3, "1 <= min <= max"),
        ("window(0, 5)", 3, "1 <= min <= max"),
        ("color_jitter(0, 0, 0, 0)", 3, "one above"),
        ("color_jitter(brightness=-1)", 3, "none below 0"),
        ("color_jitter(hue=0.6)", 3, "at most 0.5"),
        ("random_conv(3)", 3, r"random_conv takes random_conv; '3' is one argument too many"),
        ("grayscale", 1, "grayscale mixes red, green and blue, but the channels of these frames number 1"),
        ("shift+color_jitter", 4, "number 4: leave it out"),
        ("random_conv", 1, "mixes red, green and blue"),
        ("subpixel_shift(1)", 3, "subpixel_shift works on latents, not on images; there: .*shift"),
    ],
)
def test_mistakes_are_explained(text: str, channels: int, says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse_augmentation(text, channels)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("crop(8)", "crop works on images, not on latents; there: shift, subpixel_shift"),
        ("subpixel_shift(1.5)", "above 0 and up to 1"),
        ("subpixel_shift(0)", "above 0 and up to 1"),
    ],
)
def test_mistakes_on_latents(text: str, says: str) -> None:
    assert parse_augmentation("subpixel_shift(0.5)+shift(1)", 32, "latents").output_size(7, 7) == (7, 7)
    with pytest.raises(UserError, match=says):
        parse_augmentation(text, 32, "latents")


@pytest.mark.parametrize(
    ("text", "size", "says"),
    [
        ("shift(16)", (16, 40), r"augmentation shift\(pad=16, p=1.0\): pad must be smaller .* 16x40"),
        ("crop(20)", (40, 16), "the images are only 40x16: raise image_size or crop less"),
        ("translate(16)", (16, 20), "the images are 16x20 and do not fit"),
        ("cutout(3, 17)", (40, 16), "a box of 17 pixels does not fit into images of 40x16"),
        ("rotate", (16, 20), "needs square images, these are 16x20"),
        ("crop(10)+cutout(5, 11)", (16, 16), "does not fit into images of 10x10"),
    ],
)
def test_impossible_sizes(text: str, size: tuple[int, int], says: str) -> None:
    augment = parse_augmentation(text, 3)
    with pytest.raises(UserError, match=says):
        augment.output_size(*size)
    with pytest.raises(UserError, match=says):
        augment(images(*size), torch.Generator())


def test_composition_goes_from_left_to_right() -> None:
    augment = parse_augmentation("translate(20)+crop(12)+shift(2)", 3)
    assert augment.output_size(16, 16) == (12, 12)
    generator, again = (torch.Generator().manual_seed(4) for _ in range(2))
    step_by_step = images()
    for operator in augment.operators:
        step_by_step = operator(step_by_step, again)
    assert torch.equal(augment(images(), generator), step_by_step)
    assert torch.equal(augment.evaluate(images()), images()[:, :, 2:14, 2:14])
    assert str(augment) == "translate(size=20)+crop(out=12)+shift(pad=2, p=1.0)"


def test_none_changes_nothing() -> None:
    augment = parse_augmentation("none", 3)
    assert augment == Augmentation() and str(augment) == "none" and augment.action_meaning is None
    assert augment(images(), None) is not None and torch.equal(augment(images(), None), images())
    assert torch.equal(augment.evaluate(images()), images()) and augment.output_size(7, 9) == (7, 9)


def test_shift_text_draws_what_random_shift_draws() -> None:
    """So that runs configured before and after the text form see the same images."""
    first, second = (torch.Generator().manual_seed(2) for _ in range(2))
    text = parse_augmentation("shift(4)", 3)(images(), first)
    assert torch.equal(text, random_shift(images(), 4, second))
    assert torch.equal(first.get_state(), second.get_state())


def test_what_happens_to_actions() -> None:
    assert parse_augmentation("shift(4)+crop(8)", 3).action_meaning is None
    meaning = parse_augmentation("rotate+shift+flip", 3).action_meaning
    assert meaning is not None
    rotate, flip = meaning.split("; ")
    assert rotate.startswith("rotate: the image is turned") and flip.startswith("flip: left and right are swapped")


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="'shift' is registered twice"):
        register_operator("shift")(Flip)
