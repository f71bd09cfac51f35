"""What every registered augmentation must do."""

from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from visrep.augment import OPERATORS, Operator, parse_augmentation, signature, summary

SMALL = {"crop": "crop(12)", "translate": "translate(20)", "window": "window(6, 9)", "cutout": "cutout(2, 5)"}
SMALL["cutout_color"] = "cutout_color(2, 5)"
FRAMES = 3
CPU = torch.device("cpu")


def operator(name: str, text: str | None = None) -> Operator:
    domain = OPERATORS[name].domain[0]
    return parse_augmentation(text or SMALL.get(name, name), 3, domain).operators[0]


def stacks(op: Operator, count: int = 6) -> Tensor:
    """[N, 9, 16, 16], whole numbers as the operator takes them."""
    values = torch.randint(0, 256, (count, FRAMES * 3, 16, 16), generator=Generator().manual_seed(0))
    return values.to(torch.uint8 if "images" in op.domain else torch.float32)


def drawn(op: Operator, images: Tensor, seed: int = 1) -> dict[str, Tensor]:
    return op.draw(len(images), (images.shape[-2], images.shape[-1]), Generator().manual_seed(seed), CPU)


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_samples_do_not_depend_on_each_other(name: str) -> None:
    """The batched operator equals the operator on one sample after the other."""
    op = operator(name)
    images = stacks(op)
    draws = drawn(op, images)
    together = op.apply(images, draws)
    for n in range(len(images)):
        alone = op.apply(images[n : n + 1], {key: value[n : n + 1] for key, value in draws.items()})
        torch.testing.assert_close(together[n : n + 1], alone, atol=1 if images.dtype == torch.uint8 else 1e-4, rtol=0)


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_stacked_frames_share_the_draw(name: str) -> None:
    op = operator(name)
    images = stacks(op)
    draws = drawn(op, images)
    stacked = op.apply(images, draws)
    for s in range(FRAMES):
        frame = slice(3 * s, 3 * s + 3)
        alone = op.apply(images[:, frame], draws)
        torch.testing.assert_close(stacked[:, frame], alone, atol=1 if images.dtype == torch.uint8 else 1e-4, rtol=0)


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_two_views_differ_and_the_generator_decides(name: str) -> None:
    augment = parse_augmentation(str(operator(name)), 3, OPERATORS[name].domain[0])
    images = stacks(operator(name), 24)
    before = images.clone()
    generator = Generator().manual_seed(5)
    state = generator.get_state()
    first, second = augment(images, generator), augment(images, generator)
    assert not torch.equal(first, second)
    generator.set_state(state)
    torch.manual_seed(99)  # the global generator has no say
    assert torch.equal(augment(images, generator), first)
    assert torch.equal(images, before), "the caller's images were changed"


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_dtype_and_range_stay(name: str) -> None:
    op = operator(name)
    images = stacks(op)
    draws = drawn(op, images)
    out = op.apply(images, draws)
    assert out.dtype == images.dtype
    assert out.shape == (len(images), FRAMES * 3, *op.output_size(16, 16))
    for dtype in (torch.float32, torch.float64):
        floats = op.apply(images.to(dtype), draws)
        assert floats.dtype == dtype and floats.min() >= 0 and floats.max() <= 255
        # uint8 is the same, rounded to nearest
        assert (floats - out.to(dtype)).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_memory_layout_does_not_matter(name: str) -> None:
    op = operator(name)
    images = stacks(op)
    draws = drawn(op, images)
    turned = images.contiguous(memory_format=torch.channels_last)
    sparse = torch.stack([images, images], dim=1)[:, 0]
    for other in (turned, sparse):
        torch.testing.assert_close(op.apply(other, draws), op.apply(images, draws), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["shift", "crop", "translate"])
def test_channels_that_lie_innermost_stay_there(name: str) -> None:
    op = operator(name)
    images = stacks(op).contiguous(memory_format=torch.channels_last)
    assert op.apply(images, drawn(op, images)).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_evaluation_has_the_same_size_and_nothing_random(name: str) -> None:
    op = operator(name)
    images = stacks(op)
    seen = op.evaluate(images)
    assert seen.shape == op.apply(images, drawn(op, images)).shape
    assert torch.equal(seen, op.evaluate(images))
    if op.output_size(16, 16) == (16, 16):
        assert torch.equal(seen, images)


@pytest.mark.parametrize("name", sorted(n for n, cls in OPERATORS.items() if "p" in cls.__dataclass_fields__))
def test_probability_selects_samples(name: str) -> None:
    op = operator(name, f"{name}(p=0.4)")
    images = stacks(op, 400)
    draws = drawn(op, images)
    out = op.apply(images, draws)
    left_alone = (out == images).flatten(1).all(1)
    assert left_alone[draws["selection"] > 0.4].all()
    assert abs(float((~left_alone).float().mean()) - 0.4) < 0.08
    always = operator(name, f"{name}(p=1)")
    assert "selection" not in drawn(always, images)
    assert (always.apply(images, drawn(always, images)) == images).flatten(1).all(1).float().mean() < 0.05


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_text_form_reads_back(name: str) -> None:
    op = operator(name)
    assert parse_augmentation(str(op), 3, op.domain[0]).operators == (op,)
    assert signature(name).startswith(name) and summary(name)[-1] in ".,;:"


def test_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "augmentations.md").read_text(encoding="utf-8")
    for name in OPERATORS:
        assert f"`{signature(name)}`" in page, f"docs/augmentations.md lacks `{signature(name)}`"
