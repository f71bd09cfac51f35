"""Random shift against DrQ-v2's and ATC's public code and against a pixel-by-pixel loop."""

import numpy as np
import pytest
import torch
from load import cases, load_case

from visrep.augment.rectangle import _cut_by_copying, _cut_by_gathering
from visrep.augment.shift import Shift, random_shift


def shift_by_gathering(images: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    return _cut_by_gathering(images, offset[:, 1], offset[:, 0], images.shape[-2:], "repeat")


@pytest.mark.parametrize("case", cases("drqv2_random_shift"))
def test_against_drqv2(case: str) -> None:
    c = load_case("drqv2_random_shift", case)
    images, shift, pad = torch.from_numpy(c["in"]["image"]), torch.from_numpy(c["rand"]["shift"]), int(c["meta"]["pad"])
    want = torch.from_numpy(c["out"]["integer_crop"])
    assert torch.equal(random_shift(images, pad, shift=shift), want)
    assert torch.equal(shift_by_gathering(images, shift - pad), want)
    assert np.abs(random_shift(images.float(), pad, shift=shift).numpy() - c["out"]["shifted"]).max() <= 0.01


def as_batch(images: torch.Tensor) -> torch.Tensor:
    """(H,W), (C,H,W), (B,C,H,W) or (T,B,C,H,W) to [B, T*C, H, W]: what shares a shift are channels of one sample."""
    if images.ndim == 5:
        return images.transpose(0, 1).flatten(1, 2)
    return images.view(*(1,) * (4 - images.ndim), *images.shape)


@pytest.mark.parametrize("case", cases("atc_random_shift"))
def test_against_atc(case: str) -> None:
    c = load_case("atc_random_shift", case)
    images, want = (as_batch(torch.from_numpy(a)) for a in (c["in"]["image"], c["out"]["shifted"]))
    draws = {"shift": torch.from_numpy(np.stack([c["rand"]["column_offset"], c["rand"]["row_offset"]], axis=1))}
    if "selection" in c["rand"]:
        draws["selection"] = torch.from_numpy(c["rand"]["selection"])
    operator = Shift(pad=int(c["meta"]["pad"]), p=float(c["meta"]["prob"]))
    drawn = operator.draw(len(images), images.shape[-2:], torch.Generator().manual_seed(0), images.device)
    assert {n: d.shape for n, d in drawn.items()} == {n: d.shape for n, d in draws.items()}
    assert torch.equal(operator.apply(images, draws), want)


def shift_loops(images: torch.Tensor, pad: int, shift: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(images)
    count, channels, height, width = images.shape
    for n, c, y, x in np.ndindex(count, channels, height, width):
        row = min(max(y + int(shift[n, 1]) - pad, 0), height - 1)
        column = min(max(x + int(shift[n, 0]) - pad, 0), width - 1)
        out[n, c, y, x] = images[n, c, row, column]
    return out


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5, 3, 9, 12), (9, 1, 4, 3)])
def test_against_loops(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, shape, generator=generator).to(dtype)
    shift = torch.randint(0, 5, (shape[0], 2), generator=generator)
    want = shift_loops(images, 2, shift)
    assert torch.equal(random_shift(images, 2, shift=shift), want)
    assert torch.equal(shift_by_gathering(images, shift - 2), want)


def test_views_and_inputs_survive() -> None:
    """A batch column is a strided view; it is read in place and left as it was."""
    pair = torch.randint(0, 256, (4, 2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before, shift = pair.clone(), torch.tensor([[0, 0], [8, 8], [4, 4], [1, 7]])
    shifted = random_shift(pair[:, 1], 4, shift=shift)
    assert shifted.is_contiguous()
    assert torch.equal(pair, before)
    assert torch.equal(shifted, shift_by_gathering(pair[:, 1], shift - 4))
    assert torch.equal(shifted[2], pair[2, 1])


def test_generator_decides_and_every_offset_occurs() -> None:
    image = torch.arange(81, dtype=torch.uint8).view(1, 1, 9, 9).expand(4000, 1, 9, 9)
    first, again = (random_shift(image, 4, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert len(first[:, 0, 4, 4].unique()) == 81  # the centre pixel names the shift


def test_gradient_passes_through_float_images() -> None:
    images = torch.rand(2, 1, 6, 6, requires_grad=True)
    random_shift(images, 2, shift=torch.tensor([[2, 2], [0, 4]])).sum().backward()
    assert images.grad is not None and float(images.grad.sum()) == 72


def test_both_roads_agree_on_a_full_batch() -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (16, 9, 84, 84), dtype=torch.uint8, generator=generator)
    offset = torch.randint(-4, 5, (16, 2), generator=generator)
    copied = _cut_by_copying(images, offset[:, 1], offset[:, 0], (84, 84), "repeat")
    assert torch.equal(copied, shift_by_gathering(images, offset))
