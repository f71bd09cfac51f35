"""Proto-RL's loss, gradients, reward and queue against its public code, loops, and the statistics of the draw."""

import math

import pytest
import torch
from compare import assert_scaled, tensor
from load import cases, load_case
from objective_case import RUNS, Expected, fill, objective_on
from test_sinkhorn import sinkhorn_loops
from torch import Tensor
from torch.nn import functional as F

from visrep.objectives import Transition
from visrep.objectives.parts.heads import mlp
from visrep.objectives.proto import ProtoConfig, draw_candidates, prototype_loss


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", cases("proto_repr_loss"))
def test_loss_and_gradients(case: str, run: str) -> None:
    c = load_case("proto_repr_loss", case)
    want = Expected(c, run, 2e-5)
    hidden, dim = c["param"]["predictor.fc1.weight"].shape
    raw = tensor(c["param"]["prototypes"], want.dtype)
    objective = objective_on(
        "proto",
        4,
        1,
        want.dtype,
        proj_dim=dim,
        pred_dim=hidden,
        num_protos=len(raw),
        queue_size=3 * len(raw),
        T=float(c["meta"]["temperature"]),
    )
    fill(objective.predictor, c["param"], "predictor")
    objective.prototypes.data.copy_(raw)
    objective._normalise_prototypes()
    online = want.inputs["online_projection"].requires_grad_()
    loss, out = prototype_loss(
        objective.predictor(online), want.inputs["target_projection"], objective.prototypes, objective.config.T
    )
    loss.backward()

    want.check(loss, "loss")
    for name, value in out.items():
        want.check(value, name)
    assert_scaled(objective.prototypes, want.new["prototypes"], want.tolerance, "new prototypes")
    assert online.grad is not None and objective.prototypes.grad is not None
    assert_scaled(online.grad, want.grad["online_projection"], want.tolerance, "grad online_projection")
    assert_scaled(objective.prototypes.grad, want.grad["prototypes"], want.tolerance, "grad prototypes")
    want.check_gradients(objective.predictor, "predictor")


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", cases("proto_intrinsic_reward"))
def test_reward_and_queue(case: str, run: str) -> None:
    c = load_case("proto_intrinsic_reward", case)
    want = Expected(c, run, 2e-4)
    raw = tensor(c["param"]["prototypes"], want.dtype)
    dim = raw.shape[1]
    objective = objective_on(
        "proto",
        dim,
        1,
        want.dtype,
        proj_dim=dim,
        num_protos=len(raw),
        queue_size=int(c["meta"]["queue_size"]),
        topk=int(c["meta"]["topk"]),
    )
    objective.prototypes.data.copy_(raw)
    with torch.no_grad():  # projections are given, so the projector passes them on
        objective.projector.weight.copy_(torch.eye(dim))
    action = torch.zeros(c["in"]["projection"].shape[1], 1)
    for call, projection in enumerate(want.inputs["projection"]):
        embedding = objective.embed(Transition(projection, action, projection))
        candidates = torch.from_numpy(c["rand"]["candidate_index"][call])
        objective.remember(embedding, candidates=candidates)
        probability = F.softmax(objective.prototypes @ embedding.T, dim=1)
        want.check(probability, "candidate_prob", call)
        want.check(objective.novelty(embedding), "reward", call)
        want.check(objective.queue, "queue", call)
        assert objective.queue_ptr == c["out"]["queue_ptr"][call]
    assert_scaled(objective.prototypes, want.new["prototypes"], want.tolerance, "new prototypes")


def loss_loops(online: Tensor, target: Tensor, prototypes: Tensor, temperature: float) -> float:
    """The loss, sample by sample and prototype by prototype."""

    def cosine(a: list[float], b: list[float]) -> float:
        length = math.sqrt(sum(x * x for x in a))
        return sum(x * y for x, y in zip(a, b, strict=True)) / length

    target_scores = [[cosine(t, p) for p in prototypes.tolist()] for t in target.tolist()]
    q = sinkhorn_loops(torch.tensor(target_scores, dtype=torch.float64), temperature, 3)
    total = 0.0
    for row, vector in zip(q, online.tolist(), strict=True):
        logits = [cosine(vector, p) / temperature for p in prototypes.tolist()]
        log_total = math.log(sum(math.exp(x) for x in logits))
        total -= sum(weight * (x - log_total) for weight, x in zip(row, logits, strict=True))
    return total / len(q)


def test_loss_against_loops() -> None:
    generator = torch.Generator().manual_seed(3)
    online, target, raw = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (6, 6, 4))
    prototypes = F.normalize(raw, dim=1)
    loss, _ = prototype_loss(online, target, prototypes, 0.2)
    assert float(loss) == pytest.approx(loss_loops(online, target, prototypes, 0.2), rel=1e-12)


def test_sinkhorn_temperature_of_its_own() -> None:
    vectors = F.normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    _, tied = prototype_loss(vectors, vectors, vectors, 0.1)
    _, loose = prototype_loss(vectors, vectors, vectors, 0.1, sinkhorn_temperature=1.0)
    assert torch.equal(tied["log_p"], loose["log_p"])
    assert loose["q"].max() < tied["q"].max()


@pytest.mark.parametrize("temperature", [None, 0.1])
def test_candidates_follow_the_softmax_over_the_batch(temperature: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    embedding = F.normalize(torch.randn(6, 4, generator=generator), dim=1)
    prototype = F.normalize(torch.randn(1, 4, generator=generator), dim=1)
    draws = draw_candidates(embedding, prototype.repeat(40_000, 1), temperature, generator)
    frequency = torch.bincount(draws, minlength=6) / len(draws)
    want = F.softmax((prototype @ embedding.T).squeeze(0) / (temperature or 1.0), dim=0)
    assert (frequency - want).abs().max() < 0.012  # 5 standard deviations at the most uncertain frequency
    again = draw_candidates(embedding, prototype, temperature, torch.Generator().manual_seed(7))
    assert again == draw_candidates(embedding, prototype, temperature, torch.Generator().manual_seed(7))


def test_share_of_exact_zeros_is_the_published_eight_percent() -> None:
    """With B = K = 512 and topk = 3 a row is its own third neighbour with probability P(copies >= 3) ≈ 0.080."""
    objective = objective_on("proto", 128, 1, torch.float32)
    generator = torch.Generator().manual_seed(0)
    shares = []
    for _ in range(10):
        embedding = F.normalize(torch.randn(512, 128, generator=generator), dim=1)
        objective.remember(embedding, generator)
        shares.append((objective.novelty(embedding) == 0).float().mean())
    assert torch.stack(shares).mean() == pytest.approx(0.080, abs=0.015)


def test_queue_size_message_names_fitting_sizes() -> None:
    with pytest.raises(ValueError, match="1536 or 2048"):
        ProtoConfig(queue_size=2000)
    with pytest.raises(ValueError, match="are 512"):
        ProtoConfig(queue_size=100)
    with pytest.raises(ValueError, match="topk=9"):
        ProtoConfig(queue_size=8, num_protos=4, topk=9)


def test_target_follows_encoder_and_projector_only() -> None:
    objective = objective_on("proto", 6, 1, torch.float32, proj_dim=4, num_protos=4, queue_size=8)
    start = objective.target_projector.weight.clone()
    with torch.no_grad():
        objective.projector.weight.add_(1.0)
        objective.predictor[0].weight.add_(1.0)
    objective.after_update()
    torch.testing.assert_close(objective.target_projector.weight, start + 0.05)
    owned = {name.split(".")[0] for name, p in objective.named_parameters() if not p.requires_grad}
    assert owned <= {"target_encoder", "target_projector"}


def test_diagnostics_see_collapse_and_filling() -> None:
    objective = objective_on("proto", 4, 1, torch.float32, proj_dim=4, num_protos=4, queue_size=8)
    assert objective.diagnostics()["prototype_usage_entropy"] == pytest.approx(1.0)
    assert objective.diagnostics()["queue_fill"] == 0
    objective.usage.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    objective.remember(F.normalize(torch.randn(5, 4), dim=1))
    assert objective.diagnostics()["prototype_usage_entropy"] == 0
    assert objective.diagnostics()["queue_fill"] == 0.5


def test_predictor_is_two_layers() -> None:
    assert [tuple(p.shape) for p in mlp(128, 512, 128).parameters()] == [(512, 128), (512,), (128, 512), (128,)]
