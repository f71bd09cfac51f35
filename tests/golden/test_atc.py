"""ATC and AC against rlpyt's public code: head, masked loss, image sequences, training steps; loops."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from compare import assert_gradients, assert_scaled, assert_weights, load_weights, tensor
from contrast_case import TwoConvs, temporal, valid_from_done, window_batch
from load import Case, cases, load_case
from objective_case import RUNS, Expected, objective_on
from torch import Tensor

from visrep.augment.shift import random_shift
from visrep.data.actions import ActionSpec
from visrep.objectives import OBJECTIVES, build_objective
from visrep.objectives.parts.ema import ema_
from visrep.objectives.parts.infonce import BilinearHead, info_nce
from visrep.pace import LearningRate
from visrep.runs.representation import make_representation


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", cases("atc_contrast"))
def test_head_and_masked_loss(case: str, run: str) -> None:
    c = load_case("atc_contrast", case)
    want, param = Expected(c, run, 5e-6), c["param"]
    anchors = want.inputs["anchor_code"].requires_grad_()
    hidden = param.get("predictor.anchor_mlp.0.weight")
    head = BilinearHead(anchors.shape[1], None if hidden is None else len(hidden)).to(want.dtype)
    load_weights(head.W, param, "W")
    if head.predictor is not None:
        load_weights(head.predictor, param, "predictor.anchor_mlp")
    loss = info_nce(head(anchors), want.inputs["positive_code"], torch.from_numpy(c["in"]["valid"]))
    loss.total.backward()

    want.check(loss.outputs["logits"], "logits")
    if not c["in"]["valid"].any():  # the public code gives NaN
        assert loss.total == 0 and loss.parts["accuracy"] == 0
        assert all(not p.grad.any() for p in head.parameters()) and not anchors.grad.any()
        return
    want.check(loss.total, "loss")
    if "accuracy" in want.out:
        want.check(loss.parts["accuracy"], "accuracy")
    assert_scaled(anchors.grad, want.grad["anchor_code"], want.tolerance, "grad anchor_code")
    assert_gradients(head.W, want.grad, "W", want.tolerance)
    if head.predictor is not None:
        assert_gradients(head.predictor, want.grad, "predictor.anchor_mlp", want.tolerance)


def atc_of(c: Case, dtype: torch.dtype, segment: int, shift: int, tau: float = 0.01) -> Any:
    objective = temporal(
        "atc",
        c["param"],
        c["in"]["observation"].shape[-3:],
        dtype,
        atc_shift=shift,
        atc_segment=segment,
        atc_hidden_dim=len(c["param"]["contrast.anchor_mlp.0.weight"]),
        atc_target_tau=tau,
    )
    load_weights(objective.head.predictor, c["param"], "contrast.anchor_mlp")
    load_weights(objective.head.W, c["param"], "contrast.W")
    return objective


def shifted(images: Tensor, offsets: np.ndarray[Any, Any], pad: int) -> Tensor:
    """[T, B, C, H, W] under given (row, column) offsets [T*B, 2]."""
    return random_shift(images.flatten(0, 1), pad, shift=torch.from_numpy(offsets).flip(1)).view(images.shape)


def views_of(c: Case, images: Tensor, segment: int, shift: int, views: int) -> list[Tensor]:
    """Anchors in the first view, positives in the last, each under its own golden offsets."""
    if "rand" not in c:
        return [images] * views
    out = [images.clone() for _ in range(views)]
    pad = int(c["meta"]["pad"])
    out[0][:segment] = shifted(images[:segment], c["rand"]["shift_anchor"], pad)
    later = slice(shift, shift + segment)
    out[-1][later] = shifted(images[later], c["rand"]["shift_positive"], pad)
    return out


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", cases("atc_loss"))
def test_loss_of_image_sequences(case: str, run: str) -> None:
    c = load_case("atc_loss", case)
    want = Expected(c, run, 5e-5)
    if "out64" not in c:  # the public code casts bytes to float32, so these arrays are float32 in both runs
        want.tolerance = 5e-5
    images, shift = tensor(c["in"]["observation"], want.dtype), int(c["meta"]["delta_t"])
    segment = len(images) - shift
    objective = atc_of(c, want.dtype, segment, shift)
    spec = objective.needs()
    views = views_of(c, images, segment, shift, spec.views)
    loss = objective(window_batch(spec, views, valid_from_done(c["in"]["done"])))
    loss.total.backward()

    assert loss.outputs["valid"].tolist() == c["out"]["valid"].astype(bool).tolist()
    want.check(loss.outputs["features"].view(want.out["conv_output"].shape), "conv_output")
    want.check(loss.total, "loss")
    want.check(loss.parts["accuracy"], "accuracy")
    assert_gradients(objective.encoder.convs, want.grad, "encoder.conv", want.tolerance)
    assert_gradients(objective.compressor, want.grad, "encoder.head.0", want.tolerance)
    assert_gradients(objective.head.predictor, want.grad, "contrast.anchor_mlp", want.tolerance)
    assert_gradients(objective.head.W, want.grad, "contrast.W", want.tolerance)
    assert all(p.grad is None for p in objective.target_encoder.parameters())


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", cases("atc_update"))
def test_training_steps(case: str, run: str) -> None:
    c = load_case("atc_update", case)
    want = Expected(c, run, 1e-5)
    sequences = tensor(c["in"]["observation"], want.dtype)
    meta = c["meta"]
    objective = atc_of(c, want.dtype, segment=1, shift=sequences.shape[1] - 1, tau=float(meta["tau"]))
    rate = LearningRate(float(meta["learning_rate"]), int(meta["warmup"]), "cosine", lambda: int(meta["n_updates"]))
    clip = float(meta["clip_grad_norm"])
    representation = make_representation(objective, rate, True, first_index=0, clip_norm=clip, precision="fp32")
    assert representation is not None
    for n, images in enumerate(sequences):
        batch = window_batch(objective.needs(), [images], valid_from_done(c["in"]["done"][n]))
        metrics = representation.step(batch)
        for name in ("loss", "accuracy", "grad_norm"):
            want.check(metrics[f"repr_{name}"], name, n)
        (group,) = representation.optimizers["objective"].param_groups
        want.check(group["lr"], "learning_rate", n)
    for module, prefix in (
        (objective.encoder.convs, "encoder.conv"),
        (objective.compressor, "encoder.head.0"),
        (objective.target_encoder.convs, "target_encoder.conv"),
        (objective.target_compressor, "target_encoder.head.0"),
        (objective.head.predictor, "contrast.anchor_mlp"),
        (objective.head.W, "contrast.W"),
    ):
        assert_weights(module, want.new, prefix, want.tolerance)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", cases("atc_momentum"))
def test_momentum(case: str, run: str) -> None:
    c = load_case("atc_momentum", case)
    want = Expected(c, run, 5e-6)
    target = want.inputs["target0"].clone()
    for call, online in enumerate(want.inputs["online"]):
        ema_([target], [online], float(c["meta"]["tau"]))
        want.check(target, "target", call)


def info_nce_loops(predictions: Tensor, keys: Tensor, valid: list[bool]) -> tuple[float, float]:
    """Loss and accuracy, anchor by anchor and key by key."""
    total, found = 0.0, 0
    rows = [row for row, counts in enumerate(valid) if counts]
    for row in rows:
        scores = [sum(p * k for p, k in zip(predictions[row].tolist(), key, strict=True)) for key in keys.tolist()]
        total += math.log(sum(math.exp(score) for score in scores)) - scores[row]
        found += all(scores[row] >= score for score in scores)
    return total / len(rows), found / len(rows)


def test_info_nce_against_loops() -> None:
    generator = torch.Generator().manual_seed(3)
    predictions, keys = torch.randn(2, 7, 4, generator=generator, dtype=torch.float64)
    valid = [True, False, True, True, False, True, True]
    loss = info_nce(predictions, keys, torch.tensor(valid))
    want_loss, want_accuracy = info_nce_loops(predictions, keys, valid)
    assert loss.total.item() == pytest.approx(want_loss, rel=1e-12)
    assert float(loss.parts["accuracy"]) == pytest.approx(want_accuracy)
    whole = info_nce_loops(predictions, keys, [True] * 7)
    assert float(info_nce(predictions, keys).total) == pytest.approx(whole[0], rel=1e-12)


@pytest.mark.parametrize("rows", [256, 512])
def test_chance_is_the_logarithm_of_the_batch(rows: int) -> None:
    """5.545 and 6.238: what the log shows where nothing is learned."""
    same = torch.ones(rows, 3)
    assert float(info_nce(same, same).total) == pytest.approx(math.log(rows), rel=1e-5)


def test_large_logits_do_not_overflow() -> None:
    codes = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).mul(1e3).requires_grad_()
    loss = info_nce(codes, codes.detach()).total
    loss.backward()
    assert loss.isfinite() and codes.grad.isfinite().all()


def test_a_masked_row_keeps_its_column() -> None:
    """Trap T5: its key is a negative of the others, its own row does not count."""
    generator = torch.Generator().manual_seed(1)
    predictions, keys = torch.randn(2, 6, 4, generator=generator)
    valid = torch.tensor([True, True, False, True, True, True])
    before = info_nce(predictions, keys, valid).total
    other_row, other_key = predictions.clone(), keys.clone()
    other_row[2] += 1.0
    other_key[2] += 1.0
    assert torch.equal(info_nce(other_row, keys, valid).total, before)
    assert not torch.isclose(info_nce(predictions, other_key, valid).total, before)
    predictions.requires_grad_()
    info_nce(predictions, keys, valid).total.backward()
    assert not predictions.grad[2].any() and all(predictions.grad[row].any() for row in (0, 1, 3, 4, 5))


def small(name: str, dtype: torch.dtype = torch.float32, **config: Any) -> Any:
    torch.manual_seed(0)
    cls = OBJECTIVES[name]
    config = {"atc_code_dim": 5} | config
    return build_objective(name, TwoConvs((3, 10, 10), (4, 4)), ActionSpec(1), cls.Config(**config)).to(dtype)


def test_predictor_is_residual_and_ac_has_none() -> None:
    """Trap T2: with a predictor that says nothing ATC's prediction is W c; AC's always is."""
    codes = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    atc, ac = small("atc", atc_hidden_dim=7), small("ac")
    for layer in (atc.head.predictor[0], atc.head.predictor[2]):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    torch.testing.assert_close(atc.head(codes), codes @ atc.head.W.weight.T)
    assert ac.head.predictor is None and ac.needs().offsets == (0,)
    torch.testing.assert_close(ac.head(codes), codes @ ac.head.W.weight.T)


def test_w_is_on_the_anchors_side_without_bias_norm_or_temperature() -> None:
    """Trap T3."""
    head = BilinearHead(3, None)
    assert head.W.bias is None
    anchors, keys = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    raw = torch.einsum("ie,de,jd->ij", anchors, head.W.weight, keys).detach()
    logits = info_nce(head(anchors), keys).outputs["logits"]
    torch.testing.assert_close(logits, raw - raw.amax(dim=1, keepdim=True))


def test_target_is_encoder_and_compressor_at_one_percent() -> None:
    """Trap T4: after every step, and neither predictor nor W has a copy."""
    objective = small("atc")
    start = {name: p.clone() for name, p in objective.named_parameters() if not p.requires_grad}
    assert {name.split(".")[0] for name in start} == {"target_encoder", "target_compressor"}
    with torch.no_grad():
        for parameter in [*objective.encoder.parameters(), *objective.compressor.parameters()]:
            parameter.add_(1.0)
    objective.after_update()
    for name, parameter in objective.named_parameters():
        if name in start:
            torch.testing.assert_close(parameter, start[name] + 0.01)


@pytest.mark.parametrize(
    ("shift", "segment", "views", "offsets"),
    [(1, 1, 1, (0, 1)), (3, 1, 1, (0, 3)), (3, 2, 1, (0, 1, 3, 4)), (3, 4, 2, tuple(range(7)))],
)
def test_needs(shift: int, segment: int, views: int, offsets: tuple[int, ...]) -> None:
    """Where a frame is anchor and positive it comes in two views, so that the shifts are independent."""
    spec = small("atc", atc_shift=shift, atc_segment=segment).needs()
    assert (spec.views, spec.offsets, spec.crossing, spec.fields) == (views, offsets, "mask", frozenset({"image"}))


def test_segments_are_rows_of_one_contrast() -> None:
    """Trap T8: a window's T anchors are each other's negatives; row (t, b) is masked by its positive's position."""
    objective = small("atc", torch.float64, atc_shift=2, atc_segment=3)
    objective.encoder.double()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 5, 4, 3, 10, 10, generator=generator, dtype=torch.float64)
    valid = torch.ones(5, 4, dtype=torch.bool)
    valid[3:, 1] = False  # column 1 ends after time 2
    loss = objective(window_batch(objective.needs(), list(images), valid))
    encode, encode_target = objective.encoder, objective.target_encoder
    codes, targets, counts = [], [], []
    for t in range(3):
        for b in range(4):
            codes.append(objective.compressor(encode(images[0, t, b][None])))
            targets.append(objective.target_compressor(encode_target(images[1, t + 2, b][None])))
            counts.append(bool(valid[t + 2, b]))
    predictions, keys = objective.head(torch.cat(codes)), torch.cat(targets)
    assert loss.outputs["valid"].tolist() == counts == [True] * 4 + [True, False, True, True] * 2
    assert loss.total.item() == pytest.approx(info_nce_loops(predictions, keys, counts)[0], rel=1e-9)


def test_no_valid_row_leaves_everything_as_it_is() -> None:
    """Trap T5: the public code divides by zero here."""
    for name in ("atc", "ats"):
        objective = small(name)
        spec = objective.needs()
        views = [torch.rand(max(spec.offsets) + 1, 4, 3, 10, 10)] * spec.views
        loss = objective(window_batch(spec, views, torch.zeros(max(spec.offsets) + 1, 4, dtype=torch.bool)))
        loss.total.backward()
        assert loss.total == 0 and all(part.isfinite() for part in loss.parts.values())
        trained = [*objective.encoder.parameters(), *objective.parameters()]
        assert all(p.grad is None or not p.grad.any() for p in trained)


def test_ac_contrasts_two_views_of_one_observation() -> None:
    objective = small("ac", torch.float64)
    objective.encoder.double()
    views = torch.rand(2, 1, 4, 3, 10, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loss = objective(window_batch(objective.needs(), list(views), torch.ones(1, 4, dtype=torch.bool)))
    predictions = objective.head(objective.compressor(objective.encoder(views[0, 0])))
    keys = objective.target_compressor(objective.target_encoder(views[1, 0]))
    assert loss.total.item() == pytest.approx(info_nce_loops(predictions, keys, [True] * 4)[0], rel=1e-9)


@pytest.mark.parametrize("name", ["atc", "ac", "ats"])
def test_compressor_starts_as_asked(name: str) -> None:
    """Kaiming: deviation sqrt(2 / fan in) and no bias (networks trained off line); else torch's own."""
    offline = objective_on(name, 400, 1, torch.float32, atc_init="kaiming").compressor
    assert not offline.bias.any()
    assert float(offline.weight.detach().std()) == pytest.approx(math.sqrt(2 / 400), rel=0.02)
    online = objective_on(name, 400, 1, torch.float32).compressor
    assert online.bias.any() and online.weight.abs().max() <= 1 / math.sqrt(400)
