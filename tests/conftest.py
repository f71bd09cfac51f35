"""What every test starts from, however the test run itself was started."""

from __future__ import annotations

import signal

import pytest


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_interrupts() -> None:
    """A shell ignores SIGINT in what it runs in the background, and children inherit that; the tests send SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
