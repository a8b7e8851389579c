# SPDX-License-Identifier: Apache-2.0
"""Whose signatures count: a key that the operator knows, or one that the vendor has certified."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from qcicada.crypto import PUB_KEY_LEN, parse_hw_version, parse_serial_int, verify_certificate
from qcicada.types import DeviceInfo

from qr_sampler.errors import ConfigError

__all__ = ["is_certified", "read_key"]

_LARGEST_FILE: Final = 1 << 16
_HEX: Final = re.compile(rb"[0-9a-fA-F]{128}")


def read_key(path: Path, setting: str) -> bytes:
    """Returns the public key in a file: 64 bytes, x and y of a point of P-256.

    Args:
        path: A file in PEM form, as ``qr-sampler audit --keys`` reads it, or with 128 hexadecimal
            digits, as the vendor's tools print it.
        setting: The setting that names the file, for messages.

    Raises:
        ConfigError: When it holds no such key.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_FILE).strip()
    except OSError as error:
        raise ConfigError(f"{setting}={path}: {error.strerror}") from error
    if _HEX.fullmatch(text):
        return bytes.fromhex(text.decode())
    try:
        key = load_pem_public_key(text)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{setting}={path}: it holds no public key in PEM form") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigError(f"{setting}={path}: name a public key of the curve P-256")
    point = key.public_numbers()
    half = PUB_KEY_LEN // 2
    return point.x.to_bytes(half, "big") + point.y.to_bytes(half, "big")


def is_certified(key: bytes, certificate: bytes, info: DeviceInfo, authority: bytes) -> bool:
    """Returns whether the authority has certified that *key* is the key of that device.

    Args:
        key: Public key that the device has stated.
        certificate: What the device has stated as its certificate.
        info: What the device says it is.
        authority: Public key of the authority.
    """
    version, number = parse_hw_version(info.hw_info), parse_serial_int(info.serial)
    if version is None or number is None or not 0 <= number < 1 << 32:
        return False
    if not all(0 <= part < 1 << 8 for part in version):
        return False
    return verify_certificate(authority, key, certificate, *version, number)
