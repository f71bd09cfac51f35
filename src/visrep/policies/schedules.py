"""Schedule strings: values that depend on the agent step."""

from __future__ import annotations

import re
from collections.abc import Callable

Schedule = Callable[[int], float]

_FORM = re.compile(r"^(linear|step_linear)\((.*)\)$")
_ARGUMENTS = {"linear": 3, "step_linear": 5}
_HELP = "a number, linear(start,end,agent_steps) or step_linear(start,middle,agent_steps,end,agent_steps)"


def _ramp(start: float, end: float, fraction: float) -> float:
    mix = min(max(fraction, 0.0), 1.0)
    return (1.0 - mix) * start + mix * end


def parse_schedule(text: str) -> Schedule:
    """Turn a schedule string into a function of the agent step (DrQ-v2's notation).

    Args:
        text: a number, ``linear(a,b,T)`` (a to b over T steps, then b) or ``step_linear(a,b,T1,c,T2)`` (a to b over
            T1 steps, then b to c over the following T2).

    Raises:
        ValueError: for anything else.
    """
    match = _FORM.match(text.replace(" ", ""))
    try:
        values = [float(v) for v in match.group(2).split(",")] if match else [float(text)]
    except ValueError:
        raise ValueError(f"schedule {text!r} is not understood: write {_HELP}") from None
    if not match:
        return lambda agent_step: values[0]
    kind = match.group(1)
    if len(values) != _ARGUMENTS[kind]:
        raise ValueError(
            f"schedule {text!r} has {len(values)} arguments, {kind} takes {_ARGUMENTS[kind]}: write {_HELP}"
        )
    if min(values[2::2]) <= 0:
        raise ValueError(f"schedule {text!r} has a duration that is not positive: write {_HELP}")
    if kind == "linear":
        start, end, duration = values
        return lambda agent_step: _ramp(start, end, agent_step / duration)
    start, middle, first, end, second = values

    def step_linear(agent_step: int) -> float:
        if agent_step <= first:
            return _ramp(start, middle, agent_step / first)
        return _ramp(middle, end, (agent_step - first) / second)

    return step_linear
