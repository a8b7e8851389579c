# SPDX-License-Identifier: Apache-2.0
"""The keys of a simulated device and of the authority that has certified it."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from qcicada.crypto import build_certificate_data

__all__ = ["Identity"]


def _fresh() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Identity:
    """Who a simulated device is. Keys are made anew for each, and vanish with it."""

    number: int = 217
    """Its serial number."""
    hardware: tuple[int, int] = (1, 1)
    """Version of its hardware."""
    key: ec.EllipticCurvePrivateKey = field(default_factory=_fresh, repr=False)
    """What it signs with."""
    authority: ec.EllipticCurvePrivateKey = field(default_factory=_fresh, repr=False)
    """What its certificate is signed with."""

    @property
    def serial(self) -> str:
        """Its serial number as it states it."""
        return f"QC{self.number:010d}"

    @property
    def hardware_text(self) -> str:
        """Version of its hardware as it states it."""
        return "CICADA-QRNG-{}.{}".format(*self.hardware)

    @property
    def public_key(self) -> bytes:
        """Its public key: 64 bytes."""
        return point_of(self.key)

    @property
    def certificate(self) -> bytes:
        """The authority's signature of who it is: 64 bytes."""
        return signature_by(
            self.authority, build_certificate_data(*self.hardware, self.number, self.public_key)
        )

    def sign(self, data: bytes) -> bytes:
        """Returns its signature of *data*: 64 bytes."""
        return signature_by(self.key, data)


def point_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Returns the public key that belongs to *key*: x and y, 32 bytes each."""
    public = key.public_key()
    return public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


def signature_by(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """Returns the ECDSA signature of the SHA-256 of *data*: r and s, 32 bytes each."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")
