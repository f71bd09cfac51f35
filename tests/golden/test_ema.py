"""Exponential moving average against DrQ-v2's public code."""

import pytest
import torch
from load import cases, load_case
from objective_case import RUNS, Expected

from visrep.objectives.parts.ema import ema_, frozen_copy


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", cases("soft_update"))
def test_against_public_code(case: str, run: str) -> None:
    c = load_case("soft_update", case)
    want = Expected(c, run, 5e-6)
    target = want.inputs["target0"].clone()
    for call, online in enumerate(want.inputs["online"]):
        ema_([target[:3], target[3:]], [online[:3], online[3:]], float(c["meta"]["tau"]))
        want.check(target, "target", call)


def test_lists_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="1 tensors and the online network 2"):
        ema_([torch.zeros(2)], [torch.zeros(2), torch.zeros(2)], 0.1)


def test_frozen_copy_is_a_copy() -> None:
    online = torch.nn.Linear(2, 2)
    target = frozen_copy(online)
    ema_(target.parameters(), [p + 1 for p in online.parameters()], 1.0)
    torch.testing.assert_close(target.weight, online.weight + 1)
    assert not any(p.requires_grad for p in target.parameters())
