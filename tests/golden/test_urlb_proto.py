"""The same Proto-RL pieces reproduce URLB's variant, whose predictor and projector are named the other way round."""

import pytest
import torch
from compare import assert_scaled, tensor
from load import cases, load_case
from objective_case import RUNS, Expected, fill, objective_on

from visrep.objectives import Transition
from visrep.objectives.proto import prototype_loss


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", cases("urlb_proto"))
def test_against_public_code(case: str, run: str) -> None:
    c = load_case("urlb_proto", case)
    want = Expected(c, run, 5e-6)
    raw = tensor(c["param"]["prototypes"], want.dtype)
    hidden, dim = c["param"]["projector.fc1.weight"].shape
    objective = objective_on(
        "proto",
        c["in"]["obs"].shape[2],
        1,
        want.dtype,
        proj_dim=dim,
        pred_dim=hidden,
        num_protos=len(raw),
        queue_size=int(c["meta"]["queue_size"]),
        topk=int(c["meta"]["topk"]),
        T=float(c["meta"]["tau"]),
    )
    objective.prototypes.data.copy_(raw)
    fill(objective.projector, c["param"], "predictor")
    fill(objective.target_projector, c["param"], "predictor_target")
    fill(objective.predictor, c["param"], "projector")
    for call, (obs, next_obs) in enumerate(zip(want.inputs["obs"], want.inputs["next_obs"], strict=True)):
        objective._normalise_prototypes()
        loss, _ = prototype_loss(
            objective.predictor(objective.projector(obs)),
            objective.target_projector(next_obs),
            objective.prototypes,
            objective.config.T,
        )
        want.check(loss, "loss", call)
        if call == 0:
            loss.backward()
            want.check_gradients(objective.projector, "predictor")
            want.check_gradients(objective.predictor, "projector")
            assert_scaled(objective.prototypes.grad, want.grad["prototypes"], want.tolerance, "grad prototypes")
        embedding = objective.embed(Transition(obs, obs[:, :1], next_obs))
        objective.remember(embedding, candidates=torch.from_numpy(c["rand"]["candidate_index"][call]))
        want.check(objective.novelty(embedding), "reward", call)
        want.check(objective.queue, "queue", call)
        assert objective.queue_ptr == c["out"]["queue_ptr"][call]
