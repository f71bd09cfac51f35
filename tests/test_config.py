"""Keys, presets and the messages that bad input gets."""

from __future__ import annotations

import itertools
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from visrep.augment import OPERATORS
from visrep.config import (
    NO_OBJECTIVE,
    Config,
    RunConfig,
    check_unique,
    config_from_dict,
    default_run_dir,
    differing_keys,
    list_presets,
    load_config,
    method_configs,
    override_dirname,
    parse,
    policy_configs,
)
from visrep.config_checks import ACTING
from visrep.config_help import help_text, markdown_tables
from visrep.config_overrides import MOVED_KEYS, PRESET_FOLDER, read_yaml
from visrep.errors import UserError

README_COMMAND = ["env=cheetah_run", "num_expl_steps=250000", "num_train_steps=500000"]

# The public configuration, key by key (its nested keys under their own names).
REFERENCE = {
    "env": "cheetah_run", "frame_stack": 3, "action_repeat": 2, "num_train_steps": 500000, "num_expl_steps": 250000,
    "num_random_steps": 1000, "replay_buffer_capacity": 100000, "seed": 1, "eval_frequency": 50000,
    "num_eval_episodes": 10, "log_frequency_step": 10000, "log_save_tb": True, "save_video": True,
    "save_model": False, "save_buffer": False, "save_pixels": False, "save_frequency": 10000, "load_pretrained": False,
    "pretrained_step": 250000, "pretrained_dir": None, "experiment": "bench", "discount": 0.99,
    "init_temperature": 0.1, "lr": 1e-4, "actor_update_frequency": 2, "critic_target_tau": 0.01,
    "critic_target_update_frequency": 2, "encoder_target_tau": 0.05, "encoder_update_frequency": 2, "batch_size": 512,
    "intr_coef": 0.2, "num_seed_steps": 1000, "feature_dim": 50, "hidden_dim": 1024, "hidden_depth": 2,
    "log_std_bounds": [-10.0, 2.0], "proj_dim": 128, "pred_dim": 512, "T": 0.1, "num_protos": 512, "num_iters": 3,
    "topk": 3, "queue_size": 2048,
}  # fmt: skip


def complaint(*overrides: str, command: str = "train") -> str:
    with pytest.raises(UserError) as caught:
        parse(overrides, command)  # type: ignore[arg-type]
    return str(caught.value)


def test_reference_keys_and_defaults() -> None:
    values = parse(README_COMMAND).to_dict()
    assert {key: values[key] for key in REFERENCE} == REFERENCE
    assert set(MOVED_KEYS.values()) <= set(values), "an old key is said to have moved to one that does not exist"


def test_every_key_is_documented() -> None:
    for model in (RunConfig, *method_configs().values(), *policy_configs().values()):
        undocumented = [name for name, field in model.model_fields.items() if not field.description]
        assert not undocumented, f"{model.__name__}: {undocumented}"


def test_keys_are_unique_in_every_combination() -> None:
    for method, policy in itertools.product(method_configs().values(), policy_configs().values()):
        check_unique([RunConfig, method, policy])
    with pytest.raises(TypeError, match="declared by both"):
        check_unique([RunConfig, RunConfig])


@pytest.mark.parametrize(
    ("typed", "key", "value"),
    [
        ("lr=1e-3", "lr", 1e-3),
        ("batch_size=5e2", "batch_size", 500),
        ("compile=on", "compile", "on"),
        ("seed=010", "seed", 10),
        ("camera=none", "camera", None),
        ("camera=2", "camera", 2),
        ("run_dir=2026-01-02", "run_dir", "2026-01-02"),
        ("run_dir=17", "run_dir", "17"),
        ("keep=critic,actor", "keep", ("actor", "critic")),
        ("keep=[alpha]", "keep", ("alpha",)),
        ("keep=none", "keep", ()),
        ("save_video=false", "save_video", False),
        ("save_video=no", "save_video", False),
        ("device=cuda:1", "device", "cuda:1"),
        ("experiment=a=b", "experiment", "a=b"),
    ],
)
def test_values_as_typed(typed: str, key: str, value: object) -> None:
    assert getattr(parse([typed]).run, key) == value


def test_none_is_typed_the_same_for_a_methods_optional_key() -> None:
    assert parse(["sinkhorn_temperature=none"]) == parse(["sinkhorn_temperature=null"]) == parse([])


def test_policy_and_method_keys_reach_their_own_config() -> None:
    config = parse(["topk=5", "hidden_dim=64", "log_std_bounds=[-5,1]"])
    assert config.objective is not None
    assert config.to_dict() | {"topk": 5, "hidden_dim": 64, "log_std_bounds": [-5.0, 1.0]} == config.to_dict()
    assert "hidden_dim" in type(config.policy).model_fields and "topk" in type(config.objective).model_fields


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["num_train_step=3"], ["unknown key 'num_train_step'", "num_train_steps"]),
        (["qwzx=3"], ["unknown key 'qwzx'", "--help"]),
        (["foo.topk=3"], ["foo.topk", "did you mean topk"]),
        (["batch_size=many"], ["batch_size=many", "a whole number", "'many' (str)"]),
        (["batch_size=1.5"], ["batch_size=1.5", "a whole number", "float"]),
        (["batch_size=true"], ["batch_size=true", "a whole number"]),
        (["hidden_dim=true"], ["hidden_dim=true", "a whole number"]),
        (["lr=fast"], ["lr=fast", "a number"]),
        (["lr=0"], ["lr=0", "greater than 0"]),
        (["lr=.nan"], ["lr", "not finite"]),
        (["frame_stack=-1"], ["frame_stack=-1", "greater than or equal to 1"]),
        (["discount=1.1"], ["discount=1.1", "less than or equal to 1"]),
        (["precision=fp16"], ["precision=fp16", "fp32, bf16"]),
        (["device=gpu"], ["device=gpu", "cuda:<index>"]),
        (["keep=encoder"], ["keep=encoder", "actor, critic, alpha"]),
        (["env=[a,b]"], ["env", "text"]),
        (["lr"], ["'lr'", "key=value"]),
        (["=3"], ["key=value"]),
        (["--seed=3"], ["key=value"]),
        (["lr=[1"], ["lr", "YAML"]),
        (["lr=1", "lr=2"], ["lr is given twice"]),
        (["method=prot"], ["unknown method=prot", "did you mean proto"]),
        (["policy=sack"], ["unknown policy=sack", "sac"]),
        (["encoder_kind=prot"], ["unknown encoder_kind=prot", "proto"]),
        (["preset=prot_dmc"], ["unknown preset 'prot_dmc'", "proto_dmc"]),
        (["method=random", "num_protos=4"], ["'num_protos'", "method=proto", "does not use"]),
        (["std_schedule=1"], ["'std_schedule'", "policy=drqv2"]),
        (["agent.params.lr=1e-3"], ["agent.params.lr", "use lr=0.001"]),
        (["critic.params.hidden_dim=64"], ["use hidden_dim=64", "actor and critic"]),
        (["actor.params.log_std_bounds=[-5,2]"], ["use log_std_bounds=[-5,2]"]),
        (["encoder.params.proj_dim=8"], ["use proj_dim=8"]),
        (["proto.params.topk=3"], ["use topk=3"]),
        (["agent.params.obs_shape=3"], ["agent.params.obs_shape", "image_size"]),
        (["num_train_frames=1000"], ["num_train_frames", "num_train_steps", "action_repeat"]),
        (["queue_size=1000"], ["queue_size=1000", "num_protos=512"]),
        (["num_train_steps=250000"], ["num_train_steps=250000", "TOTAL", "num_expl_steps=250000"]),
        (["num_train_steps=100000"], ["no agent step is left"]),
        (["batch_size=2000"], ["batch_size=2000", "num_seed_steps=1000"]),
        (["batch_size=600", "replay_buffer_capacity=500"], ["batch_size=600", "replay_buffer_capacity=500"]),
        (["method=none", "num_expl_steps=10"], ["method=none", "num_expl_steps=0"]),
        (["method=none"], ["encoder_gradient=critic"]),
        (["method=random", "intr_coef=0.2"], ["intr_coef", "method=random"]),
        (["load_pretrained=true"], ["num_expl_steps=0", "pretrained_dir"]),
    ],
)  # fmt: skip
def test_bad_input_says_what_and_how(overrides: list[str], parts: list[str]) -> None:
    message = complaint(*overrides)
    assert all(part in message for part in parts), message


def test_several_complaints_come_together() -> None:
    message = complaint("frame_stack=0", "num_envs=no")
    assert "frame_stack=0" in message and "num_envs=no" in message


def test_commands_settle_their_own_lengths() -> None:
    assert parse(["num_expl_steps=300"], "pretrain").run.num_train_steps == 300
    assert "num_expl_steps" in complaint("num_train_steps=5", command="pretrain")
    assert "reward-free phase" in complaint("num_expl_steps=0", command="pretrain")
    finetune = parse(["encoder=somewhere"], "finetune").run
    assert (finetune.num_expl_steps, finetune.num_train_steps) == (0, 250_000)
    assert parse(["encoder=somewhere", "num_train_steps=70"], "finetune").run.num_train_steps == 70
    assert "encoder=" in complaint(command="finetune")
    assert parse(["transfer=scratch"], "finetune").run.encoder is None
    assert "num_expl_steps" in complaint("encoder=x", "num_expl_steps=5", command="finetune")


def test_settings_of_another_run_lie_below_presets_and_typed_keys() -> None:
    base = parse(["num_expl_steps=300", "image_size=64", "batch_size=64"], "pretrain").to_dict()
    run = parse(["encoder=x", "num_train_steps=70", "batch_size=32"], "finetune", base).run
    assert (run.image_size, run.batch_size, run.num_train_steps) == (64, 32, 70)
    assert parse(["encoder=x", "preset=toy_maze", "num_train_steps=70"], "finetune", base).run.batch_size == 128
    with pytest.raises(UserError, match="set num_train_steps"):
        parse(["encoder=x"], "finetune", base)


def test_no_exploration_phase_is_allowed() -> None:
    assert parse(["num_expl_steps=0", "num_train_steps=10"]).run.num_train_steps == 10
    control = parse(["method=none", "encoder_gradient=critic"])
    assert (control.objective, control.run.num_expl_steps, control.run.intr_coef) == (None, 0, 0.0)


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESET_FOLDER.glob("*.yaml")))
@pytest.mark.parametrize("shrunk", [False, True])
def test_every_preset_parses_and_names_its_source(preset: str, shrunk: bool) -> None:
    text = (PRESET_FOLDER / f"{preset}.yaml").read_text()
    assert text.startswith("# ") and ("et al." in text or "no published table" in text or "no table" in text)
    name = f"{preset}+tiny" if shrunk and preset != "tiny" else preset
    config = parse([f"preset={name}"])
    if not shrunk:
        values = config.to_dict()
        wanted = {k: v for k, v in read_yaml(PRESET_FOLDER / f"{preset}.yaml").items() if k in values}
        assert {key: values[key] for key in wanted} == wanted
    else:
        assert config.run.num_train_steps == 400


def test_presets_of_the_default_method_have_no_foreign_key() -> None:
    every = {key for config in (*method_configs().values(), *policy_configs().values()) for key in config.model_fields}
    for preset in list_presets():
        assert set(read_yaml(PRESET_FOLDER / f"{preset}.yaml")) <= every | {*RunConfig.model_fields, "preset"}


def test_proto_dmc_is_the_defaults() -> None:
    assert parse(["preset=proto_dmc"]) == parse([])


def test_a_preset_builds_on_another(tmp_path: Path) -> None:
    config = parse(["preset=atc_cheetah_run+atc_small"])
    assert (config.run.env, config.run.encoder_kind, config.run.lr, config.run.image_size) == (
        "cheetah_run", "atc", 2e-4, 64,
    )  # fmt: skip
    own = tmp_path / "own.yaml"
    own.write_text("preset: atc_walker_walk\nlr: 0.5\n")
    assert (parse([f"preset={own}"]).run.lr, parse([f"preset={own}"]).run.action_repeat) == (0.5, 2)
    own.write_text(f"preset: {own}\n")
    with pytest.raises(UserError, match="builds on itself"):
        parse([f"preset={own}"])


@pytest.mark.parametrize(
    ("words", "command", "message"),
    [
        (["data=x", "method=atc"], "train", "what `visrep pretrain` learns from"),
        (["data=x", "method=none"], "pretrain", "needs an objective"),
        (["data=x,y", "data_weights=1,2,3", "method=atc"], "pretrain", "3 numbers for 2 datasets"),
        (["replay=latents", "encoder=x", "transfer=finetune"], "finetune", "needs transfer=frozen"),
        (["repr_updates=often"], "train", "repr_updates=often.*constant_X"),
        (["augment=shfit(4)"], "train", "augment=shfit.*shift"),
        (["encoder_kind=latent"], "train", "encoder_kind=latent takes no images.*replay=latents.*choose .*proto"),
        (["encoder_kind=vector", "data=x"], "pretrain", "encoder_kind=vector takes no images"),
        (["preset=atc_dmc", "repr_batch_size=50000"], "train",
         "repr_batch_size=50000 is larger.*num_seed_steps=10000.*num_seed_steps to at least 50000"),
        (["num_seed_steps=2000", "repr_batch_size=2001", "replay_buffer_capacity=2001"], "train",
         "to at least 2001 and replay_buffer_capacity=2001 above it"),
        (["repr_priority_alpha=1", "repr_priority_steps=300", "num_seed_steps=256", "batch_size=64"], "train",
         "repr_priority_steps=300.*batch_size=64.*num_seed_steps to at least 363"),
    ],
)
def test_contradictions_of_pre_training_are_named(words: list[str], command: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(words, command)


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["repr_batch_size=5000", "repr_start_steps=5000"], "pretrain"),
        (["repr_batch_size=5000", "encoder=x"], "finetune"),  # frozen: the objective is not updated
        (["repr_batch_size=5000", "encoder_gradient=critic", "encoder=x", "intr_coef=0"], "finetune"),
        (["repr_batch_size=5000", "updates_per_agent_step=0"], "train"),
        (["repr_priority_steps=5000"], "train"),  # alpha = 0: they share the policy's batch
        (["repr_priority_alpha=1", "repr_priority_steps=257", "num_seed_steps=512", "batch_size=256"], "train"),
    ],
)
def test_batches_of_the_objective_that_can_be_filled(words: list[str], command: Any) -> None:
    parse(words, command)


def test_keys_that_do_nothing_on_recorded_data_are_refused_where_they_are_typed() -> None:
    typed = {"num_train_steps": "5", "encoder_gradient": "both", "repr_updates": "mod_2", "hidden_dim": "8"}
    message = complaint("data=x", *(f"{key}={value}" for key, value in typed.items()), command="pretrain")
    assert ", ".join(typed) in message and "leave them out" in message and "num_repr_updates" in message
    assert set(typed) - {"hidden_dim"} < ACTING < set(RunConfig.model_fields)
    run = parse(["data=x", "preset=toy_maze+tiny", "repr_priority_alpha=1", "repr_batch_size=5"], "pretrain").run
    assert run.num_train_steps == 400, "presets are shared"


def test_presets_compose_and_explicit_keys_win() -> None:
    assert parse(["preset=toy_maze+tiny"]).run.batch_size == 16
    assert parse(["preset=tiny+toy_maze"]).run.batch_size == 128
    assert parse(["batch_size=32", "preset=toy_maze+tiny"]).run.batch_size == 32
    # the preset's keys of a method that is not chosen are left out, not complained about
    assert parse(["preset=toy_maze", "method=random"]).objective is None


def test_preset_with_a_wrong_key_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("batch_sice: 3\n")
    assert str(path) in complaint(f"preset={path}") and "batch_size" in complaint(f"preset={path}")
    path.write_text("- 3\n")
    assert "key: value" in complaint(f"preset={path}")
    assert "cannot read" in complaint(f"preset={tmp_path / 'absent.yaml'}")


def round_trip(config: Config, path: Path) -> Config:
    path.write_text("# a comment\n" + config.to_yaml())
    return load_config(path)


@pytest.mark.parametrize(
    "overrides",
    [
        README_COMMAND,
        ["preset=drqv2_easy"],
        ["preset=toy_maze", "keep=none", "camera=2"],
        ["method=random", "compile=on", "experiment=1e4", "run_dir=on", "lr=1e-7"],
    ],
)
def test_yaml_round_trip(overrides: list[str], tmp_path: Path) -> None:
    config = parse(overrides)
    path = tmp_path / "config.yaml"
    assert round_trip(config, path) == config
    # any other YAML reader sees the same values
    assert differing_keys(yaml.safe_load(path.read_text()), config.to_dict(), frozenset()) == []
    assert parse([f"preset={path}"]) == config


def test_saved_configuration_with_an_unknown_key_is_refused() -> None:
    values = parse([]).to_dict()
    with pytest.raises(UserError, match="unknown key 'colour'"):
        config_from_dict({**values, "colour": 1})
    values.pop("experiment")
    assert config_from_dict(values) == parse([])  # a key that came later gets its default


def test_differing_keys() -> None:
    old, new = parse([]).to_dict(), parse(["lr=1e-3", "topk=5", "device=cpu", "threads=2", "run_dir=x"]).to_dict()
    assert differing_keys(old, new) == [("lr", 1e-4, 1e-3), ("topk", 3, 5)]
    assert differing_keys(old, old) == []
    assert ("topk", 3, "<absent>") in differing_keys(old, parse(["method=random"]).to_dict())
    assert ("num_train_steps", 500000, 600000) in differing_keys(old, parse(["num_train_steps=600000"]).to_dict())


def test_run_directory_names() -> None:
    assert override_dirname(README_COMMAND) == "env=cheetah_run,num_expl_steps=250000,num_train_steps=500000"
    assert override_dirname(["seed=2", "env=toy/maze", "run_dir=/a/b", "keep=[actor]"]) == (
        "env=toy-maze,keep=-actor-,seed=2"
    )
    long = [f"experiment={'x' * 400}"]
    assert len(override_dirname(long)) < 200 and override_dirname(long) != override_dirname([long[0] + "y"])
    now = datetime(2026, 3, 4, 5, 6, 7)
    assert default_run_dir(["seed=2"], now) == Path("exp_local/2026.03.04/050607_seed=2")
    assert default_run_dir([], now) == Path("exp_local/2026.03.04/050607")


@pytest.mark.parametrize("command", ["train", "pretrain", "finetune"])
def test_help_lists_every_key_with_its_default(command: str) -> None:
    text = help_text(command)  # type: ignore[arg-type]
    for key in parse([]).to_dict():
        assert f"  {key}=" in text
    assert "batch_size=512" in text and "camera=none" in text and "policy=drqv2" in text
    assert all(f"  {preset} " in text for preset in list_presets())
    offered = text.split("Operators of augment and repr_augment")[1].split("Presets")[0]
    assert [line.split()[0].partition("(")[0] for line in offered.splitlines()[1:] if line] == sorted(
        name for name in OPERATORS if name != "subpixel_shift"  # of latent images only
    )
    assert all(name in NO_OBJECTIVE or f"method={name}" in text for name in method_configs())


def test_documentation_is_up_to_date() -> None:
    page = Path(__file__).parent.parent / "docs" / "configuration.md"
    assert markdown_tables().strip() in page.read_text(), "run: python -m visrep.config_help docs/configuration.md"
