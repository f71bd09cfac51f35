"""Encoder files to export, one of every kind that computes something."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from export_tools import SIZE, encoder_of

from visrep.encoders import Encoder, InputContract, build_encoder
from visrep.network_files import save_encoder


@pytest.fixture(autouse=True, scope="session")
def _sb3_logs(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Stable-Baselines3 opens a log folder per learner; they go where pytest cleans up."""
    os.environ["SB3_LOGDIR"] = str(tmp_path_factory.mktemp("sb3"))


@pytest.fixture
def encoder() -> Encoder:
    """The smallest encoder that the libraries' tests need."""
    return encoder_of("proto")


@pytest.fixture
def encoder_file(encoder: Encoder, tmp_path: Path) -> Path:
    path = tmp_path / "encoder.safetensors"
    save_encoder(encoder, path, {"config": {"method": "proto", "env": "toy/maze"}, "agent_step": 400})
    return path


@pytest.fixture
def vector_file(tmp_path: Path) -> Path:
    """A file of a kind that hands its input through."""
    path = tmp_path / "vector.safetensors"
    save_encoder(build_encoder("vector", InputContract(1, 1, channels=5, stack=3)), path, {})
    return path


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (5, 9, SIZE, SIZE), dtype=torch.uint8, generator=generator)
