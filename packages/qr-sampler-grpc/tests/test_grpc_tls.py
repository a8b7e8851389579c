# SPDX-License-Identifier: Apache-2.0
"""Encrypted draws in every mode, and every way in which the encryption can be refused."""

from __future__ import annotations

import datetime
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from qr_sampler import EntropyUnavailableError
from qr_sampler_grpc.server import ServerTls, serve
from qr_sampler_grpc.source import QuantumGrpcSource
from qr_sampler_grpc.testing.certificates import Identity, issue
from qr_sampler_grpc.testing.scripted import WAYS

every_way = pytest.mark.parametrize(("mode", "stubs"), WAYS)

DAY = datetime.timedelta(days=1)


@pytest.fixture
def ours(tmp_path: Path) -> Identity:
    return issue(tmp_path, "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Identity:
    folder = tmp_path / "theirs"
    folder.mkdir()
    return issue(folder, "theirs")


def tls_of(server: Identity, client_ca: Path | None = None) -> ServerTls:
    return ServerTls(
        certificate=server.certificate, private_key=server.private_key, client_ca=client_ca
    )


def encrypted(address: str, authority: Identity, **options: Any) -> QuantumGrpcSource:
    return QuantumGrpcSource(
        address, tls_enabled=True, tls_ca_cert=authority.certificate, timeout_ms=10_000, **options
    )


def refusal(source: QuantumGrpcSource) -> str:
    with pytest.raises(EntropyUnavailableError) as caught:
        source.draw(8)
    source.close()
    return caught.value.reason


@every_way
def test_draws_are_encrypted(ours: Identity, mode: str, stubs: str) -> None:
    server = ours.vouch_for("server")
    tls = tls_of(server)
    with serve(os.urandom, "127.0.0.1:0", tls=tls) as running:
        source = encrypted(running.address, ours, mode=mode, stubs=stubs)
        assert len({source.draw(32).data for _ in range(3)}) == 3
        source.close()


@every_way
def test_both_sides_can_be_known(ours: Identity, mode: str, stubs: str) -> None:
    server, client = ours.vouch_for("server"), ours.vouch_for("client")
    tls = ServerTls(
        certificate=server.certificate, private_key=server.private_key, client_ca=ours.certificate
    )
    with serve(os.urandom, "127.0.0.1:0", tls=tls) as running:
        source = encrypted(
            running.address,
            ours,
            mode=mode,
            stubs=stubs,
            tls_client_cert=client.certificate,
            tls_client_key=client.private_key,
        )
        assert len(source.draw(32).data) == 32
        source.close()


@pytest.mark.parametrize("fault", ["expired", "another authority", "another host", "no TLS"])
def test_a_server_that_is_not_the_right_one_is_refused(
    ours: Identity, theirs: Identity, fault: str
) -> None:
    pair = {
        "expired": lambda: ours.vouch_for("server", valid=-DAY),
        "another authority": lambda: theirs.vouch_for("server"),
        "another host": lambda: ours.vouch_for("server", host="127.0.0.9"),
        "no TLS": lambda: ours.vouch_for("server"),
    }[fault]()
    drawn = []

    def generate(n: int) -> bytes:
        drawn.append(n)
        return os.urandom(n)

    tls = tls_of(pair)
    with serve(generate, "127.0.0.1:0", tls=None if fault == "no TLS" else tls) as running:
        reason = refusal(encrypted(running.address, ours))
    assert "no encrypted connection to" in reason or "no answer from" in reason
    assert "certificates" in reason or "start the server" in reason
    assert drawn == []


def test_the_key_of_the_api_is_never_seen(
    ours: Identity, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    secret = "s3cret-0xfeed"
    file = tmp_path / "key"
    file.write_text(secret + "\n", "utf-8")
    server = ours.vouch_for("server")
    tls = tls_of(server)
    with (
        caplog.at_level(logging.DEBUG),
        serve(os.urandom, "127.0.0.1:0", tls=tls, api_key=secret) as running,
    ):
        source = encrypted(running.address, ours, api_key_file=file)
        assert len(source.draw(8).data) == 8
        assert secret not in repr(source)
        source.close()
        wrong = encrypted(running.address, ours, api_key="another-0xdead")
        assert "another-0xdead" not in refusal(wrong)
    assert secret not in caplog.text
    assert "another-0xdead" not in caplog.text
