"""The sub-pixel shift of latent images against ATC's public code, torch's bilinear sampler and a loop."""

import math

import numpy as np
import pytest
import torch
from compare import assert_scaled
from load import cases, load_case
from objective_case import RUNS, Expected

from visrep.augment.subpixel import SubpixelShift, subpixel_shift


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", cases("atc_subpixel_shift"))
def test_against_public_code(case: str, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offsets from the same uniforms, x before y, then the resampling."""
    c = load_case("atc_subpixel_shift", case)
    want = Expected(c, run, 5e-6)
    operator, latents = SubpixelShift(float(c["meta"]["max_shift"])), want.inputs["latent"]
    uniforms = [torch.from_numpy(c["rand"][f"uniform_{axis}"]) for axis in ("y", "x")]
    monkeypatch.setattr(torch, "rand", lambda *shape, **settings: uniforms.pop())
    draws = operator.draw(len(latents), latents.shape[-2:], None, torch.device("cpu"))
    for axis, drawn in draws.items():
        assert_scaled(drawn, c["rand"][axis], 1e-12, axis)
    want.check(operator.apply(latents, draws), "shifted")


def bilinear_loops(latents: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Four neighbours of every point, each index kept inside."""
    out = np.zeros_like(latents)
    count, _, height, width = latents.shape
    for n, row, column in np.ndindex(count, height, width):
        down, right = row + y[n], column + x[n]
        top, left = math.floor(down), math.floor(right)
        for r, c in ((top, left), (top + 1, left), (top, left + 1), (top + 1, left + 1)):
            weight = (1 - abs(down - r)) * (1 - abs(right - c))
            out[n, :, row, column] += weight * latents[n, :, min(max(r, 0), height - 1), min(max(c, 0), width - 1)]
    return out


def drawn(count: int, shape: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
    draws = SubpixelShift(1.0).draw(count, shape[1:], generator, torch.device("cpu"))
    return latents, draws["x"].double(), draws["y"].double()


def test_against_loops() -> None:
    latents, x, y = drawn(6, (3, 5, 7))
    want = bilinear_loops(latents.numpy(), x.numpy(), y.numpy())
    assert_scaled(subpixel_shift(latents, x, y), want, 1e-12, "shifted")


def test_is_a_bilinear_sampler_with_repeated_border() -> None:
    latents, x, y = drawn(5, (4, 7, 10))
    rows, columns = (torch.arange(size, dtype=torch.float64) for size in (7, 10))
    grid = torch.stack(
        torch.broadcast_tensors(
            2 * (columns + x[:, None])[:, None, :] / 9 - 1, 2 * (rows + y[:, None])[:, :, None] / 6 - 1
        ),
        dim=-1,
    )
    want = torch.nn.functional.grid_sample(latents, grid, padding_mode="border", align_corners=True)
    torch.testing.assert_close(subpixel_shift(latents, x, y), want)


def test_offsets_fill_the_range_evenly() -> None:
    draws = SubpixelShift(0.5).draw(4000, (7, 7), torch.Generator().manual_seed(0), torch.device("cpu"))
    for axis in ("x", "y"):
        assert draws[axis].abs().max() <= 0.5 and draws[axis].abs().max() > 0.499
        assert abs(float(draws[axis].mean())) < 0.02 and abs(float(draws[axis].std()) - 0.5 / 3**0.5) < 0.01


def test_half_precision_latents_are_shifted_in_float32() -> None:
    latents, x, y = drawn(4, (3, 7, 7))
    shifted = subpixel_shift(latents.half(), x, y)
    assert shifted.dtype == torch.float16
    assert torch.equal(shifted, subpixel_shift(latents.half().float(), x, y).half())


def test_images_are_refused() -> None:
    with pytest.raises(ValueError, match="use shift"):
        SubpixelShift()(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
