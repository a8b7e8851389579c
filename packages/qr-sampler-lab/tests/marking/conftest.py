# SPDX-License-Identifier: Apache-2.0
"""Journals, and servers that take marks for them."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from qr_sampler_lab.experiments.files.chained_record import Entry
from qr_sampler_lab.experiments.files.journal import Journal
from qr_sampler_lab.experiments.marking.key import MarkKey
from qr_sampler_lab.experiments.marking.page import page_with
from qr_sampler_lab.experiments.marking.place import Place, tls_context
from qr_sampler_lab.experiments.marking.server import MarkServer, serving
from qr_sampler_lab.experiments.marking.writer import MarkWriter

PLAIN = {"Content-Type": "text/plain"}


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    text: str


class Site(NamedTuple):
    """A running server and its journal."""

    server: MarkServer
    journal: Path
    told: list[str]

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def marks(self) -> list[str]:
        """Returns the texts in the journal, whose chain is whole."""
        return [e.values["text"] for e in Journal(self.journal).entries() if e.kind == "mark"]

    def ask(
        self,
        method: str,
        path: str = "/mark",
        body: bytes | str | None = None,
        headers: Mapping[str, str] = PLAIN,
        tls: Any = None,
    ) -> Reply:
        data = body.encode() if isinstance(body, str) else body
        made: HTTPConnection = (
            HTTPConnection("127.0.0.1", self.port, timeout=20)
            if tls is None
            else HTTPSConnection("127.0.0.1", self.port, timeout=20, context=tls)
        )
        try:
            made.request(method, path, data, dict(headers))
            answer = made.getresponse()
            return Reply(answer.status, dict(answer.getheaders()), answer.read().decode())
        finally:
            made.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def send(self, data: bytes) -> bytes:
        """Returns all that comes back for bytes, behind which nothing more is sent."""
        with self.connect() as connection:
            # A server that has closed it already has had no room for it.
            with suppress(OSError):
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
            return self.received(connection)

    @staticmethod
    def received(connection: socket.socket) -> bytes:
        """Returns all that a connection gives until its end, also if that is abrupt."""
        data = b""
        with suppress(ConnectionResetError):
            while piece := connection.recv(4096):
                data += piece
        return data


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "journal.jsonl"
    Journal(path).create("5e" * 32, Entry("sealed", 1, "0" * 64, "1" * 64, {}))
    return path


MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(journal: Path) -> Iterator[MakeSite]:
    """Starts servers; all stop after the test."""
    with ExitStack() as running:

        def make(
            *,
            buttons: tuple[str, ...] = (),
            key: str | None = None,
            pair: tuple[Path, Path] | None = None,
            request_timeout_s: float = 20.0,
            **how: Any,
        ) -> Site:
            told: list[str] = []
            server = MarkServer(
                Place("127.0.0.1", 0),
                MarkWriter(journal, tell=told.append, **how),
                page_with(buttons, with_key=key is not None),
                key=None if key is None else MarkKey(key.encode()),
                tls=None if pair is None else tls_context(*pair),
                request_timeout_s=request_timeout_s,
            )
            return Site(running.enter_context(serving(server)), journal, told)

        yield make


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key, made by OpenSSL."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "server.pem", folder / "server.key"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        f"-subj /CN=marks -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return certificate, key
