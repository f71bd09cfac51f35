"""Videos of episodes: uint8 frames to an H.264 .mp4 file, through PyAV (no system ffmpeg needed)."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

from visrep.files import TEMPORARY

MIN_SIDE = 256  # pixels; smaller frames are enlarged by a whole factor, so that pixels stay sharp squares


def not_showable(channels: int, dtype: str) -> str | None:
    """Why frames of so many channels and this NumPy dtype cannot be shown as pictures; None where they can."""
    if dtype != "uint8":
        return f"the frames are {dtype} values, and only uint8 pixels can be shown"
    if channels not in (1, 3):
        return f"the frames have {channels} channels, and only grey (1) and RGB (3) can be shown"
    return None


def write_video(path: Path, frames: Iterable[np.ndarray], fps: int = 100) -> Path:
    """Encode ``frames`` as ``path`` (.mp4, H.264, yuv420p), replacing it at once when the video is complete.

    Args:
        path: file to write; its folder is made when absent.
        frames: uint8 [H, W, 3], or [H, W, 1] for grey, each, all of one size; consumed one at a time.
        fps: frames per second; the public Proto-RL code uses 100.

    Raises:
        ValueError: there are no frames, or one has another type, layout or size than the first.
    """
    path = Path(path)
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise ValueError(f"cannot write {path}: there are no frames")
    shape = first.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
    try:
        with av.open(str(temporary), mode="w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream: VideoStream | None = None
            for index, frame in enumerate(itertools.chain([first], iterator)):
                layout = frame.ndim == 3 and not_showable(frame.shape[2], str(frame.dtype)) is None
                if not layout or frame.shape != shape:
                    raise ValueError(
                        f"cannot write {path}: frame {index} is {frame.dtype} {list(frame.shape)}; every frame must be "
                        f"uint8 [height, width, 3 or 1] of the first one's size {list(shape)}"
                    )
                image = _fit(frame)
                if stream is None:
                    stream = _add_stream(container, image, fps)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            assert stream is not None
            container.mux(stream.encode())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _add_stream(container: av.container.OutputContainer, image: np.ndarray, fps: int) -> VideoStream:
    stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": "20", "preset": "fast"})
    stream.height, stream.width = image.shape[:2]
    stream.pix_fmt = "yuv420p"
    stream.codec_context.thread_count = 1  # leave the other cores to the learner and the environments
    return stream


def _fit(frame: np.ndarray) -> np.ndarray:
    """[H, W, 3 or 1] to RGB, enlarged by a whole factor to at least MIN_SIDE and even sides (yuv420p halves both)."""
    frame = np.broadcast_to(frame, (*frame.shape[:2], 3))
    factor = -(-MIN_SIDE // min(frame.shape[:2]))
    if factor > 1:
        frame = frame.repeat(factor, axis=0).repeat(factor, axis=1)
    odd_rows, odd_columns = frame.shape[0] % 2, frame.shape[1] % 2
    if odd_rows or odd_columns:
        frame = np.pad(frame, ((0, odd_rows), (0, odd_columns), (0, 0)), mode="edge")
    return np.ascontiguousarray(frame)
