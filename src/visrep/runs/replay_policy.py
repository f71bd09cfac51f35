"""``visrep evaluate``: play episodes with a finished run's policy, on the run's own environment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from visrep.config import load_config
from visrep.console import Console
from visrep.envs.vector import VectorEnv
from visrep.errors import UserError
from visrep.files import check_place, write_json_atomic, writing
from visrep.runs.compose import Source, build_agent, build_networks, choose_device, env_spec
from visrep.runs.evaluation import evaluate, evaluation_lanes
from visrep.runs.pretrained import load_agent, newest_agent
from visrep.video import not_showable, write_video


def evaluate_run(
    console: Console, run: str, episodes: int = 10, seed: int | None = None, video: str | None = None
) -> int:
    """Load the newest agent of a run directory and play it.

    Args:
        console: where to print.
        run: run directory.
        episodes: how many episodes.
        seed: of the evaluation episodes; None takes the run's own evaluation seed.
        video: path of an mp4 of the first episode, or None. Left out, with a note, where frames cannot be shown.

    Returns:
        Exit status 0; the figures are printed and written to ``evaluation.json`` in the run directory.

    Raises:
        UserError: no run directory or no agent in it, an impossible value, or a video that cannot be written.
    """
    folder = Path(run)
    if not (folder / "config.yaml").is_file():
        raise UserError(f"run={run} is not a run directory: it has no config.yaml")
    check_request(episodes, seed)
    film = None if video is None else _video_file(video)
    config, agent = load_config(folder / "config.yaml"), newest_agent(folder)
    device, _ = choose_device(config.run.device)
    seed = config.run.seed + 1 if seed is None else seed
    lanes = evaluation_lanes(config.run.num_envs, episodes)
    with VectorEnv(env_spec(config), lanes, seed) as envs:
        networks = build_networks(config, Source.of(envs), device)
        path = load_agent(networks, str(agent), leave=("objective",)).path
        film = _showable(film, envs, console)
        result = evaluate(
            envs,
            build_agent(config, networks, device),
            frame_stack=config.run.frame_stack,
            episodes=episodes,
            agent_step=torch.iinfo(torch.int32).max,  # schedules at their end
            first_episode=0,
        )
    returns = np.asarray(result.returns)
    spread = f"std {returns.std():.2f}, {episodes} episodes"
    console.line(f"{path.name} on {config.run.env}: return {returns.mean():.2f} ({spread})")
    if result.success is not None:
        console.line(f"success {100 * result.success:.0f} %")
    if film is not None:
        with writing(film):
            write_video(film, result.frames)
    figures = {"agent": path.name, "seed": seed, "returns": result.returns, "success": result.success}
    write_json_atomic(folder / "evaluation.json", figures)
    return 0


def check_request(episodes: int = 10, seed: int | None = None) -> None:
    """UserError for numbers that ``evaluate_run`` cannot do anything with."""
    if episodes < 1:
        raise UserError(f"episodes={episodes} must be at least 1")
    if seed is not None and seed < 0:
        raise UserError(f"seed={seed} must be at least 0")


def _showable(film: Path | None, envs: VectorEnv, console: Console) -> Path | None:
    """``film``, or None after a note where the frames are no pictures."""
    reason = not_showable(envs.frame_shape[0], envs.frame_dtype)
    if film is None or reason is None:
        return film
    console.line(f"note: video={film} is not written: {reason}", style="yellow")
    return None


def _video_file(video: str) -> Path:
    """Where the video goes, found out before anything is played.

    Raises:
        UserError: no name of an .mp4 file, or it cannot be written.
    """
    path = Path(video).expanduser()
    if path.suffix.lower() != ".mp4" or path.is_dir():
        raise UserError(f"video={video}: name the file to write, ending in .mp4, such as video=episode.mp4")
    check_place(path.parent)
    return path
