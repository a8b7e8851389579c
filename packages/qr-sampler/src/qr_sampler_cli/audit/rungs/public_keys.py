# SPDX-License-Identifier: Apache-2.0
"""The keys by which signatures are verified: those of servers, and those of devices."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from qr_sampler.errors import ConfigError
from qr_sampler_cli.failures import import_package

__all__ = ["PublicKeys"]

_PEM: Final = re.compile(rb"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----", re.DOTALL)
_REMEDY: Final = "install it with: pip install cryptography"
_P256_SIGNATURE_BYTES: Final = 64


class PublicKeys:
    """Public keys, any of which may have signed.

    Servers of the project sign by Ed25519 what :func:`signed_message` says. The devices of Crypta
    Labs sign by ECDSA of the curve P-256, and with SHA-256, the bytes alone.

    Args:
        path: One or more of them in PEM form.

    Raises:
        ConfigError: When it holds none, or anything else.
        MissingPackageError: When the package ``cryptography`` is missing.
    """

    def __init__(self, path: Path) -> None:
        serialization = _part("hazmat.primitives.serialization")
        ed25519 = _part("hazmat.primitives.asymmetric.ed25519")
        ec = _part("hazmat.primitives.asymmetric.ec")
        exceptions = _part("exceptions")
        self._utils = _part("hazmat.primitives.asymmetric.utils")
        prehashed = self._utils.Prehashed(_part("hazmat.primitives.hashes").SHA256())
        self._algorithm = ec.ECDSA(prehashed)
        self._invalid: type[Exception] = exceptions.InvalidSignature
        try:
            blocks = _PEM.findall(path.read_bytes())
            keys = [serialization.load_pem_public_key(block) for block in blocks]
        except OSError as error:
            raise ConfigError(f"--keys={path}: {error.strerror}") from error
        except (ValueError, TypeError, exceptions.UnsupportedAlgorithm) as error:
            raise ConfigError(f"--keys={path}: it holds no public key in PEM form") from error
        self.by_servers = [key for key in keys if isinstance(key, ed25519.Ed25519PublicKey)]
        """The keys of servers."""
        curves = [key for key in keys if isinstance(key, ec.EllipticCurvePublicKey)]
        self.by_devices = [key for key in curves if isinstance(key.curve, ec.SECP256R1)]
        """The keys of devices."""
        if not keys or len(keys) != len(self.by_servers) + len(self.by_devices):
            raise ConfigError(
                f"--keys={path}: name a file of public keys, Ed25519 or P-256, in PEM form"
            )

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Returns whether a server has signed *message*."""
        for key in self.by_servers:
            try:
                key.verify(signature, message)
            except self._invalid:
                continue
            return True
        return False

    def verify_digest(self, signature: bytes, digest: bytes) -> bool:
        """Returns whether a device has signed the bytes that have the SHA-256 *digest*."""
        if len(signature) != _P256_SIGNATURE_BYTES:
            return False
        half = _P256_SIGNATURE_BYTES // 2
        numbers = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
        encoded: bytes = self._utils.encode_dss_signature(*numbers)
        for key in self.by_devices:
            try:
                key.verify(encoded, digest, self._algorithm)
            except self._invalid:
                continue
            return True
        return False


def _part(name: str) -> Any:
    return import_package(f"cryptography.{name}", needed_for="--keys", remedy=_REMEDY)
