"""Schedule strings against DrQ-v2's public code."""

import numpy as np
import pytest
from load import cases, load_case

from visrep.policies.schedules import parse_schedule


@pytest.mark.parametrize("case", cases("drqv2_schedules"))
def test_schedule_table(case: str) -> None:
    c = load_case("drqv2_schedules", case)
    for text, expected in zip(c["in"]["schedule"], c["out"]["value"], strict=True):
        schedule = parse_schedule(str(text))
        got = [schedule(int(step)) for step in c["in"]["step"]]
        np.testing.assert_allclose(got, expected, rtol=1e-12, err_msg=str(text))
