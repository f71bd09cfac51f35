"""What the keys of a run become: the learner of a phase, its pace, its first actions and what it stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_tools import add_suite

from visrep.config import Config, parse
from visrep.data.actions import ActionSpec
from visrep.envs.vector import VectorEnv
from visrep.log import RunLog
from visrep.policies.sac import SAC
from visrep.runs.compose import Networks, Source, build_networks, env_spec
from visrep.runs.counters import Counters
from visrep.runs.interact import Phase, Rig, interact
from visrep.runs.learning import build_learner
from visrep.runs.monitor import Monitor
from visrep.runs.phases import PhasePlan, plan_phases
from visrep.runs.recording import Recorder
from visrep.runs.rig import build_rig
from visrep.runs.update import Learner

CPU = torch.device("cpu")
# The preset of ATC's paper, shrunk.
SMALL = (
    "preset=atc_dmc+tiny", "env=short/toy", "num_expl_steps=0", "num_train_steps=20", "num_random_steps=12",
    "num_seed_steps=16", "batch_size=8", "image_size=32", "hidden_dim=16", "atc_code_dim=8", "atc_hidden_dim=8",
)  # fmt: skip
LATENTS = ("replay=latents", "encoder_gradient=none")


@pytest.fixture(autouse=True)
def suite(monkeypatch: pytest.MonkeyPatch) -> None:
    add_suite(monkeypatch)


def prepared(*words: str) -> tuple[Config, Networks, PhasePlan]:
    keys = {word.partition("=")[0]: word for word in (*SMALL, *words)}
    config = parse([*keys.values()])
    networks = build_networks(config, Source((3, 32, 32), ActionSpec(2)), CPU)
    (plan,) = plan_phases(config, "train", networks)
    return config, networks, plan


def learner(*words: str) -> Learner:
    config, networks, plan = prepared(*words)
    return build_learner(config, networks, plan.intrinsic, plan.encoder_gradient, torch.Generator(), lambda: 100)


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[Callable[..., tuple[Rig, Phase]]]:
    """The parts of the phase that words ask for."""
    with ExitStack() as stack:

        def make(*words: str) -> tuple[Rig, Phase]:
            config, networks, plan = prepared(*words)
            envs = stack.enter_context(VectorEnv(env_spec(config), 1, 0))
            log, counters = RunLog(tmp_path, 1, tensorboard=False), Counters()
            stack.callback(log.close)
            monitor = Monitor(log, counters, 1, None, 1000, CPU)
            return build_rig(config, networks, envs, counters, monitor, plan, tmp_path / "store", CPU), plan.phase

        yield make


def test_the_target_critics_encoder_is_a_copy_of_its_own() -> None:
    """Apart from the encoder, and from ATC's momentum encoder, which moves at another rate."""
    one: Any = learner()
    own = list(one.target_encoder.parameters())
    others = {id(parameter) for module in (one.encoder, one.objective) for parameter in module.parameters()}
    assert not others & {id(parameter) for parameter in own}
    assert all(torch.equal(a, b) for a, b in zip(own, one.encoder.parameters(), strict=True))
    assert learner("conv_target_tau=none").target_encoder is None
    assert learner("encoder_gradient=none").target_encoder is None, "it would stay equal to the encoder"


def test_bound_and_rate_of_the_objectives_steps() -> None:
    representation = learner("repr_grad_clip=0.5", "lr=0.003", "repr_lr=0.02").representation
    assert representation is not None
    assert (representation.clip_norm, representation.rate.peak, representation.first_index) == (0.5, 0.02, 1)


@pytest.mark.parametrize("arm", ["critic", "both"])
def test_the_critic_trains_the_encoder_at_the_policys_rate(arm: str) -> None:
    one = learner(f"encoder_gradient={arm}", "lr=0.003", "repr_lr=0.02")
    assert one.encoder_optimizer is not None
    (group,) = one.encoder_optimizer.param_groups
    assert group["lr"] == 0.003 and group["params"] == list(one.encoder.parameters())
    slower = learner(f"encoder_gradient={arm}", "lr=0.003", "encoder_lr_scale=0.1").encoder_optimizer
    assert slower is not None and slower.param_groups[0]["lr"] == pytest.approx(0.0003)


def test_the_objective_may_have_an_augmentation_of_its_own() -> None:
    one = learner("repr_augment=shift(2)")
    assert (str(one.augment), str(one.repr_augment)) == ("shift(pad=4, p=1.0)", "shift(pad=2, p=1.0)")
    assert not one.shares_images and learner().shares_images
    one = learner("augment=shift+cutout", "repr_augment=flip + shift", "shift_pad=3")
    assert str(one.augment).startswith("shift(pad=3, p=1.0)+cutout(")
    assert str(one.repr_augment).endswith("+shift(pad=3, p=1.0)")
    one = learner("augment=shift+flip", "repr_augment=shift", "shift_pad=0")
    assert str(one.augment).startswith("flip(") and one.repr_augment is None


def test_pulses_count_agent_steps() -> None:
    """At half an update per agent step, eight agent steps are four updates."""
    _, _, plan = prepared("repr_updates=pulse_8_3", "updates_per_agent_step=0.5")
    assert [plan.pace.at(tick, 0) for tick in range(9)] == [3, 0, 0, 0, 3, 0, 0, 0, 3]


def test_the_first_actions_spread_around_the_policys_mean(
    make_rig: Callable[..., tuple[Rig, Phase]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 0.75, ATC's, for num_random_steps; then the policy's own distribution is sampled."""
    spreads: list[float | None] = []
    explore, act = SAC.explore, SAC.act

    def exploring(self: SAC, features: Any, std: float, *more: Any) -> Any:
        spreads.append(std)
        return explore(self, features, std, *more)

    def acting(self: SAC, features: Any, agent_step: int, sample: bool, **more: Any) -> Any:
        spreads.append(None)
        assert sample
        return act(self, features, agent_step, sample, **more)

    monkeypatch.setattr(SAC, "explore", exploring)
    monkeypatch.setattr(SAC, "act", acting)
    assert interact(*make_rig(), lambda rig: True)
    assert spreads == [0.75] * 12 + [None] * 8


def test_latents_are_those_of_the_images_as_they_are(
    make_rig: Callable[..., tuple[Rig, Phase]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    rows = Recorder.rows

    def watched(self: Recorder, stacker: Any, lanes: Any, frames: Any) -> Any:
        seen.append(torch.from_numpy(stacker.frames[lanes]))
        return rows(self, stacker, lanes, frames)

    monkeypatch.setattr(Recorder, "rows", watched)
    rig, phase = make_rig(*LATENTS)
    assert interact(rig, phase, lambda rig: True)
    with torch.no_grad():
        expected = torch.cat([rig.agent.encoder.latents(stack) for stack in seen])
    numbers = np.arange(len(seen))
    stored = torch.from_numpy(rig.store.read("image", np.zeros_like(numbers), numbers))
    assert len(seen) > 20 and len(stored.unique(dim=0)) > 10
    torch.testing.assert_close(stored, expected)


@pytest.mark.parametrize(("shift", "written"), [("0.25", "subpixel_shift(max=0.25)"), ("0", "None")])
def test_replayed_latents_are_shifted_by_their_own_bound(
    shift: str, written: str, make_rig: Callable[..., tuple[Rig, Phase]]
) -> None:
    """And not by the shift of images, whose pixels are smaller."""
    rig, _ = make_rig(*LATENTS, f"latent_shift={shift}")
    assert (str(rig.learner.augment), str(rig.learner.repr_augment)) == (written, written)
