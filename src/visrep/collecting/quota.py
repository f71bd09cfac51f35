"""How much is to be recorded, and which lane records how much of it: a rule that does not depend on timing."""

from __future__ import annotations

from dataclasses import dataclass

from visrep.errors import UserError

SHORTEST_MEAN = 8  # agent steps per episode for which ``agent_steps`` makes room; first rows need room too


@dataclass(frozen=True)
class Quota:
    """Whole episodes, shared out evenly: a number of episodes, or as many as reach a number of agent steps.

    Attributes:
        lanes: parallel environments.
        episodes: to record in all; None where ``agent_steps`` decides.
        agent_steps: to record in all, at least; every lane finishes the episode that reaches its share.
    """

    lanes: int
    episodes: int | None = None
    agent_steps: int | None = None

    def __post_init__(self) -> None:
        wrong = [f"{key}={n}" for key, n in (("episodes", self.episodes), ("agent_steps", self.agent_steps)) if n == 0]
        if (self.episodes is None) == (self.agent_steps is None):
            raise UserError("say how much to record: either episodes=<n> or agent_steps=<n>")
        if wrong or (self.episodes or 0) < 0 or (self.agent_steps or 0) < 0:
            raise UserError(f"{wrong[0] if wrong else self.text}: at least one is recorded")

    @property
    def text(self) -> str:
        """As it is typed."""
        return f"episodes={self.episodes}" if self.episodes is not None else f"agent_steps={self.agent_steps}"

    def share(self, lane: int) -> int:
        """Episodes, or agent steps, of one lane."""
        whole = self.episodes if self.episodes is not None else self.agent_steps
        assert whole is not None
        return whole // self.lanes + (lane < whole % self.lanes)

    def met(self, lane: int, episodes: int, agent_steps: int) -> bool:
        """Whether a lane that has recorded so much is done."""
        return (episodes if self.episodes is not None else agent_steps) >= self.share(lane)

    def total_agent_steps(self, longest: int) -> int:
        """Agent steps in all, if episodes take ``longest`` each: every lane finishes its last one."""
        if self.episodes is not None:
            return self.episodes * longest
        return sum(-(-self.share(lane) // longest) * longest for lane in range(self.lanes))

    def rows_per_lane(self, longest: int) -> int:
        """Room that the fullest lane needs when no episode is longer than ``longest``."""
        share = self.share(0)
        if self.episodes is not None:
            return share * (longest + 1)
        return share + longest + 1 + share // min(SHORTEST_MEAN, longest)
