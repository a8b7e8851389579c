# SPDX-License-Identifier: Apache-2.0
"""Simulated services, sources that ask them, certificates, and an environment without settings."""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from qr_entropy_http.simulators import Simulator
from qr_entropy_http.source import HttpSource

# Derandomised: a run that passes today passes tomorrow; machines differ in speed.
settings.register_profile(
    "qr-entropy-http",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("qr-entropy-http")

KEY = "k3y-of-the-tests"
PARAMETERS = {"openentropy": "source=clock_jitter", "quanttp": "device_id=QWR70154"}


@pytest.fixture(scope="session", autouse=True)
def _interrupts_arrive() -> Iterator[None]:
    """Undoes what a shell does to background jobs: they ignore SIGINT, and so do their children."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hides the operator's own variables, `.env` file and spent quotas from every test."""
    for name in os.environ:
        if name.upper().startswith("QR_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A private file with the key that simulated services accept."""
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_text(KEY + "\n")
    return path


@pytest.fixture
def serve() -> Iterator[Callable[..., Simulator]]:
    """Starts simulated services, which end with the test."""
    started: list[Simulator] = []

    def start(preset: str, **options: Any) -> Simulator:
        simulator = Simulator(preset, **{"key": KEY, **options})
        started.append(simulator)
        return simulator

    yield start
    for simulator in started:
        simulator.close()


@pytest.fixture
def ask(key_file: Path) -> Callable[..., HttpSource]:
    """Makes sources that ask a simulated service."""

    def make(simulator: Simulator, preset: str, **options: Any) -> HttpSource:
        own: dict[str, Any] = {"url": simulator.url, "parameters": PARAMETERS.get(preset, "")}
        if simulator.protocol.key_header:
            own["key_file"] = key_file
        return HttpSource(preset, **{**own, **options})

    return make


class Authority:
    """Signs certificates for 127.0.0.1, and trusts itself."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.certificate, self._issuer = self._issue("authority", None)

    def server(self, *, days: int = 1, host: str = "127.0.0.1") -> ssl.SSLContext:
        """Returns what a server encrypts with.

        Args:
            days: For how long its certificate is valid; negative for one that is over.
            host: The address that it is for.
        """
        path, _ = self._issue(f"server-{days}-{host}", self._issuer, days, host)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _issue(
        self, name: str, issuer: Any, days: int = 1, host: str = "127.0.0.1"
    ) -> tuple[Path, Any]:
        import datetime
        import ipaddress

        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.timezone.utc)
        day = datetime.timedelta(days=1)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer[0].subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 3 * day)
            .not_valid_after(now + days * day)
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), True)
            # What RFC 5280 asks for, which Python checks since 3.13.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(
                    (issuer[1] if issuer else key).public_key()
                ),
                False,
            )
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    key_cert_sign=issuer is None,
                    crl_sign=False,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                True,
            )
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), False
            )
            .sign(issuer[1] if issuer else key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        private = key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = self._folder / f"{name}.pem"
        path.write_bytes(private + certificate.public_bytes(pem))
        return path, (certificate, key)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Signs the certificates of a test."""
    return Authority(tmp_path)
