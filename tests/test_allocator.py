"""Freed memory is kept: later rounds of large tensors map no new pages."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource
from visrep.allocator import keep_freed_memory
kept = {keep} and keep_freed_memory()
import torch
torch.set_num_threads(1)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):  # the heap settles in the first rounds
    before = faults()
    blocks = [torch.ones(10_000_000) for _ in range(4)]  # 40 MB each
    del blocks
print(kept, faults() - before)
"""


def last_round(keep: bool) -> tuple[bool, int]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(keep=keep)], capture_output=True, text=True, check=True, timeout=120
    )
    kept, faults = done.stdout.split()
    return kept == "True", int(faults)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the settings are glibc's")
def test_pages_are_reused() -> None:
    kept, faults = last_round(keep=True)
    if not kept:
        pytest.skip("this C library takes no mallopt")
    assert faults < 50
    assert last_round(keep=False)[1] > faults
