"""A lane in its own process: the worker's main function, and the learner's handle on it.

The worker is a fresh interpreter (neither forked nor importing the learner's ``__main__``, so it never loads torch),
with a socket for short messages and one inherited file descriptor for the shared memory. That file has no name any
more, so nothing is left behind however the processes end; a worker whose learner is gone sees its socket close, and
exits.

Messages to the worker: (command, arguments); replies: ("ok", value), ("error", traceback) or ("user_error", message).
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visrep.envs.vector_lane import EnvSpec, Lane, LaneFailed, LaneInfo, Slots
from visrep.errors import UserError

_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "LP_NUM_THREADS")
_BOOT = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[3]); "
    "from visrep.envs.vector_worker import main; main(int(sys.argv[1]), int(sys.argv[2]))"
)
_GRACE_SECONDS = 2.0


def main(socket_fd: int, memory_fd: int) -> None:
    """Serve one lane until the learner closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the learner's to handle
    with Connection(socket_fd) as pipe:
        try:
            _serve(pipe, memory_fd)
        except (EOFError, ConnectionError):
            return  # the learner is gone
        except UserError as error:
            _tell(pipe, "user_error", str(error))
            raise SystemExit(1) from None
        except Exception:
            _tell(pipe, "error", traceback.format_exc())
            raise SystemExit(1) from None


def _serve(pipe: Connection, memory_fd: int) -> None:
    spec, seed, index = pipe.recv()
    lane = Lane(spec, seed, index)
    try:
        pipe.send(("ok", lane.info))
        lanes = pipe.recv()
        memory = mmap.mmap(memory_fd, Slots.nbytes(lanes, lane.info))
        lane.attach(Slots.over(memory, lanes, lane.info))
        while True:
            command, arguments = pipe.recv()
            ended = False
            if command == "step":
                ended = lane.step(*arguments)
            else:
                lane.start(*arguments)
            pipe.send(("ok", ended))
    finally:
        lane.close()


def _tell(pipe: Connection, kind: str, text: str) -> None:
    with contextlib.suppress(ConnectionError):  # the learner is closing and no longer listens
        pipe.send((kind, text))


class LaneProcess:
    """The learner's end of one worker. Starting is asynchronous: ``info()`` waits for the environment to be built."""

    def __init__(self, spec: EnvSpec, seed: int, index: int, memory_fd: int) -> None:
        ours, theirs = socket.socketpair()
        self.index = index
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, str(theirs.fileno()), str(memory_fd), json.dumps(sys.path)],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), memory_fd),
                env={**os.environ, **dict.fromkeys(_ONE_THREAD, "1")},
                process_group=0,  # the terminal's Ctrl-C reaches the learner only
            )
        self._pipe = Connection(ours.detach())
        self.pid = self._process.pid
        self._send((spec, seed, index))

    def info(self) -> LaneInfo:
        """The built environment's description."""
        info: LaneInfo = self._receive()
        return info

    def attach(self, lanes: int) -> None:
        """Map the shared memory, which must have its size by now."""
        self._send(lanes)

    def start(self, episode: int, actions: NDArray[np.float32] | None = None) -> None:
        """Ask for ``Lane.start``; ``finish`` waits for it."""
        self._send(("start", (episode, actions)))

    def step(self, episode: int) -> None:
        """Ask for ``Lane.step``; ``finish`` waits for it."""
        self._send(("step", (episode,)))

    def finish(self) -> Any:
        """Wait for the reply to the last command: True where a step ended the episode; raises LaneFailed."""
        return self._receive()

    def hang_up(self) -> None:
        """Tell the worker to end, without waiting for it; safe to call twice."""
        self._pipe.close()

    def close(self) -> None:
        """End the worker; safe to call twice."""
        self.hang_up()
        try:
            self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, message: Any) -> None:
        with contextlib.suppress(ConnectionError):  # dead; the reply that never comes says so, with the reason
            self._pipe.send(message)

    def _receive(self) -> Any:
        try:
            kind, value = self._pipe.recv()
        except (EOFError, ConnectionError):
            raise LaneFailed(f"worker process {self.pid} died ({self._cause()})") from None
        if kind == "user_error":
            raise UserError(value)
        if kind == "error":
            raise LaneFailed(value)
        return value

    def _cause(self) -> str:
        try:
            code = self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
