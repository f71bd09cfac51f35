"""RunState: everything comes back, as plain data, and a state of another run is refused."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pytest
import torch

from visrep.errors import UserError
from visrep.runs.state import RunState


def through_file(state: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=True)
    assert isinstance(loaded, dict)
    return loaded


class Box:
    """A part that holds any plain value."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def state_dict(self) -> Any:
        return self.value

    def load_state_dict(self, state: Any) -> None:
        self.value = state


class Learner:
    """A small network with its optimiser and generators: what a run is made of."""

    def __init__(self, width: int = 4) -> None:
        self.model = torch.nn.Sequential(
            torch.nn.Linear(3, width), torch.nn.BatchNorm1d(width), torch.nn.Linear(width, 1)
        )
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-2)
        self.torch_generator = torch.Generator().manual_seed(5)
        self.numpy_generator = np.random.default_rng(7)
        self.state = RunState()
        self.state.register("model", self.model)
        self.state.register("optimizer", self.optimizer)
        self.state.register("torch_generator", self.torch_generator)
        self.state.register("numpy_generator", self.numpy_generator)

    def step(self) -> list[float]:
        inputs = torch.randn(8, 3, generator=self.torch_generator)
        target = torch.from_numpy(self.numpy_generator.standard_normal((8, 1))).float()
        loss = torch.nn.functional.mse_loss(self.model(inputs), target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return [loss.item(), random.random(), float(np.random.rand()), torch.rand(1).item()]


def test_a_restored_run_goes_on_bit_for_bit() -> None:
    learner = Learner()
    for _ in range(3):
        learner.step()
    saved = through_file(learner.state.capture())
    expected = [learner.step() for _ in range(4)]
    other = Learner()  # its construction also moves the global generators on
    other.state.restore(saved)
    assert [other.step() for _ in range(4)] == expected


@pytest.mark.parametrize("bits", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_every_numpy_generator_survives(bits: Any) -> None:
    generator = np.random.Generator(bits(3))
    generator.random(5), generator.integers(3, dtype=np.int32)  # the second leaves half a word behind
    state = RunState()
    state.register("generator", generator)
    saved = through_file(state.capture())
    expected = (generator.integers(9, size=5, dtype=np.int32).tolist(), generator.random(3).tolist())
    generator.random(17)
    state.restore(saved)
    assert (generator.integers(9, size=5, dtype=np.int32).tolist(), generator.random(3).tolist()) == expected


def test_plain_values_keep_their_types() -> None:
    value = {
        "small": -3, "big": 2**100, "negative": -(2**64), "edge": 2**63, "flag": True, "none": None, "text": "ü",
        "nested": [(1, 2.5), {"a": ()}],
        7: "integer key",
        "arrays": [
            np.arange(6, dtype=np.uint16).reshape(2, 3), np.zeros((0, 4)), np.array(3.0), np.array([True, False]),
            np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        ],
        "scalar": np.float64(1.5), "count": np.uint64(2**64 - 1),
        "tensor": torch.arange(3, dtype=torch.int16),
    }  # fmt: skip
    box = Box(value)
    state = RunState()
    state.register("box", box)
    saved = through_file(state.capture())
    box.value = None
    state.restore(saved)
    got: Any = box.value
    plain = [key for key in value if key not in ("arrays", "tensor")]
    assert {key: got[key] for key in plain} == {key: value[key] for key in plain}
    assert type(got["nested"][0]) is tuple and type(got["flag"]) is bool
    for mine, theirs in zip(got["arrays"], value["arrays"], strict=True):  # type: ignore[call-overload]
        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape and np.array_equal(mine, theirs)
        assert mine.flags.writeable
    assert torch.equal(got["tensor"], value["tensor"])


def test_what_is_not_plain_data_is_named_at_capture() -> None:
    state = RunState()
    state.register("box", Box({"inner": [object()]}))
    with pytest.raises(TypeError, match=r"box\.inner\[0\]"):
        state.capture()


def test_pairs_of_callables() -> None:
    seen: list[int] = []
    state = RunState()
    state.register("pair", (lambda: 5, seen.append))
    state.restore(through_file(state.capture()))
    assert seen == [5]


def test_registration_mistakes() -> None:
    state = RunState()
    state.register("box", Box(1))
    with pytest.raises(ValueError, match="twice"):
        state.register("box", Box(2))
    with pytest.raises(TypeError, match="state_dict"):
        state.register("number", 3)  # type: ignore[arg-type]
    assert state.names == ("global_random", "box")


def test_missing_and_unknown_names_are_listed() -> None:
    first, second = RunState(), RunState()
    first.register("alpha", Box(1))
    first.register("shared", Box(1))
    second.register("beta", Box(1))
    second.register("shared", Box(1))
    with pytest.raises(UserError, match=r"lacks beta.*has no alpha"):
        second.restore(first.capture())


def test_another_architecture_is_named() -> None:
    saved = Learner(width=4).state.capture()
    with pytest.raises(UserError, match=r"'model' does not fit this run(.|\n)*size mismatch"):
        Learner(width=5).state.restore(saved)


def test_user_errors_of_parts_pass_through() -> None:
    def refuse(_: Any) -> None:
        raise UserError("store row 3 is damaged")

    state = RunState()
    state.register("store", (lambda: 1, refuse))
    with pytest.raises(UserError, match=r"^store row 3 is damaged$"):
        state.restore(state.capture())


def test_generator_of_another_device_is_reseeded_with_a_warning() -> None:
    state = RunState()
    generator = torch.Generator()
    state.register("generator", generator)
    saved = state.capture()
    saved["generator"] = torch.arange(16, dtype=torch.uint8)  # the size of a CUDA generator's state
    draws = []
    for _ in range(2):
        with pytest.warns(UserWarning, match="another kind of device"):
            state.restore(saved)
        draws.append(torch.rand(3, generator=generator).tolist())
    assert draws[0] == draws[1]
