# SPDX-License-Identifier: Apache-2.0
"""Encrypted draws in every mode, and every way in which the encryption can be refused."""

from __future__ import annotations

import datetime
import ipaddress
import logging
import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from qr_sampler import EntropyUnavailableError
from qr_sampler_grpc.server import ServerTls, serve
from qr_sampler_grpc.source import QuantumGrpcSource

every_way = pytest.mark.parametrize(
    ("mode", "stubs"),
    [
        (mode, stubs)
        for mode in ("unary", "server_streaming", "bidi_streaming")
        for stubs in ("sync", "aio")
    ],
)

DAY = datetime.timedelta(days=1)


class Pair(NamedTuple):
    certificate: Path
    key: Path


class Authority:
    """Signs certificates for the loopback address."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._signed(name, self._key, None, DAY)
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def pair(self, name: str, valid: datetime.timedelta = DAY, host: str = "127.0.0.1") -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._signed(name, key, self._certificate, valid, host)
        stem = self._folder / f"{self._name}-{name}"
        files = Pair(stem.with_suffix(".pem"), stem.with_suffix(".key"))
        files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files

    def _signed(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        issuer: x509.Certificate | None,
        valid: datetime.timedelta,
        host: str = "127.0.0.1",
    ) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.timezone.utc)
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * DAY)
            .not_valid_after(now + valid)
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), True)
            .add_extension(names, critical=False)
            .sign(self._key, hashes.SHA256())
        )


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "theirs")


def encrypted(address: str, authority: Authority, **options: Any) -> QuantumGrpcSource:
    return QuantumGrpcSource(
        address, tls_enabled=True, tls_ca_cert=authority.path, timeout_ms=10_000, **options
    )


def refusal(source: QuantumGrpcSource) -> str:
    with pytest.raises(EntropyUnavailableError) as caught:
        source.draw(8)
    source.close()
    return caught.value.reason


@every_way
def test_draws_are_encrypted(ours: Authority, mode: str, stubs: str) -> None:
    server = ours.pair("server")
    tls = ServerTls(certificate=server.certificate, private_key=server.key)
    with serve(os.urandom, "127.0.0.1:0", tls=tls) as running:
        source = encrypted(running.address, ours, mode=mode, stubs=stubs)
        assert len({source.draw(32).data for _ in range(3)}) == 3
        source.close()


@every_way
def test_both_sides_can_be_known(ours: Authority, mode: str, stubs: str) -> None:
    server, client = ours.pair("server"), ours.pair("client")
    tls = ServerTls(certificate=server.certificate, private_key=server.key, client_ca=ours.path)
    with serve(os.urandom, "127.0.0.1:0", tls=tls) as running:
        source = encrypted(
            running.address,
            ours,
            mode=mode,
            stubs=stubs,
            tls_client_cert=client.certificate,
            tls_client_key=client.key,
        )
        assert len(source.draw(32).data) == 32
        source.close()


def test_a_client_without_a_certificate_gets_nothing(ours: Authority, theirs: Authority) -> None:
    server, stranger = ours.pair("server"), theirs.pair("client")
    drawn = []

    def generate(n: int) -> bytes:
        drawn.append(n)
        return os.urandom(n)

    tls = ServerTls(certificate=server.certificate, private_key=server.key, client_ca=ours.path)
    with serve(generate, "127.0.0.1:0", tls=tls) as running:
        refusal(encrypted(running.address, ours))
        refusal(
            encrypted(
                running.address,
                ours,
                tls_client_cert=stranger.certificate,
                tls_client_key=stranger.key,
            )
        )
    assert drawn == []


@pytest.mark.parametrize("fault", ["expired", "another authority", "another host", "no TLS"])
def test_a_server_that_is_not_the_right_one_is_refused(
    ours: Authority, theirs: Authority, fault: str
) -> None:
    pair = {
        "expired": lambda: ours.pair("server", valid=-DAY),
        "another authority": lambda: theirs.pair("server"),
        "another host": lambda: ours.pair("server", host="127.0.0.9"),
        "no TLS": lambda: ours.pair("server"),
    }[fault]()
    drawn = []

    def generate(n: int) -> bytes:
        drawn.append(n)
        return os.urandom(n)

    tls = ServerTls(certificate=pair.certificate, private_key=pair.key)
    with serve(generate, "127.0.0.1:0", tls=None if fault == "no TLS" else tls) as running:
        reason = refusal(encrypted(running.address, ours))
    assert "no encrypted connection to" in reason or "no answer from" in reason
    assert "certificates" in reason or "start the server" in reason
    assert drawn == []


def test_the_key_of_the_api_is_never_seen(
    ours: Authority, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    secret = "s3cret-0xfeed"
    file = tmp_path / "key"
    file.write_text(secret + "\n", "utf-8")
    server = ours.pair("server")
    tls = ServerTls(certificate=server.certificate, private_key=server.key)
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
