"""Schedule strings that cannot be read are refused with the forms that can."""

import pytest
from pydantic import ValidationError

from visrep.policies.drqv2 import DrQv2Config
from visrep.policies.schedules import parse_schedule


@pytest.mark.parametrize(
    "text", ["", "cosine(1,0,10)", "linear(1,0)", "linear(1,0,10,5)", "linear(a,b,c)", "linear(1,0,0)", "1.0 to 0.1"]
)
def test_unreadable_schedules(text: str) -> None:
    with pytest.raises(ValueError, match=r"linear\(start,end,agent_steps\)"):
        parse_schedule(text)


def test_config_refuses_them() -> None:
    with pytest.raises(ValidationError, match="std_schedule"):
        DrQv2Config(std_schedule="linear(1.0,0.1)")


def test_spaces_do_not_matter() -> None:
    assert parse_schedule(" linear( 1.0, 0.0, 10 ) ")(5) == 0.5
