# SPDX-License-Identifier: Apache-2.0
"""Ed25519 key pairs in files, made for one test (extra ``signing``)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

__all__ = ["KeyPair", "make_key_pair"]


class KeyPair(NamedTuple):
    """The files of a key pair, in PEM form, and the public key as an object."""

    private: Path
    public: Path
    public_key: Ed25519PublicKey


def make_key_pair(folder: Path, name: str = "device") -> KeyPair:
    """Writes a new key pair, ``NAME.key`` and ``NAME.pub``, into *folder*."""
    key = Ed25519PrivateKey.generate()
    pair = KeyPair(folder / f"{name}.key", folder / f"{name}.pub", key.public_key())
    pair.private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    pair.public.write_bytes(
        pair.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return pair
