"""Environments whose frames or actions are not the usual ones: what can be done is done, the rest is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from run_tools import words

from test_video import decode
from visrep.cli import main
from visrep.envs.vector import EnvSpec, VectorEnv
from visrep.errors import UserError

pytestmark = pytest.mark.usefixtures("in_process")


def train(run_dir: Path, factory: str, *more: str) -> int:
    return main(["train", *words(run_dir, f"env=odd_envs:{factory}", "save_video=true", *more)])


def test_grey_frames_are_filmed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir, film = tmp_path / "run", tmp_path / "film.mp4"
    assert train(run_dir, "make_grey", "num_eval_episodes=1") == 0
    assert "no videos" not in capsys.readouterr().out
    frames, _, _ = decode(run_dir / "video" / "0.mp4")
    assert len(frames) == 31 and all(np.ptp(frame.astype(int), axis=-1).max() < 12 for frame in frames)
    assert frames[0].std() > 5
    assert main(["evaluate", f"run={run_dir}", "episodes=1", f"video={film}"]) == 0
    assert film.stat().st_size > 500


def test_frames_that_are_no_pictures_are_left_out_of_videos_with_one_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir, film = tmp_path / "run", tmp_path / "film.mp4"
    assert train(run_dir, "make_four", "num_eval_episodes=1") == 0
    reason = "the frames have 4 channels, and only grey (1) and RGB (3) can be shown"
    assert capsys.readouterr().out.count(f"note: no videos are written: {reason}\n") == 1
    assert not (run_dir / "video").exists() or not list((run_dir / "video").iterdir())
    assert main(["evaluate", f"run={run_dir}", "episodes=1", f"video={film}"]) == 0
    assert f"note: video={film} is not written: {reason}" in capsys.readouterr().out
    assert not film.exists() and (run_dir / "evaluation.json").exists()


def test_state_vectors_are_not_filmed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = ("env=toy/maze_center", "observation=state", "method=none", "num_expl_steps=0", "encoder_gradient=none")
    more = ("num_train_steps=60", "num_eval_episodes=1", "frame_stack=1", "save_video=true")
    assert main(["train", *words(tmp_path, *state, *more)]) == 0
    assert "no videos" not in capsys.readouterr().out  # nobody expects one
    assert main(["evaluate", f"run={tmp_path}", "episodes=1", f"video={tmp_path}/film.mp4"]) == 0
    assert "film.mp4 is not written: the frames are float32 values" in capsys.readouterr().out


@pytest.mark.parametrize("processes", [False, True], ids=["in-process", "processes"])
def test_classes_of_actions_are_refused_on_line(processes: bool) -> None:
    spec = EnvSpec("odd_envs:FourMoves", image_size=16)
    with pytest.raises(UserError) as error:
        VectorEnv(spec, 1, 0, processes=processes)
    said = str(error.value)
    for part in ("env=odd_envs:FourMoves", "Discrete(4)", "continuous boxes", "visrep pretrain data=<dataset>"):
        assert part in said


@pytest.mark.parametrize("command", ["train", "collect"])
def test_the_refusal_is_one_message(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env = "env=odd_envs:FourMoves"
    own = words(tmp_path / "run", env) if command == "train" else [env, f"out={tmp_path / 'out'}", "episodes=1"]
    assert main([command, *own]) == 2
    said = capsys.readouterr().err
    assert "takes actions Discrete(4)" in said and "Traceback" not in said
