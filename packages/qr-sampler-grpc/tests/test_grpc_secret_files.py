# SPDX-License-Identifier: Apache-2.0
"""Secrets that others could see: in files, and on their way to a server."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from qr_sampler import ConfigError
from qr_sampler.testing import ConstantEntropySource
from qr_sampler_grpc.connection.credentials import secret_in
from qr_sampler_grpc.protocol.attestation import SigningKey
from qr_sampler_grpc.server import ServerTls, serve
from qr_sampler_grpc.server.keys import read_secrets
from qr_sampler_grpc.source import QuantumGrpcSource
from qr_sampler_grpc.testing.keys import make_key_pair

SECRET = "s3cret-key-0xdeadbeef"


def api_key(path: Path) -> object:
    path.write_text(SECRET, "utf-8")
    return lambda: QuantumGrpcSource(api_key_file=path)


def api_keys(path: Path) -> object:
    path.write_text(f"{SECRET}\n", "utf-8")
    return lambda: read_secrets(path)


def signing_key(path: Path) -> object:
    make_key_pair(path.parent).private.rename(path)
    return lambda: SigningKey(path)


def tls_key(path: Path) -> object:
    """Not a key: it is warned of before anybody looks into it."""
    path.write_text("nothing", "utf-8")

    def load() -> None:
        with pytest.raises(ConfigError):
            ServerTls(certificate=path, private_key=path).credentials()

    return load


def client_key(path: Path) -> object:
    path.write_text("nothing", "utf-8")

    def load() -> None:
        with pytest.raises(ConfigError):
            QuantumGrpcSource(tls_enabled=True, tls_client_cert=path, tls_client_key=path)

    return load


@pytest.mark.parametrize("write", [api_key, api_keys, signing_key, tls_key, client_key])
@pytest.mark.parametrize(
    ("mode", "says"),
    [
        (0o600, None),
        (0o640, None),
        (0o400, None),
        (0o644, "READ BY EVERY USER"),
        (0o604, "READ BY EVERY USER"),
        (0o620, "CHANGED BY OTHER USERS"),
    ],
)
def test_a_secret_that_others_can_read_or_change_is_warned_of_once(
    write: Callable[[Path], Callable[[], object]],
    mode: int,
    says: str | None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "secret"
    load = write(path)
    path.chmod(mode)
    for _ in range(2):
        load()
    warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    if says is None:
        assert warnings == []
    else:
        (warning,) = warnings
        assert says in warning
        assert f"(mode {mode:03o}); take that away: chmod 600 {path}" in warning
        assert SECRET not in warning


@pytest.mark.parametrize(
    ("address", "options", "is_exposed"),
    [
        ("entropy.example:50051", {"api_key": SECRET}, True),
        ("192.0.2.1:50051", {"api_key": SECRET}, True),
        ("192.0.2.1:50051", {"api_key": SECRET, "tls_enabled": True}, False),
        ("192.0.2.1:50051", {}, False),
        ("127.0.0.1:50051", {"api_key": SECRET}, False),
        ("unix:///run/e.sock", {"api_key": SECRET}, False),
    ],
)
def test_a_key_that_leaves_the_machine_unencrypted_is_warned_of(
    address: str, options: dict[str, object], is_exposed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    QuantumGrpcSource(address, **options).close()
    warnings = [one for one in caplog.records if "TRAVELS UNENCRYPTED" in one.getMessage()]
    assert [one.levelno for one in warnings] == [logging.WARNING] * is_exposed
    assert SECRET not in caplog.text


def test_metrics_that_others_can_read_need_a_word() -> None:
    source = ConstantEntropySource()
    for address in ("0.0.0.0:0", "[::]:0", "192.0.2.1:9464"):
        with pytest.raises(ConfigError, match=r"metrics at .* pass insecure=True"):
            serve(source, "127.0.0.1:0", metrics_address=address)
    serve(source, "127.0.0.1:0", metrics_address="127.0.0.1:0").stop(0)
    serve(source, "127.0.0.1:0", metrics_address="0.0.0.0:0", insecure=True).stop(0)


@pytest.mark.parametrize("read", [secret_in, lambda path: read_secrets(path)[0]])
def test_a_byte_order_mark_is_no_part_of_a_key(tmp_path: Path, read: Callable[[Path], str]) -> None:
    """Editors on Windows put one first, and the other side would know no such key."""
    file = tmp_path / "key"
    file.write_text(f"{SECRET}\n", "utf-8-sig")
    assert read(file) == SECRET
