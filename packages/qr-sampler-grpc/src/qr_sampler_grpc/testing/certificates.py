# SPDX-License-Identifier: Apache-2.0
"""Certificates made for one test: an authority, and what it signs for this machine."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["Identity", "issue"]

_DAY: Final = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its key, as files in PEM form and as objects."""

    certificate: Path
    private_key: Path
    x509: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def key_as(
        self,
        encryption: serialization.KeySerializationEncryption,
        layout: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8,
    ) -> bytes:
        """Returns the key in PEM form."""
        return self.key.private_bytes(serialization.Encoding.PEM, layout, encryption)

    def vouch_for(
        self, name: str, *, valid: datetime.timedelta = _DAY, host: str = "127.0.0.1"
    ) -> Identity:
        """Returns what :func:`issue` does, signed by this identity, with files beside its own."""
        return issue(self.certificate.parent, name, self, valid=valid, host=host)


def issue(
    folder: Path,
    name: str,
    issuer: Identity | None = None,
    *,
    valid: datetime.timedelta = _DAY,
    host: str = "127.0.0.1",
) -> Identity:
    """Returns a new identity, for ``localhost`` and *host*.

    Args:
        folder: Where its files are put, named after it.
        name: Its common name.
        issuer: The authority that signs it; without one it signs itself, and is an authority.
        valid: For how long from now on; negative for a certificate that is over.
        host: An IP address.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(host))]
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.x509.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 2 * _DAY)
        .not_valid_after(now + valid)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(issuer.key if issuer else key, hashes.SHA256())
    )
    identity = Identity(folder / f"{name}.pem", folder / f"{name}.key", certificate, key)
    identity.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    identity.private_key.touch(mode=0o600)
    identity.private_key.write_bytes(identity.key_as(serialization.NoEncryption()))
    return identity
