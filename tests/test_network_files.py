"""Encoder files, files of modules, plain files: whole or refused, whatever happens while they are written."""

from __future__ import annotations

import errno
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import visrep.files
from damage import cut, flip_bit
from visrep import network_files
from visrep.encoders.contract import ENCODERS, Encoder, InputContract, build_encoder
from visrep.errors import UserError
from visrep.files import write_json_atomic
from visrep.network_files import encoder_metadata, load_encoder, load_module_states, save_encoder, save_module_states


def small_encoder(**config: Any) -> Encoder:
    return build_encoder("proto", InputContract(height=24, width=24), **{"channels": 4, **config})


# -- encoder files ----------------------------------------------------------------------------------------------------


def test_encoder_round_trip(tmp_path: Path) -> None:
    encoder = small_encoder(offset=0.5).to(memory_format=torch.channels_last)
    provenance = {"objective": "proto", "agent_step": 5, "environment": {"renderer": "warp"}}
    save_encoder(encoder, tmp_path / "run" / "model" / "encoder.safetensors", provenance)
    images = torch.randint(0, 256, (2, 9, 24, 24), dtype=torch.uint8)
    for place in (tmp_path / "run", str(tmp_path / "run" / "model" / "encoder.safetensors")):
        loaded = load_encoder(place)
        assert not loaded.training and loaded.contract == encoder.contract and loaded.config() == encoder.config()
        assert torch.equal(loaded(images), encoder(images))
    about = encoder_metadata(tmp_path / "run")
    assert about["provenance"] == provenance and about["kind"] == "proto" and about["format"] == 1
    assert about["input"]["height"] == 24 and about["output"] == {"shape": [encoder.feature_dim]}
    with pytest.raises(ValueError, match="24x24"):
        loaded(images[:, :, :-1])


def test_encoder_loads_without_the_rest_of_the_packages(tmp_path: Path) -> None:
    save_encoder(small_encoder(), tmp_path / "encoder.safetensors", {})
    script = (
        "import sys\n"
        "for name in ('pydantic', 'yaml', 'gymnasium', 'rich', 'psutil', 'av', 'matplotlib', 'mujoco'):\n"
        "    sys.modules[name] = None\n"
        "import visrep\n"
        "print(visrep.load_encoder(sys.argv[1]).feature_dim)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "encoder.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == small_encoder().feature_dim


def test_damaged_encoder_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_encoder(small_encoder(), path, {"note": "x"})
    whole, draw = path.read_bytes(), random.Random(3)
    header_end = 8 + int.from_bytes(whole[:8], "little")
    text_positions = [8 * i + 1 for i in range(8, header_end) if whole[i : i + 1] not in b" "]
    positions = draw.sample(text_positions, 20) + [draw.randrange(8 * header_end, 8 * len(whole)) for _ in range(20)]
    for position in positions:
        flip_bit(path, position)
        with pytest.raises(UserError, match=r"encoder\.safetensors"):
            load_encoder(path)
        path.write_bytes(whole)
    for size in (0, 4, 8, 100, header_end, header_end + 5, len(whole) - 1):
        cut(path, size)
        with pytest.raises(UserError, match=r"cut off|damaged"):
            load_encoder(path)
        path.write_bytes(whole)
    load_encoder(path)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_encoder(tmp_path / "absent.safetensors")
    with pytest.raises(UserError, match=r"model/encoder\.safetensors does not exist"):
        load_encoder(tmp_path)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"w": torch.zeros(2)}, foreign)
    with pytest.raises(UserError, match="not a visrep file"):
        load_encoder(foreign)
    torch.save({"w": torch.zeros(2)}, tmp_path / "pickled.pt")
    with pytest.raises(UserError, match="not a visrep file"):
        load_encoder(tmp_path / "pickled.pt")
    agent = tmp_path / "agent.safetensors"
    save_module_states(agent, {"policy": {"w": torch.zeros(2)}}, {})
    with pytest.raises(UserError, match="holds policy"):
        load_encoder(agent)


def rewrite(path: Path, **changes: Any) -> None:
    """An encoder file whose (validly signed) metadata says something else."""
    about, tensors = network_files._read_network_file(path, "encoder")
    network_files._write_network_file(path, tensors, {**about, **changes} if "format" not in changes else about)
    if "format" in changes:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(network_files, "FORMAT", changes["format"])
            del about["format"]
            network_files._write_network_file(path, tensors, about)


def test_encoder_of_another_architecture_or_version(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_encoder(small_encoder(), path, {})
    rewrite(path, config={"channels": 8, "offset": 0.0})
    with pytest.raises(
        UserError, match=r"another architecture than .*'proto' with .*'channels': 8(.|\n)*size mismatch"
    ):
        load_encoder(path)
    rewrite(path, config={"colour": 8})
    with pytest.raises(UserError, match="colour"):
        load_encoder(path)
    rewrite(path, kind="vit")
    with pytest.raises(UserError, match=f"kind 'vit'.*{sorted(ENCODERS)[0]}"):
        load_encoder(path)
    rewrite(path, format=2)
    with pytest.raises(UserError, match="format 2, newer than the 1"):
        load_encoder(path)


# -- module files -----------------------------------------------------------------------------------------------------


def test_module_states_round_trip(tmp_path: Path) -> None:
    layer, empty = torch.nn.Linear(2, 3), torch.nn.ReLU()
    tied = {"a": layer.weight, "b": layer.weight, "alpha": torch.tensor(0.5)}
    path = tmp_path / "model" / "expl_agent_5.safetensors"
    save_module_states(path, {"policy": layer.state_dict(), "tied": tied, "empty": empty.state_dict()}, {"step": 5})
    states, metadata = load_module_states(path)
    assert metadata == {"step": 5} and set(states) == {"policy", "tied", "empty"} and states["empty"] == {}
    assert torch.equal(states["policy"]["weight"], layer.weight) and torch.equal(states["tied"]["b"], layer.weight)
    assert states["tied"]["alpha"].shape == ()
    save_encoder(small_encoder(), tmp_path / "encoder.safetensors", {})
    with pytest.raises(UserError, match="holds an encoder"):
        load_module_states(tmp_path / "encoder.safetensors")


# -- plain files ------------------------------------------------------------------------------------------------------


def test_atomic_write_replaces_or_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "value.json"
    write_json_atomic(path, {"a": 1})
    write_json_atomic(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(visrep.files.os, "fsync", full)
    with pytest.raises(UserError, match="no space left"):
        write_json_atomic(path, {"a": 3})
    assert json.loads(path.read_text()) == {"a": 2} and [file.name for file in tmp_path.iterdir()] == ["value.json"]
