"""Pre-training and the task phase as two commands, and what the second takes over from the first."""

from __future__ import annotations

import errno
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from run_tools import add_suite, final_state, rows, tensors, words

from visrep.cli import main
from visrep.config import parse
from visrep.config_overrides import read_value, read_yaml
from visrep.console import Console
from visrep.envs.vector import VectorEnv
from visrep.errors import UserError
from visrep.network_files import load_encoder, load_module_states, save_encoder
from visrep.runs import replay_policy
from visrep.runs.compose import Networks, Source, build_networks, env_spec
from visrep.runs.pretrained import find_pretrained_run, inheritable, inherited_settings, load_agent, take_over

pytestmark = pytest.mark.usefixtures("in_process")

CPU = torch.device("cpu")
TASK = ("num_train_steps=60", "threads=1", "keep=actor")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The run directory of ``visrep pretrain``."""
    with pytest.MonkeyPatch.context() as patch:
        add_suite(patch)
        run_dir = tmp_path_factory.mktemp("pretrained") / "run"
        typed = words(run_dir, "encoder_channels=6", "save_model=true")
        typed.remove("num_train_steps=240")
        threads = torch.get_num_threads()
        assert main(["pretrain", *typed]) == 0
        torch.set_num_threads(threads)
        yield run_dir


def finetune(run_dir: Path, source: Path, *more: str) -> dict[str, dict[str, torch.Tensor]]:
    """``visrep finetune`` with little typed; the networks of the agent that it leaves."""
    command = [f"encoder={source}", *TASK, f"run_dir={run_dir}", *more]
    keys = {word.partition("=")[0]: word for word in command}
    assert main(["finetune", *keys.values()]) == 0
    return load_module_states(run_dir / "model" / "task_agent_60.safetensors")[0]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], prefix: str = "") -> bool:
    names = [name for name in one if name.startswith(prefix)]
    assert names and set(names) == {name for name in other if name.startswith(prefix)}
    return all(torch.equal(one[name], other[name]) for name in names)


def networks_like(run_dir: Path, *more: str) -> tuple[Networks, VectorEnv]:
    """Networks of that run's settings with ``more`` instead, whatever the run's own encoder is."""
    typed = ["num_train_steps=60", f"encoder={run_dir}"]
    other = {key: read_value(text) for key, text in (word.split("=") for word in more)}
    config = parse(typed, "finetune", {**inherited_settings(typed), **other})
    with VectorEnv(env_spec(config), 1, 0) as envs:
        return build_networks(config, Source.of(envs), CPU), envs


def test_pretrain_leaves_encoder_and_agents(pretrained: Path) -> None:
    names = sorted(path.name for path in (pretrained / "model").iterdir())
    assert names == ["encoder.safetensors", "expl_agent_120.safetensors", "expl_agent_80.safetensors"]
    states, provenance = load_module_states(pretrained / "model" / "expl_agent_120.safetensors")
    assert set(states) == {"encoder", "objective", "policy"} and provenance["agent_step"] == 120
    assert same(states["encoder"], tensors(pretrained / "model" / "encoder.safetensors"))
    earlier, _ = load_module_states(pretrained / "model" / "expl_agent_80.safetensors")
    assert not same(states["encoder"], earlier["encoder"])
    assert load_encoder(pretrained).contract.shape == (9, 16, 16)
    assert final_state(pretrained)["phase"] == 1


def test_finetune_inherits_what_the_pretraining_decided(pretrained: Path, tmp_path: Path) -> None:
    finetune(tmp_path, pretrained)
    before, now = read_yaml(pretrained / "config.yaml"), read_yaml(tmp_path / "config.yaml")
    own = {"num_train_steps", "num_expl_steps", "run_dir", "encoder", "save_model"}
    assert {key for key in before if before[key] != now[key]} <= own
    assert (now["encoder_channels"], now["image_size"], now["num_train_steps"], now["num_expl_steps"]) == (6, 16, 60, 0)
    assert rows(tmp_path / "eval.csv")[0]["step"] == "0"


def test_the_task_phase_starts_from_the_same_bits(pretrained: Path, tmp_path: Path) -> None:
    """Without updates the agent at the end is the agent at the start: what is kept, kept; what is fresh, fresh."""
    pre, _ = load_module_states(pretrained / "model" / "expl_agent_120.safetensors")
    one = finetune(tmp_path / "one", pretrained, "updates_per_agent_step=0")
    other = finetune(tmp_path / "other", pretrained, "updates_per_agent_step=0")
    for part in ("encoder", "objective"):
        assert same(one[part], pre[part])
    assert same(one["policy"], pre["policy"], "actor.") and not same(one["policy"], pre["policy"], "critic.")
    assert one["policy"]["log_alpha"] != pre["policy"]["log_alpha"]
    assert all(same(one[part], other[part]) for part in one), "the same seed starts from the same fresh weights"
    kept = finetune(tmp_path / "kept", pretrained, "updates_per_agent_step=0", "keep=critic,alpha")
    assert not same(kept["policy"], pre["policy"], "actor.") and same(kept["policy"], pre["policy"], "critic")
    assert kept["policy"]["log_alpha"] == pre["policy"]["log_alpha"]


def test_transfer_decides_what_becomes_of_the_encoder(pretrained: Path, tmp_path: Path) -> None:
    pre, _ = load_module_states(pretrained / "model" / "expl_agent_120.safetensors")
    frozen = finetune(tmp_path / "frozen", pretrained)
    assert same(frozen["encoder"], pre["encoder"]) and same(frozen["objective"], pre["objective"], "projector.")
    assert not same(frozen["policy"], pre["policy"], "actor."), "the policy learns"
    trained = finetune(tmp_path / "trained", pretrained, "transfer=finetune")
    assert not same(trained["encoder"], pre["encoder"])
    scratch = finetune(tmp_path / "scratch", pretrained, "transfer=scratch", "updates_per_agent_step=0")
    assert not same(scratch["encoder"], pre["encoder"])


def test_two_commands_and_one_agree_at_the_switch(pretrained: Path, tmp_path: Path) -> None:
    """``visrep train`` reaches its task phase with the same networks that ``pretrain`` leaves."""
    assert main(["train", *words(tmp_path, "encoder_channels=6", "num_train_steps=130", "save_model=true")]) == 0
    name = "expl_agent_120.safetensors"
    alone, _ = load_module_states(pretrained / "model" / name)
    together, _ = load_module_states(tmp_path / "model" / name)
    assert all(same(alone[part], together[part]) for part in alone)


def test_an_encoder_file_alone(pretrained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "my_encoder.safetensors"
    file.write_bytes((pretrained / "model" / "encoder.safetensors").read_bytes())
    pre = tensors(file)
    assert main(["finetune", f"encoder={file}", *TASK, f"run_dir={tmp_path / 'bonus'}"]) == 2
    said = capfd.readouterr().err
    assert "holds only the encoder" in said and "intr_coef=0" in said and "expl_agent_" in said
    assert same(finetune(tmp_path / "no_bonus", file, "intr_coef=0")["encoder"], pre)
    assert "note: no pre-trained policy is taken over; it starts fresh" in capfd.readouterr().out
    none = finetune(tmp_path / "none", file, "method=none")
    assert same(none["encoder"], pre) and set(none) == {"encoder", "policy"}


def test_an_agent_file_and_another_policy(pretrained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = pretrained / "model" / "expl_agent_80.safetensors"
    pre, _ = load_module_states(file)
    assert same(finetune(tmp_path / "earlier", file)["encoder"], pre["encoder"])
    assert main(["finetune", f"encoder={file}", *TASK, "policy=drqv2", f"run_dir={tmp_path / 'keeps'}"]) == 2
    assert "its policy does not fit this run's" in capfd.readouterr().err
    other = finetune(tmp_path / "fresh", file, "policy=drqv2", "keep=none")
    assert same(other["encoder"], pre["encoder"]) and same(other["objective"], pre["objective"], "projector.")


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("image_size=20", "input.height 16 there, 20 here"),
        ("encoder_channels=4", "config.channels 6 there, 4 here"),
        ("encoder_offset=0.5", "config.offset 0.0 there, 0.5 here"),  # the weights would fit
        ("frame_stack=2", "input.stack 3 there, 2 here"),
        ("proj_dim=8", "its objective does not fit this run's"),
        ("hidden_dim=20", "its policy does not fit this run's"),
    ],
)
def test_another_architecture_is_refused(key: str, says: str, pretrained: Path) -> None:
    networks, _ = networks_like(pretrained, key)
    with pytest.raises(UserError) as caught:
        load_agent(networks, str(pretrained))
    assert says in str(caught.value) and "another architecture" in str(caught.value)
    assert "encoder_* keys" in str(caught.value)


def test_other_images_are_pointed_out(pretrained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    networks, envs = networks_like(pretrained)
    typed = ["num_train_steps=60", f"encoder={pretrained}"]
    config = parse(typed, "finetune", inherited_settings(typed))
    take_over(config, networks, envs.fingerprint, Console())
    assert "note" not in capfd.readouterr().out
    take_over(config, networks, {**envs.fingerprint, "renderer": "egl", "camera": 2}, Console())
    said = capfd.readouterr().out
    assert "the pre-training saw other images: renderer numpy there, egl here" in said
    assert "camera None there, 2 here" in said


def test_places_without_an_agent(pretrained: Path, tmp_path: Path) -> None:
    networks, _ = networks_like(pretrained)
    with pytest.raises(UserError, match="has its pre-training finished"):
        load_agent(networks, str(tmp_path))
    (tmp_path / "encoder.safetensors").write_bytes(b"\x00" * 30)
    with pytest.raises(UserError, match="not a visrep file"):
        load_agent(networks, str(tmp_path / "encoder.safetensors"))
    assert inherited_settings([f"encoder={tmp_path}"]) == {} and inherited_settings(["lr=1"]) == {}


def test_an_encoder_from_elsewhere_brings_what_it_was_built_as(pretrained: Path, tmp_path: Path) -> None:
    save_encoder(load_encoder(pretrained), tmp_path / "encoder.safetensors", {"objective": "somebody's"})
    assert inherited_settings([f"encoder={tmp_path / 'encoder.safetensors'}"]) == {
        "encoder_kind": "proto", "encoder_channels": 6, "encoder_offset": 0.0, "frame_stack": 3, "image_size": 16,
    }  # fmt: skip


def test_what_counts_updates_off_line_is_not_inherited() -> None:
    """On line the same keys are: they are the pre-training's own schedule beside a policy."""
    typed = [
        "repr_warmup=1000", "repr_anneal=cosine", "repr_lr=1e-3", "repr_batch_size=64", "encoder_init=kaiming",
        "atc_init=kaiming", "probe_frequency=7", "checkpoint_frequency=5", "atc_shift=2", "encoder_channels=6",
    ]  # fmt: skip
    keys = {word.partition("=")[0] for word in typed}
    offline = parse(["data=x", "method=atc", *typed], "pretrain").to_dict()
    assert keys & set(inheritable(offline)) == {"atc_shift", "encoder_channels"}
    online = {**offline, "data": None}
    assert keys <= set(inheritable(online)) and "num_expl_steps" not in inheritable(online)


def _load_words(folder: Path, *more: str) -> list[str]:
    typed = ("num_expl_steps=0", "num_train_steps=60", "encoder_channels=6", "load_pretrained=true")
    return words(None, *typed, f"pretrained_dir={folder}", *more)


def test_load_pretrained_as_in_the_reference(pretrained: Path, tmp_path: Path) -> None:
    pre, _ = load_module_states(pretrained / "model" / "expl_agent_80.safetensors")
    folders = f"{tmp_path / 'nothing_here'}:{pretrained.parent}"
    assert main(["train", *_load_words(Path(folders), "pretrained_step=80"), f"run_dir={tmp_path / 'run'}"]) == 0
    after, _ = load_module_states(tmp_path / "run" / "model" / "task_agent_60.safetensors")
    assert same(after["encoder"], pre["encoder"])


@pytest.mark.parametrize(
    "more", [["pretrained_step=90"], ["pretrained_step=80", "seed=5"], ["pretrained_step=120", "env=toy/maze"]]
)
def test_load_pretrained_lists_what_there_is(more: list[str], pretrained: Path) -> None:
    with pytest.raises(UserError) as caught:
        find_pretrained_run(parse(_load_words(pretrained, *more)))
    said = str(caught.value)
    assert f"{pretrained}: env=short/toy seed=1 pretrained_step=80, 120" in said
    assert more[0].removeprefix("pretrained_step=") in said and "encoder=<dir>" in said


def test_load_pretrained_where_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no exploration agent at all"):
        find_pretrained_run(parse(_load_words(tmp_path)))


def test_evaluate_and_report(pretrained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_dir, video = tmp_path / "run", tmp_path / "episode.mp4"
    finetune(run_dir, pretrained, "save_video=true")
    capfd.readouterr()
    assert main(["evaluate", f"run={run_dir}", "episodes=2", f"video={video}"]) == 0
    said = capfd.readouterr().out
    assert "task_agent_60.safetensors on short/toy: return" in said and "success" in said and video.stat().st_size > 500
    first = json.loads((run_dir / "evaluation.json").read_text())
    assert len(first["returns"]) == 2
    assert main(["evaluate", f"run={run_dir}", "episodes=2"]) == 0
    assert json.loads((run_dir / "evaluation.json").read_text()) == first, "the same episodes every time"
    assert main(["evaluate", f"run={pretrained}", "episodes=1"]) == 0
    assert "expl_agent_120.safetensors" in capfd.readouterr().out
    assert main(["report", f"run={run_dir}"]) == 0
    page = (run_dir / "report.html").read_text()
    assert str(run_dir / "report.html") in capfd.readouterr().out and "<html" in page and "short/toy" in page


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["seed=-1"], "seed=-1 must be at least 0"),
        (["video=true"], "video=true: name the file to write, ending in .mp4"),
        (["video={here}/film.avi"], "film.avi: name the file to write, ending in .mp4"),
        (["video={here}/folder.mp4"], "folder.mp4: name the file to write"),
        (["video={here}/file/film.mp4"], "cannot write into {here}/file, because {here}/file is a file"),
    ],
)
def test_evaluate_refuses_before_it_plays(
    words: list[str], says: str, pretrained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(replay_policy, "VectorEnv", lambda *_, **__: pytest.fail("it plays"))
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.iterdir())
    assert main(["evaluate", f"run={pretrained}", *(word.format(here=tmp_path) for word in words)]) == 2
    said = capfd.readouterr().err
    assert says.format(here=tmp_path) in said and "Traceback" not in said
    assert sorted(tmp_path.iterdir()) == before


def test_evaluate_refuses_a_read_only_folder_before_it_plays(
    pretrained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(dir: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(replay_policy, "VectorEnv", lambda *_, **__: pytest.fail("it plays"))
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert main(["evaluate", f"run={pretrained}", f"video={tmp_path}/film.mp4"]) == 2
    assert f"cannot write {tmp_path} (Permission denied)" in capfd.readouterr().err


def test_agents_hold_no_pickle(pretrained: Path) -> None:
    for path in (pretrained / "model").iterdir():
        with pytest.raises(Exception):  # noqa: B017  (whatever torch says: it is no pickle)
            torch.load(io.BytesIO(path.read_bytes()), weights_only=False)
        assert tensors(path)


@pytest.fixture(autouse=True)
def _no_leak(capfd: pytest.CaptureFixture[str]) -> Any:
    yield
    assert "Traceback" not in capfd.readouterr().err


def test_first_weights_are_no_architecture(pretrained: Path) -> None:
    """What the encoder was initialised with does not matter where its weights are loaded."""
    networks, _ = networks_like(pretrained, "encoder_init=kaiming")
    assert "encoder" in load_agent(networks, str(pretrained)).parts


def test_a_refused_command_leaves_its_directory_free(
    pretrained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["finetune", f"encoder={pretrained}", "num_train_steps=60", f"run_dir={tmp_path / 'run'}"]
    assert main([*words, "hidden_dim=20"]) == 2
    assert "another architecture" in capfd.readouterr().err
    assert main([*words, "frame_stack=2"]) == 2
    assert f"frame_stack=2, but {pretrained} was pre-trained with frame_stack=3" in capfd.readouterr().err
    assert main(words) == 0
