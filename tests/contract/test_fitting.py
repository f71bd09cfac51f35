"""What is asked of the registry: what each objective needs, and which ones some recorded experience can serve."""

from typing import Any

import pytest
import torch
from test_every_objective import NAMES, make

from visrep.data.store import StoreSpec
from visrep.errors import UserError
from visrep.objectives import OBJECTIVES, Objective, ObjectiveConfig
from visrep.objectives.fitting import fitting, needs_of, require_fields

VIDEO = StoreSpec((3, 8, 8), None, rewards=False)


@pytest.mark.parametrize("name", NAMES)
def test_needs_are_those_of_the_real_objective(name: str) -> None:
    state = torch.get_rng_state()
    assert needs_of(name) == make(name, size=84).needs()
    torch.set_rng_state(state)
    needs_of(name)
    assert torch.equal(torch.get_rng_state(), state), "asking draws random numbers"


def test_needs_follow_the_settings() -> None:
    config: Any = OBJECTIVES["atc"].Config(atc_shift=3, atc_segment=4)
    assert needs_of("atc", config).offsets == tuple(range(7))


def test_those_that_fit_are_those_that_ask_for_no_action() -> None:
    without = fitting(VIDEO.provides)
    able = [name for name in NAMES if make(name).trains_encoder]
    assert without == [name for name in able if "action" not in make(name).needs().fields]
    assert "rnd" not in able, "advice that pretrain would refuse"
    assert {"ac", "atc", "ats", "curl", "proto", "sac_ae", "vae"} <= set(without)
    assert not {"inverse", "vae_t", "icm"} & set(without)
    assert fitting(VIDEO.provides | {"action"}) == able


def test_a_method_registered_later_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Still(Objective):
        Config = ObjectiveConfig

        def __init__(self, encoder: Any, actions: Any, config: Any) -> None:
            super().__init__(encoder, actions)

        def needs(self) -> Any:
            return needs_of("vae")

    Still.name = "still"
    monkeypatch.setitem(OBJECTIVES, "still", Still)
    assert "still" in fitting(VIDEO.provides)


@pytest.mark.parametrize("name", [name for name in NAMES if "action" in needs_of(name).fields])
def test_a_store_without_actions_is_refused_naming_what_fits(name: str) -> None:
    with pytest.raises(UserError) as refused:
        require_fields(name, OBJECTIVES[name].Config(), VIDEO.provides, "film/", "objective")
    message = str(refused.value)
    assert f"objective={name} needs 'action', but film/ provides only image, is_last, terminal" in message
    assert message.endswith("or use an objective that fits: " + ", ".join(fitting(VIDEO.provides)))


@pytest.mark.parametrize("name", fitting(VIDEO.provides))
def test_a_store_without_actions_serves_the_others(name: str) -> None:
    require_fields(name, OBJECTIVES[name].Config(), VIDEO.provides, "film/", "objective")
