"""Videos decode to what was shown, whatever the frame size, and appear only when complete."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from visrep.video import write_video


def decode(path: Path) -> tuple[list[np.ndarray], float, str]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(stream)]
        return frames, float(stream.average_rate or 0), stream.codec_context.name


def colours(count: int, height: int, width: int) -> list[np.ndarray]:
    palette = [(200, 40, 40), (40, 200, 40), (40, 40, 200)]
    return [np.full((height, width, 3), palette[i % 3], np.uint8) for i in range(count)]


@pytest.mark.parametrize(
    ("size", "expected"),
    [((84, 84), (336, 336)), ((24, 24), (264, 264)), ((257, 301), (258, 302)), ((256, 256), (256, 256))],
)
def test_frames_come_back_enlarged_and_even(tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]) -> None:
    path = write_video(tmp_path / "video" / "0.mp4", iter(colours(7, *size)), fps=50)
    frames, fps, codec = decode(path)
    assert len(frames) == 7 and fps == 50 and codec == "h264"
    for sent, got in zip(colours(7, *size), frames):
        assert got.shape == (*expected, 3)
        assert np.abs(got.astype(int) - sent[0, 0]).mean() < 12  # chroma subsampling and compression
    assert [p.name for p in path.parent.iterdir()] == ["0.mp4"]


def test_a_pixel_stays_a_square(tmp_path: Path) -> None:
    frame = np.zeros((32, 32, 3), np.uint8)
    frame[10, 20] = 255
    (got,), _, _ = decode(write_video(tmp_path / "x.mp4", [frame]))
    assert got.shape == (256, 256, 3)
    assert got[81:87, 161:167].mean() > 200 and got[100:].mean() < 10


def test_grey_frames_become_grey_pictures(tmp_path: Path) -> None:
    frame = np.zeros((32, 32, 1), np.uint8)
    frame[:16] = 200
    (got,), _, _ = decode(write_video(tmp_path / "x.mp4", [frame]))
    assert got.shape == (256, 256, 3) and np.ptp(got.astype(int), axis=-1).max() < 12
    assert got[:120].mean() > 180 and got[136:].mean() < 20


def test_a_failed_writing_leaves_the_old_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.mp4", colours(2, 64, 64))
    before = path.read_bytes()

    def breaks() -> Iterator[np.ndarray]:
        yield from colours(3, 64, 64)
        raise RuntimeError("the environment died")

    with pytest.raises(RuntimeError, match="died"):
        write_video(path, breaks())
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["x.mp4"]


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [np.zeros((64, 64, 3), np.float32)],
        [np.zeros((3, 64, 64), np.uint8)],
        [np.zeros((64, 64, 2), np.uint8)],
        [np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, 1), np.uint8)],
        [np.zeros((64, 64, 3), np.uint8), np.zeros((32, 32, 3), np.uint8)],
    ],
)
def test_wrong_frames_are_named(tmp_path: Path, frames: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="cannot write"):
        write_video(tmp_path / "x.mp4", frames)
    assert list(tmp_path.iterdir()) == []
