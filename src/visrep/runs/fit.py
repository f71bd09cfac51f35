"""What an encoder, an objective and an environment cannot do together, said before any work is done."""

from __future__ import annotations

from visrep.config import Config
from visrep.encoders.contract import Encoder
from visrep.envs.vector import VectorEnv
from visrep.errors import UserError
from visrep.objectives.contract import Objective
from visrep.runs.compose import Networks


def check_fit(config: Config, networks: Networks, envs: VectorEnv) -> None:
    """Raise UserError where a run could only idle or fail once learning begins."""
    run, objective = config.run, networks.objective
    trained = run.encoder_gradient in ("critic", "both") or (objective is not None and run.encoder_gradient != "none")
    if trained and run.transfer != "frozen":
        require_weights(networks.encoder, f"encoder_gradient={run.encoder_gradient}")
    if objective is not None and run.encoder_gradient != "none":
        _require_reach(objective, envs, run.env)


def require_weights(encoder: Encoder, asked: str) -> None:
    """Raise UserError unless the encoder has something to train; ``asked`` is the setting that asks for it."""
    if not any(True for _ in encoder.parameters()):
        raise UserError(
            f"{asked}: the {encoder.kind!r} encoder, which passes on what it gets, has no weights to train. State "
            "vectors are learned on as they are: set encoder_gradient=none and method=none (preset=sac_state), or "
            "take observation=pixels"
        )


def _require_reach(objective: Objective, envs: VectorEnv, env: str) -> None:
    offsets, longest = objective.needs().offsets, envs.max_agent_steps
    span = max(0, *offsets) - min(0, *offsets)
    if longest is not None and span > longest:
        raise UserError(
            f"method={objective.name}: its offset {span} is longer than an episode of env={env} ({longest} agent "
            "steps): choose a smaller offset (temporal shift)"
        )
