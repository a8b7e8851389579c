# SPDX-License-Identifier: Apache-2.0
"""The process that writes a ledger: it does what an engine tells it, until the engine is gone."""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Sequence
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from typing import Any, Final

import msgspec

from qr_sampler.records.chain import Item
from qr_sampler.records.clocks import clock_line
from qr_sampler.records.files import Continues, LedgerWriter
from qr_sampler.records.process.messages import (
    READY,
    End,
    Lose,
    Prepare,
    Reply,
    Request,
    Standing,
    Start,
    Write,
    items_of,
    receive,
    send,
)

__all__ = ["main", "serve"]

_decode: Final = msgspec.msgpack.Decoder(Request).decode
_encode: Final = msgspec.msgpack.Encoder().encode


def main(replies: int) -> None:
    """Serves the engine that has started this process, whose requests are the standard input.

    Signals to end are for the engine, whose last records come after them.

    Args:
        replies: Descriptor of the pipe for the answers.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    # What has been imported stays, so there is no use in looking through it for garbage.
    gc.freeze()
    serve(FileIO(0, "rb", closefd=False), FileIO(replies, "wb"))


def serve(requests: FileIO, replies: FileIO) -> None:
    """Answers requests until there are no more.

    Args:
        requests: Where they come from; the first one is :class:`Start`.
        replies: Where the answers go, after a message that tells that this is ready.
    """
    said = _Said()
    above = logging.getLogger("qr_sampler")
    above.addHandler(said)
    above.propagate = False
    ledger: _Ledger | None = None
    try:
        send(replies, READY)
        while (message := receive(requests)) is not None:
            request = _decode(message)
            if isinstance(request, Start):
                ledger = _Ledger(request)
            elif ledger is not None:
                ledger.obey(request)
            if ledger is not None:
                send(replies, _encode(Reply(ledger.standing(), said.taken())))
    except BrokenPipeError:
        # The engine has ended; what it has said is written.
        pass
    finally:
        above.removeHandler(said)
        above.propagate = True
        if ledger is not None:
            ledger.leave()


class _Said(logging.Handler):
    """Keeps what is logged, for the log of the engine."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        # Paths may contain any bytes.
        words = record.getMessage().encode("utf-8", "backslashreplace").decode()
        self._kept.append((record.name, record.levelno, words))

    def taken(self) -> list[tuple[str, int, str]]:
        kept, self._kept = self._kept, []
        return kept


class _Ledger:
    """The ledger of an engine.

    Args:
        start: What the engine says of it.
    """

    def __init__(self, start: Start) -> None:
        self._genesis: dict[str, Any] = msgspec.json.decode(start.genesis)
        self._files = 0
        self._writer = LedgerWriter(
            Path(os.fsdecode(start.path)),
            self._beginning,
            seal=start.seal,
            blinded=frozenset(start.blinded),
            max_bytes=start.max_bytes,
            held=start.held,
            sync_s=start.sync_s,
        )
        self._files = 0
        if start.standing is not None:
            start.standing.continued_by(self._writer)

    def obey(self, request: Request) -> None:
        """Does what the engine asks for."""
        writer = self._writer
        if isinstance(request, Prepare):
            writer.prepare()
        elif isinstance(request, Write):
            writer.write(items_of(request.items))
        elif isinstance(request, Lose):
            writer.lose(request.reason, request.missing, request.since_wall_ns)
        elif isinstance(request, End):
            writer.end()

    def standing(self) -> Standing:
        """Returns where it stands."""
        return Standing.of(self._writer, self._files)

    def leave(self) -> None:
        """Writes what waits, if the disk takes it now; the file stays without an end."""
        if self._writer.waiting:
            self._writer.write()
        self._writer.sync()
        self._writer.release()

    def _beginning(self, continues: Continues | None) -> Sequence[Item]:
        self._files += 1
        before = None if continues is None else asdict(continues)
        return [("genesis", {**self._genesis, "continues": before}), ("clock", clock_line())]
