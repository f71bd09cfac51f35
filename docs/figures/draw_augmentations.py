"""Draws docs/figures/augmentations.png: every augmentation on frames of a DeepMind Control task.

python docs/figures/draw_augmentations.py [environment]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from visrep.augment import OPERATORS, parse_augmentation, signature
from visrep.envs.make import make_env

SIZE, COLUMNS, SEED = 84, 5, 1
# Where the defaults do not fit images of 84 pixels, or change too few of the samples to show.
TEXTS = {"crop": "crop(64)", "grayscale": "grayscale(p=0.5)", "flip": "flip(p=0.5)", "rotate": "rotate(p=1)"}


def frame(environment: str) -> Tensor:
    """One frame uint8 [3, H, W] after a few random actions, enough for a posture that is not the first."""
    env = make_env(environment, image_size=SIZE, seed=SEED, render="auto")
    image, _ = env.reset(seed=SEED)
    env.action_space.seed(SEED)
    for _ in range(20):
        image = env.step(env.action_space.sample())[0]
    env.close()
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)


def main() -> None:
    """Five samples of every operator, one row each; the first column is what it starts from."""
    image = frame(sys.argv[1] if len(sys.argv) > 1 else "walker_walk")
    names = [name for name, cls in OPERATORS.items() if "images" in cls.domain]
    figure = Figure(figsize=(1.05 * (COLUMNS + 1), 1.25 * len(names)))
    axes = figure.subplots(len(names), COLUMNS + 1)
    for row, name in zip(axes, names, strict=True):
        text = TEXTS.get(name, signature(name))
        augment = parse_augmentation(text, 3)
        samples = augment(image.expand(COLUMNS, -1, -1, -1), torch.Generator().manual_seed(SEED))
        for axis, picture in zip(row, [image, *samples], strict=True):
            axis.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
            axis.set_axis_off()
        row[0].set_title(text, loc="left", fontsize=9)
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.005, top=0.98, wspace=0.04, hspace=0.22)
    figure.savefig(Path(__file__).with_name("augmentations.png"), dpi=80, metadata={"Software": None})


if __name__ == "__main__":
    main()
