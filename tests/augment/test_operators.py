"""Each operator against a loop over samples, frames and pixels."""

import colorsys

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from visrep.augment.box import Cutout, CutoutColor, Window
from visrep.augment.color import ColorJitter, Grayscale
from visrep.augment.crop import Crop, Translate
from visrep.augment.random_conv import RandomConv
from visrep.augment.rectangle import Border, _cut_by_copying, _cut_by_gathering
from visrep.augment.turn import Flip, Rotate

CPU = torch.device("cpu")
FRAMES = 2


def stacks(height: int = 10, width: int = 13, count: int = 7) -> Tensor:
    values = torch.randint(0, 256, (count, 3 * FRAMES, height, width), generator=Generator().manual_seed(0))
    return values.to(torch.uint8)


def generator() -> Generator:
    return Generator().manual_seed(1)


# -- rectangles --------------------------------------------------------------------------------------------------------


def cut_loops(images: np.ndarray, top: list[int], left: list[int], size: tuple[int, int], border: str) -> np.ndarray:
    out = np.zeros((*images.shape[:2], *size), dtype=images.dtype)
    height, width = images.shape[2:]
    for n, y, x in np.ndindex(len(images), *size):
        row, column = y + top[n], x + left[n]
        if border == "repeat":
            row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
        if 0 <= row < height and 0 <= column < width:
            out[n, :, y, x] = images[n, :, row, column]
    return out


@pytest.mark.parametrize("border", ["repeat", "black"])
@pytest.mark.parametrize("size", [(10, 13), (6, 20), (15, 4)])
def test_both_roads_of_cut_against_loops(size: tuple[int, int], border: Border) -> None:
    images = stacks()
    top, left = torch.tensor([0, -3, 4, 9, -5, 1, 2]), torch.tensor([0, 12, -3, 5, 3, -2, 1])
    want = torch.from_numpy(cut_loops(images.numpy(), top.tolist(), left.tolist(), size, border))
    for values in (images, images.float(), images.contiguous(memory_format=torch.channels_last)):
        assert torch.equal(_cut_by_copying(values, top, left, size, border), want.to(values.dtype))
        assert torch.equal(_cut_by_gathering(values, top, left, size, border), want.to(values.dtype))


def test_crop_and_its_centre() -> None:
    images, crop = stacks(), Crop(7)
    draws = crop.draw(len(images), (10, 13), generator(), CPU)
    want = [image[:, t : t + 7, c : c + 7] for image, t, c in zip(images, draws["top"], draws["left"], strict=True)]
    assert torch.equal(crop.apply(images, draws), torch.stack(want))
    assert torch.equal(crop.evaluate(images), images[:, :, 1:8, 3:10])


def test_translate_and_its_centre() -> None:
    images, translate = stacks(), Translate(15)
    draws = translate.draw(len(images), (10, 13), generator(), CPU)
    want = torch.zeros(len(images), 6, 15, 15, dtype=torch.uint8)
    for n, (t, c) in enumerate(zip(draws["top"], draws["left"], strict=True)):
        want[n, :, t : t + 10, c : c + 13] = images[n]
    assert torch.equal(translate.apply(images, draws), want)
    middle = torch.zeros_like(want)
    middle[:, :, 2:12, 1:14] = images
    assert torch.equal(translate.evaluate(images), middle)
    many = translate.draw(2000, (10, 13), generator(), CPU)
    assert set(many["top"].tolist()) == set(range(6)) and set(many["left"].tolist()) == set(range(3))


# -- boxes -------------------------------------------------------------------------------------------------------------


def test_boxes() -> None:
    images = stacks()
    for op in (Cutout(2, 5), CutoutColor(2, 5), Window(2, 5)):
        draws = op.draw(len(images), (10, 13), generator(), CPU)
        want = torch.zeros_like(images) if isinstance(op, Window) else images.clone()
        for n, (top, left, height, width) in enumerate(draws["box"].tolist()):
            box = (slice(top, top + height), slice(left, left + width))
            for s, c in np.ndindex(FRAMES, 3):
                if isinstance(op, Window):
                    want[n, 3 * s + c][box] = images[n, 3 * s + c][box]
                else:
                    want[n, 3 * s + c][box] = draws["color"][n, c] if "color" in draws else 0
        assert torch.equal(op.apply(images, draws), want), op


def test_boxes_lie_inside_and_anywhere() -> None:
    box = Cutout(2, 5).draw(20_000, (10, 13), generator(), CPU)["box"]
    top, left, height, width = box.unbind(1)
    assert set(height.tolist()) == set(width.tolist()) == {2, 3, 4, 5}
    assert int((top + height).max()) == 10 and int((left + width).max()) == 13
    places = torch.bincount(left[width == 5])
    assert len(places) == 9 and float(places.min()) > 0.8 * float(places.float().mean())


def test_color_box_on_grey_frames() -> None:
    images = stacks()
    op = CutoutColor(3, 3, frame_channels=1)
    draws = op.draw(len(images), (10, 13), generator(), CPU)
    assert draws["color"].shape == (7, 1)
    out = op.apply(images, draws)
    top, left = draws["box"][0, :2].tolist()
    assert (out[0, :, top : top + 3, left : left + 3] == draws["color"][0]).all()


# -- turns -------------------------------------------------------------------------------------------------------------


def test_flip_swaps_left_and_right() -> None:
    images, flip = stacks(), Flip(0.5)
    draws = flip.draw(len(images), (10, 13), generator(), CPU)
    want = [np.flip(i, 2) if u <= 0.5 else i for i, u in zip(images.numpy(), draws["selection"], strict=True)]
    assert np.array_equal(flip.apply(images, draws).numpy(), np.stack(want))


def test_rotate() -> None:
    images, rotate = stacks(9, 9, 40), Rotate(0.5)
    draws = rotate.draw(len(images), (9, 9), generator(), CPU)
    assert set(draws["quarters"].tolist()) == {1, 2, 3}
    want = [
        np.rot90(image, int(k) if u <= 0.5 else 0, (1, 2))
        for image, k, u in zip(images.numpy(), draws["quarters"], draws["selection"], strict=True)
    ]
    assert np.array_equal(rotate.apply(images, draws).numpy(), np.stack(want))


# -- colours -----------------------------------------------------------------------------------------------------------


def test_grayscale() -> None:
    images, grayscale = stacks(), Grayscale(1.0)
    out = grayscale.apply(images, {})
    for n, s, y, x in np.ndindex(len(images), FRAMES, 10, 13):
        red, green, blue = images[n, 3 * s : 3 * s + 3, y, x].tolist()
        want = round(0.2989 * red + 0.587 * green + 0.114 * blue)
        assert out[n, 3 * s : 3 * s + 3, y, x].tolist() == [want] * 3


def jitter_loops(rgb: np.ndarray, contrast: float, brightness: float, saturation: float, hue: float) -> np.ndarray:
    """One frame [3, H, W] in 0..1, by Python's own HSV conversion."""
    mean = rgb.mean((1, 2), keepdims=True)
    rgb = np.clip(mean + (rgb - mean) * contrast, 0, 1)
    out = np.empty_like(rgb)
    for y, x in np.ndindex(*rgb.shape[1:]):
        h, s, v = colorsys.rgb_to_hsv(*rgb[:, y, x])
        out[:, y, x] = colorsys.hsv_to_rgb((h + hue) % 1, min(s * saturation, 1), min(v * brightness, 1))
    return out


def test_color_jitter() -> None:
    images = stacks().double()
    images[0, :, 0] = 0  # black and grey have no hue, a full channel has ties
    images[1, :, 0] = 77
    images[2, :3, 0, :] = torch.tensor([255.0, 255.0, 0.0])[:, None]
    op = ColorJitter(0.9, 0.8, 0.9, 0.5)
    draws = op.draw(len(images), (10, 13), generator(), CPU)
    out = op.apply(images, draws)
    for n, s in np.ndindex(len(images), FRAMES):
        frame = images[n, 3 * s : 3 * s + 3].numpy() / 255
        factors = [float(draws[name][n]) for name in ("contrast", "brightness", "saturation", "hue")]
        np.testing.assert_allclose(
            out[n, 3 * s : 3 * s + 3].numpy(), 255 * jitter_loops(frame, *factors), rtol=0, atol=1e-4
        )


def test_color_jitter_draws() -> None:
    draws = ColorJitter(0.4, 0.2, 1.5, 0.1).draw(4000, (8, 8), generator(), CPU)
    for name, low, high in (
        ("brightness", 0.6, 1.4),
        ("contrast", 0.8, 1.2),
        ("saturation", 0.0, 2.5),
        ("hue", -0.1, 0.1),
    ):
        assert low <= draws[name].min() < low + 0.01 and high - 0.01 < draws[name].max() <= high


def test_color_jitter_without_a_range_leaves_it_alone() -> None:
    images = stacks()
    op = ColorJitter(0, 0, 0, 0.5)
    draws = op.draw(len(images), (10, 13), generator(), CPU)
    assert torch.equal(draws["brightness"], torch.ones(7)) and torch.equal(draws["contrast"], torch.ones(7))
    value = images.unflatten(1, (-1, 3)).amax(2)
    assert (op.apply(images, draws).unflatten(1, (-1, 3)).amax(2).int() - value.int()).abs().max() <= 1
    draws["hue"].zero_()
    assert torch.equal(op.apply(images, draws), images)


def test_random_conv() -> None:
    images, op = stacks(), RandomConv()
    draws = op.draw(len(images), (10, 13), generator(), CPU)
    assert draws["kernel"].shape == (7, 3, 3, 3, 3)
    out = op.apply(images.double(), {"kernel": draws["kernel"].double()})
    padded = np.pad(images.numpy().astype(float), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge") - 127.5
    kernel = draws["kernel"].double().numpy()
    for n, s, c in np.ndindex(len(images), FRAMES, 3):
        for y, x in ((0, 0), (3, 5), (9, 12), (9, 0)):
            patch = padded[n, 3 * s : 3 * s + 3, y : y + 3, x : x + 3]
            want = min(max(float((patch * kernel[n, c]).sum()) + 127.5, 0.0), 255.0)
            assert float(out[n, 3 * s + c, y, x]) == pytest.approx(want, abs=1e-9)


def test_random_conv_keeps_most_of_the_picture() -> None:
    """Flat colours rarely end on black or white, unlike without the grey centre."""
    generator_ = generator()
    flat = torch.randint(0, 256, (2000, 3, 1, 1), generator=generator_).to(torch.uint8).expand(-1, -1, 4, 4)
    out = RandomConv()(flat.contiguous(), generator_)
    assert float(((out == 0) | (out == 255)).float().mean()) < 0.2
    kernel = RandomConv().draw(2000, (4, 4), generator_, CPU)["kernel"]
    assert abs(float(kernel.std()) - (2 / 54) ** 0.5) < 0.002
