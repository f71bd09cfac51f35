"""Runs inside the test's own process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from run_tools import add_suite


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The suite of short environments, and the number of threads as it was before."""
    add_suite(monkeypatch)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
