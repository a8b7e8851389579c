# SPDX-License-Identifier: Apache-2.0
"""Signatures of answers: what is signed, and the Ed25519 keys that sign and verify it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qr_sampler.errors import ConfigError
from qr_sampler_grpc.connection.private_file import warn_of_others

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "PREAMBLE",
    "RECORD_PREAMBLE",
    "SigningKey",
    "VerificationKey",
    "signed_message",
    "signed_record",
]

PREAMBLE: Final = b"qr-entropy-v1: "
"""What every signed message begins with, so that a signature means nothing anywhere else."""

RECORD_PREAMBLE: Final = b"qr-entropy-v2: "
"""The same of messages that hold the digest of the data in place of the data."""

_REMEDIES: Final = {
    "private": "write one with `openssl genpkey -algorithm ed25519`",
    "public": "write it with `openssl pkey -pubout -in` and the private key",
}


def signed_message(
    *,
    sequence_id: int,
    generation_timestamp_ns: int,
    device_id: str,
    commitment: bytes,
    data: bytes | memoryview,
) -> bytes:
    """Returns the bytes that a signature covers, as ``proto/entropy_service.proto`` defines them.

    Examples:
        >>> signed_message(
        ...     sequence_id=1, generation_timestamp_ns=2, device_id="d", commitment=b"c", data=b"x"
        ... ).hex(" ", -8)
        '71722d656e74726f 70792d76313a2000 0000000000000100 0000000000000200 0000016400000001 6378'
    """
    return _message(PREAMBLE, sequence_id, generation_timestamp_ns, device_id, commitment, data)


def signed_record(
    *,
    sequence_id: int,
    generation_timestamp_ns: int,
    device_id: str,
    commitment: bytes,
    data_sha256: bytes,
) -> bytes:
    """Returns the bytes that a signature for records covers, as ``docs/ledger.md`` defines them.

    Args:
        sequence_id: Number of the request, a signed 64-bit integer.
        generation_timestamp_ns: Time of the answer, likewise.
        device_id: Identity of the device.
        commitment: The commitment of the request; may be empty.
        data_sha256: The 32 bytes of the SHA-256 of the data.
    """
    return _message(
        RECORD_PREAMBLE, sequence_id, generation_timestamp_ns, device_id, commitment, data_sha256
    )


def _message(
    preamble: bytes,
    sequence_id: int,
    timestamp_ns: int,
    device_id: str,
    commitment: bytes,
    last: bytes | memoryview,
) -> bytes:
    device = device_id.encode()
    return b"".join(
        (
            preamble,
            struct.pack(">qqI", sequence_id, timestamp_ns, len(device)),
            device,
            struct.pack(">I", len(commitment)),
            commitment,
            last,
        )
    )


class SigningKey:
    """A private key that signs answers.

    Args:
        path: File with an unencrypted Ed25519 private key in PEM form (PKCS #8).

    Raises:
        ConfigError: When the file holds no such key, or the extra ``signing`` is missing.
    """

    def __init__(self, path: Path) -> None:
        keys, serialization = _cryptography()
        warn_of_others(path, "private key")
        self._key = _loaded(
            path,
            lambda pem: serialization.load_pem_private_key(pem, password=None),
            keys.Ed25519PrivateKey,
            "private",
        )

    def sign(self, message: bytes) -> bytes:
        """Returns the 64 bytes of the signature of *message*."""
        signature: bytes = self._key.sign(message)
        return signature

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class VerificationKey:
    """A public key that answers are verified with.

    Args:
        path: File with an Ed25519 public key in PEM form (SubjectPublicKeyInfo).

    Raises:
        ConfigError: When the file holds no such key, or the extra ``signing`` is missing.
    """

    def __init__(self, path: Path) -> None:
        keys, serialization = _cryptography()
        self._key = _loaded(
            path, serialization.load_pem_public_key, keys.Ed25519PublicKey, "public"
        )

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Returns whether *signature* is the key's signature of *message*."""
        from cryptography.exceptions import InvalidSignature

        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise ConfigError(
            "signatures need the package cryptography: pip install cryptography"
        ) from error
    return ed25519, serialization


def _loaded(path: Path, load: Callable[[bytes], Any], kind: type, which: str) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm

    remedy = _REMEDIES[which]
    try:
        key = load(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read the {which} key {path}: {error.strerror}") from error
    except UnsupportedAlgorithm:
        key = None
    except (ValueError, TypeError):
        # Their text may quote the file.
        raise ConfigError(
            f"{path} holds no unencrypted {which} key in PEM form; {remedy}"
        ) from None
    if not isinstance(key, kind):
        raise ConfigError(f"{path} holds another kind of {which} key than Ed25519; {remedy}")
    return key
