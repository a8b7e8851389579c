# SPDX-License-Identifier: Apache-2.0
"""The engine's end of the pipes to the process that writes its ledger."""

from __future__ import annotations

import logging
import os
import select
import subprocess  # nosec B404
import sys
from io import FileIO
from typing import Any, Final

import msgspec

from qr_sampler.records.process.messages import Reply, Request, Standing, receive, send

__all__ = ["ProcessEndedError", "WriterProcess"]

PATIENCE_S: Final = 10.0
"""Longest time in seconds that an engine waits for the process to end, once it has been told to."""

_PROGRAM: Final = (
    "import sys; sys.path[:] = sys.argv[2:]; "
    "from qr_sampler.records.process.child import main; main(int(sys.argv[1]))"
)

_ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""NumPy would keep one for every core ready, though nothing is computed there."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Reply).decode


class ProcessEndedError(Exception):
    """The process does not answer any more; says why."""


class WriterProcess:
    """The process. One thread at a time may use this.

    It has a session of its own, so that it outlives an interrupt from a terminal, and ends when
    the engine has closed its end of the pipe or has ended in whatever way.

    Raises:
        ProcessEndedError: When it cannot be started.
    """

    def __init__(self) -> None:
        if not sys.executable or getattr(sys, "frozen", False):
            raise ProcessEndedError("this program has no interpreter of its own to start")
        # Not through standard output, to which whatever runs at start may print.
        ours, theirs = os.pipe()
        self._replies = FileIO(ours, "rb")
        # Imports pass over everything else, too.
        places: list[Any] = list(sys.path)
        folders = [place for place in places if isinstance(place, str)]
        try:
            self._process: Any = subprocess.Popen(  # nosec B603
                [sys.executable, "-c", _PROGRAM, str(theirs), *folders],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs],
                env={**os.environ, **_ONE_THREAD},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            self._replies.close()
            raise ProcessEndedError(str(error)) from error
        finally:
            os.close(theirs)

    @property
    def pid(self) -> int:
        """Its number."""
        number: int = self._process.pid
        return number

    def is_ready(self) -> bool:
        """Returns whether it can be called from now on; waits for nothing.

        Raises:
            ProcessEndedError: When it has ended instead.
        """
        answers = self._replies
        try:
            # Unlike select, this takes descriptors beyond 1,023, which servers have.
            poll = select.poll()
            poll.register(answers, select.POLLIN)
            if not poll.poll(0):
                return False
            if receive(answers) is None:
                raise ProcessEndedError("it has not started")
        except (OSError, ValueError) as error:
            raise ProcessEndedError(str(error)) from error
        return True

    def call(self, request: Request) -> Standing:
        """Has it do something; waits until it is done.

        Raises:
            ProcessEndedError: When it has ended before.
        """
        try:
            send(self._process.stdin, _encode(request))
            message = receive(self._replies)
            if message is None:
                raise ProcessEndedError("it has closed its pipe")
            reply = _decode(message)
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise ProcessEndedError(str(error)) from error
        for name, level, words in reply.said:
            logging.getLogger(name).log(level, "%s", words)
        return reply.standing

    def end(self, *, at_once: bool = False) -> str:
        """Lets it end, waits for that and returns how it has ended.

        Args:
            at_once: Whether it has nothing to do any more.
        """
        if at_once:
            self._process.kill()
        self._process.stdin.close()
        try:
            code = self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            # Nobody else may write to the file from now on.
            self._process.kill()
            code = None
        self._replies.close()
        return "it did not end by itself" if code is None else f"exit status {code}"

    def leave(self) -> None:
        """Leaves it to the process that this one was forked from."""
        self._process.stdin.close()
        self._replies.close()
        self._process.returncode = 0
