# SPDX-License-Identifier: Apache-2.0
"""Rounds of the beacon drand quicknet: public numbers that nobody knows before their time.

What contains the signature of a round was made after the time of that round.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from qr_sampler.errors import QRSamplerError
from qr_sampler_cli.failures import import_package
from qr_sampler_cli.remedies import from_clone

__all__ = [
    "CHAIN",
    "GENESIS_S",
    "GROUP_HASH",
    "PERIOD_S",
    "PUBLIC_KEY",
    "InvalidRoundError",
    "Round",
    "round_after",
    "verify_round",
]

CHAIN: Final = "52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971"
"""Hash of the chain: SHA-256 over period, genesis, public key, group hash and the name of the
beacon, see ``chain.Info.Hash`` in https://github.com/drand/drand; this and the next four are what
https://api.drand.sh/52db9ba7…/info answers."""
PUBLIC_KEY: Final = (
    "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c"
    "8c4b450b6a0a6c3ac6a5776a2d1064510d1fec758c921cc22b0e17e63aaf4bcb"
    "5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a"
)
"""Public key of the League of Entropy for it, a point of G2."""
GROUP_HASH: Final = "f477d5c89f21a17c863a7f937c6a6d15859414d2be09cd448d4279af331c5d3e"
"""Hash of the group that made the key."""
GENESIS_S: Final = 1_692_803_367
"""Time of round 1, in seconds since the epoch."""
PERIOD_S: Final = 3
"""Seconds from one round to the next."""

_DOMAIN: Final = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
"""Domain of hash-to-curve in the scheme ``bls-unchained-g1-rfc9380``."""
_NS_PER_S: Final = 1_000_000_000
_LAST_ROUND: Final = 2**40
_SIGNATURE: Final = re.compile(r"[0-9a-f]{96}")


class InvalidRoundError(QRSamplerError, ValueError):
    """What calls itself a round of the beacon is none."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round of the beacon, not verified yet."""

    round: int
    """Its number, from 1."""
    signature: str
    """The signature of the number by the beacon's key: a point of G1, 96 hexadecimal digits."""

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Round:
        """Returns the round that the fields ``round`` and ``signature`` of *told* say.

        Raises:
            InvalidRoundError: When they say none.
        """
        number, signature = told.get("round"), told.get("signature")
        if type(number) is not int or not 1 <= number <= _LAST_ROUND:
            raise InvalidRoundError(f"round {str(number)[:40]!r} is no number of a round")
        if not isinstance(signature, str) or not _SIGNATURE.fullmatch(signature):
            raise InvalidRoundError(
                f"the signature of round {number} has not 96 hexadecimal digits"
            )
        return cls(number, signature)

    @property
    def randomness(self) -> str:
        """The random number of the round: hexadecimal SHA-256 of the signature."""
        return hashlib.sha256(bytes.fromhex(self.signature)).hexdigest()

    @property
    def time_ns(self) -> int:
        """When it was due, in nanoseconds since the epoch; nobody knew the signature before."""
        return (GENESIS_S + (self.round - 1) * PERIOD_S) * _NS_PER_S

    def as_dict(self) -> dict[str, Any]:
        """Returns its fields, those that drand itself answers and the chain."""
        return {
            "round": self.round,
            "randomness": self.randomness,
            "signature": self.signature,
            "chain": CHAIN,
        }


def round_after(time_ns: int) -> int:
    """Returns the number of the first round that is due after *time_ns*, since the epoch.

    Examples:
        >>> round_after(1_692_803_367 * 10**9)
        2
    """
    return max(0, (time_ns // _NS_PER_S - GENESIS_S) // PERIOD_S) + (
        2 if time_ns >= GENESIS_S * _NS_PER_S else 1
    )


def verify_round(told: Round) -> None:
    """Returns if the beacon has signed the round.

    The signature s of round r is valid if e(s, g2) = e(H(SHA-256(r)), key): the message is the
    SHA-256 of the number as eight bytes, hashed to the curve as in RFC 9380
    (https://docs.drand.love/docs/cryptography). Takes about 0.2 s.

    Raises:
        InvalidRoundError: When it has not.
        MissingPackageError: When the package ``py-ecc`` is missing.
    """
    if not _is_signed(told.round, told.signature):
        raise InvalidRoundError(f"round {told.round} does not have this signature")


@lru_cache(maxsize=4096)
def _is_signed(number: int, signature: str) -> bool:
    compression, hashing, curve = _curve()
    try:
        point = compression.decompress_G1(int(signature, 16))
    except ValueError:
        return False
    # Of the right order, and not the neutral element, which would fit every message.
    if curve.is_inf(point) or not curve.is_inf(curve.multiply(point, curve.curve_order)):
        return False
    message = hashlib.sha256(number.to_bytes(8, "big")).digest()
    hashed = hashing.hash_to_G1(message, _DOMAIN, hashlib.sha256)
    key = compression.decompress_G2((int(PUBLIC_KEY[:96], 16), int(PUBLIC_KEY[96:], 16)))
    product = curve.pairing(curve.G2, point, final_exponentiate=False) * curve.pairing(
        curve.neg(key), hashed, final_exponentiate=False
    )
    return bool(curve.final_exponentiate(product) == curve.FQ12.one())


def _curve() -> list[Any]:
    """Returns the modules that calculate with points."""
    limit = sys.getrecursionlimit()
    try:
        return [
            import_package(
                f"py_ecc.{name}",
                needed_for="a round of drand",
                remedy="install it " + from_clone("qr-sampler[anchors]"),
            )
            for name in ("bls.point_compression", "bls.hash_to_curve", "optimized_bls12_381")
        ]
    finally:
        # The package raises it so far that deeply nested input would overflow the stack.
        sys.setrecursionlimit(limit)
