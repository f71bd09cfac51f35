"""Returns against their definitions, written with loops over single steps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visrep.data.returns import discounted_return, generalised_advantage, n_step_return, valid_steps

GAMMA, LAMBDA = 0.9, 0.8


@settings(max_examples=60, deadline=None)
@given(steps=st.integers(1, 9), columns=st.integers(1, 3), n=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_against_the_definitions(steps: int, columns: int, n: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    reward, value = torch.randn(2, steps, columns, generator=g, dtype=torch.float64)
    bootstrap = torch.randn(columns, generator=g, dtype=torch.float64)
    done = torch.rand(steps, columns, generator=g) < 0.3
    valid = valid_steps(done)
    returns = discounted_return(reward, done, bootstrap, GAMMA)
    advantage, fit = generalised_advantage(reward, value, done, bootstrap, GAMMA, LAMBDA)
    for b in range(columns):
        for t in range(steps):
            assert valid[t, b] == all(not done[s, b] for s in range(t))
            # Forward sums over what follows t in its episode; the references above run backwards.
            total, gae, s = 0.0, 0.0, t
            while True:
                following = 0.0 if done[s, b] else (value[s + 1, b] if s + 1 < steps else bootstrap[b])
                delta = reward[s, b] + GAMMA * following - value[s, b]
                total += GAMMA ** (s - t) * reward[s, b]
                gae += (GAMMA * LAMBDA) ** (s - t) * delta
                if done[s, b] or s + 1 == steps:
                    break
                s += 1
            if not done[s, b]:
                total += GAMMA ** (steps - t) * bootstrap[b]
            torch.testing.assert_close(returns[t, b], torch.as_tensor(total, dtype=torch.float64))
            torch.testing.assert_close(advantage[t, b], torch.as_tensor(gae, dtype=torch.float64))
            torch.testing.assert_close(fit[t, b], advantage[t, b] + value[t, b])
    if steps >= n:
        sums, ended = n_step_return(reward, done, n, GAMMA)
        for b in range(columns):
            for t in range(steps - n + 1):
                total = 0.0
                for i in range(n):
                    total += GAMMA**i * float(reward[t + i, b])
                    if done[t + i, b]:
                        break
                assert abs(sums[t, b] - total) < 1e-12
                assert ended[t, b] == done[t : t + n, b].any()


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="4-step returns need at least 4"):
        n_step_return(torch.zeros(3, 1), torch.zeros(3, 1, dtype=torch.bool), 4, 0.9)
