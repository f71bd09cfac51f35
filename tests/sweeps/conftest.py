"""What every sweep test starts from."""

from __future__ import annotations

import pytest

import visrep.sweeps.scheduler as scheduler_module


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "POLL_SECONDS", 0.02)
