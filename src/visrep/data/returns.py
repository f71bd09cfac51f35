"""Validity and returns of segments of experience, from flags that say where episodes end.

Here row t is a *step*, as policies that learn from segments see it: observation o_t, the action taken there, and the
reward r_t and flag d_t of the transition to o_{t+1}. (A store keeps both in row t+1.)

Shapes: T steps, B columns (environments).
"""

from __future__ import annotations

import torch
from torch import Tensor


def valid_steps(done: Tensor) -> Tensor:
    """Whether no episode ended strictly before each step, bool [T, B] from bool [T, B].

    True up to and including the first step whose transition ends the episode: its observation still belongs to it.
    """
    ended = done.to(torch.int64).cumsum(0)
    return (ended - done.to(torch.int64)) == 0


def discounted_return(reward: Tensor, done: Tensor, bootstrap: Tensor, gamma: float) -> Tensor:
    """R_t = r_t + gamma (1 - d_t) R_{t+1} with R_T = ``bootstrap``.

    Args:
        reward: [T, B].
        done: bool [T, B].
        bootstrap: value after the last step, [B].
        gamma: discount per step.

    Returns:
        [T, B] in the dtype of ``reward``.
    """
    going_on = gamma * (~done).to(reward.dtype)
    returns, following = torch.empty_like(reward), bootstrap
    for t in reversed(range(len(reward))):
        following = returns[t] = reward[t] + going_on[t] * following
    return returns


def generalised_advantage(
    reward: Tensor, value: Tensor, done: Tensor, bootstrap: Tensor, gamma: float, lambda_: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates (Schulman et al. 2016, eq. 16) and the returns A_t + v_t to fit values to.

    delta_t = r_t + gamma (1 - d_t) v_{t+1} - v_t, A_t = delta_t + gamma lambda (1 - d_t) A_{t+1}.

    Args:
        reward: [T, B].
        value: v_t, [T, B].
        done: bool [T, B].
        bootstrap: value after the last step, [B].
        gamma: discount per step.
        lambda_: 0 for one-step advantages, 1 for those of whole returns.

    Returns:
        Advantages and returns, [T, B] each.
    """
    going_on = gamma * (~done).to(reward.dtype)
    following = torch.cat([value[1:], bootstrap[None]])
    delta = reward + going_on * following - value
    advantage, later = torch.empty_like(reward), torch.zeros_like(bootstrap)
    for t in reversed(range(len(reward))):
        later = advantage[t] = delta[t] + lambda_ * going_on[t] * later
    return advantage, advantage + value


def n_step_return(reward: Tensor, done: Tensor, n: int, gamma: float) -> tuple[Tensor, Tensor]:
    """sum_{i<n} gamma^i r_{t+i}, rewards after an episode's end left out, without bootstrap.

    Args:
        reward: [T, B] with T >= n.
        done: bool [T, B].
        n: steps of the return.
        gamma: discount per step.

    Returns:
        [T-n+1, B] returns, and bool [T-n+1, B] whether the episode ended inside the n steps.

    Raises:
        ValueError: fewer than n steps.
    """
    windows = len(reward) - n + 1
    if n < 1 or windows < 1:
        raise ValueError(f"{n}-step returns need at least {n} (and one) steps, got {len(reward)}")
    returns = torch.zeros_like(reward[:windows])
    ended = torch.zeros_like(done[:windows])
    for i in range(n):
        returns = returns + gamma**i * reward[i : i + windows] * ~ended
        ended = ended | done[i : i + windows]
    return returns, ended
