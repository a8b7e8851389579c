# SPDX-License-Identifier: Apache-2.0
"""A time stamping authority on this machine: the ``openssl`` program, and keys made for one test.

Needs ``cryptography`` (extra ``anchors``) and the program.
"""

from __future__ import annotations

import shutil
import subprocess  # nosec B404 - without a shell
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["LocalAuthority", "has_openssl"]

_CONFIGURATION: Final = """[tsa]
default_tsa = authority
[authority]
serial = {folder}/serial
signer_cert = {folder}/signer.pem
signer_key = {folder}/signer.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
accuracy = secs:1, millisecs:500
ess_cert_id_chain = no
{more}
"""


def has_openssl() -> bool:
    """Returns whether this machine has the program."""
    return shutil.which("openssl") is not None


class LocalAuthority:
    """An authority of its own root, which stamps what it is asked to.

    Args:
        folder: Where its files are made.
        valid_days: Over how many days its certificate is valid, the last of them today; negative if
            it expired as many days ago.
        names_chain: Whether its replies hold the certificate of the root, too.
    """

    def __init__(
        self,
        folder: Path,
        *,
        valid_days: int = 1,
        names_chain: bool = False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.root: Final = folder / "root.pem"
        """Its root certificate."""
        self.signer: Final = folder / "signer.pem"
        """Its own certificate."""
        root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        end = datetime.now(timezone.utc) + timedelta(days=valid_days)
        root = _certificate("Local Root", root_key, "Local Root", root_key, end, authority=True)
        own = _certificate("Local Time", key, "Local Root", root_key, end)
        self.root.write_bytes(root.public_bytes(serialization.Encoding.PEM))
        self.signer.write_bytes(own.public_bytes(serialization.Encoding.PEM))
        (folder / "signer.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        (folder / "serial").write_text("01\n")
        more = f"certs = {self.root}" if names_chain else ""
        (folder / "tsa.cnf").write_text(_CONFIGURATION.format(folder=folder, more=more))

    def reply(self, query: bytes) -> bytes:
        """Returns the answer to a query, both in DER form."""
        (self.folder / "query.tsq").write_bytes(query)
        self._run("-reply", "-queryfile", "query.tsq", "-config", "tsa.cnf", "-out", "reply.tsr")
        return (self.folder / "reply.tsr").read_bytes()

    def stamp(self, digest: str, algorithm: str = "sha256", *, certificates: bool = True) -> bytes:
        """Returns a time stamp of a digest, given in hexadecimal."""
        more = ("-cert",) if certificates else ()
        self._run("-query", "-digest", digest, f"-{algorithm}", *more, "-out", "own.tsq")
        return self.reply((self.folder / "own.tsq").read_bytes())

    def _run(self, *arguments: str) -> None:
        program = shutil.which("openssl") or "openssl"
        subprocess.run(  # nosec B603 - our own arguments
            [program, "ts", *arguments],
            cwd=self.folder,
            check=True,
            capture_output=True,
            timeout=60,
        )


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    end: datetime,
    *,
    authority: bool = False,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - timedelta(days=400))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
    )
    if not authority:
        purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
        builder = builder.add_extension(purposes, critical=True)
    return builder.sign(issuer_key, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
