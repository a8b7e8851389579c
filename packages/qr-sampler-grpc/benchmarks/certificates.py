# SPDX-License-Identifier: Apache-2.0
"""A certificate authority of the moment, with one certificate for either side."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["Pair", "make_certificates"]

_DAY: Final = datetime.timedelta(days=1)


class Pair(NamedTuple):
    """Files of a certificate and its key."""

    certificate: Path
    key: Path


def make_certificates(folder: Path) -> tuple[Path, Pair, Pair]:
    """Returns the authority's certificate, the server's pair and the client's pair."""
    key = ec.generate_private_key(ec.SECP256R1())
    authority = _signed("authority", key, None, key)
    path = folder / "authority.pem"
    path.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    server, client = (_pair(folder, name, authority, key) for name in ("server", "client"))
    return path, server, client


def _pair(
    folder: Path, name: str, authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey
) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _signed(name, key, authority, authority_key)
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pair.key.touch(mode=0o600)
    pair.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pair


def _signed(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([loopback]), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
