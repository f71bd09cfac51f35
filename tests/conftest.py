"""What every test starts from, however the test run itself was started."""

from __future__ import annotations

import signal

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_interrupts() -> None:
    """A shell ignores SIGINT in what it runs in the background, and children inherit that; the tests send SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """Weights that a test draws from torch's global generator are the same in every run, whatever ran before it."""
    torch.manual_seed(0)
