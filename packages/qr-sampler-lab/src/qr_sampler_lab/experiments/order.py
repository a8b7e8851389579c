# SPDX-License-Identifier: Apache-2.0
"""The order of a study from 32 bytes that nobody chose, so that any language finds the same one.

All of it is SHA-256 and HMAC-SHA256 over bytes, whole numbers of 64 bits, and the shuffle of Fisher
and Yates (Durstenfeld, Communications of the ACM 7, 1964, algorithm 235).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final, TypeVar

__all__ = ["RANDOMNESS_BYTES", "WordStream", "order_key", "shuffled"]

T = TypeVar("T")

RANDOMNESS_BYTES: Final = 32
"""Length of the randomness of a drand round, and of a secret."""

_WORD_BYTES: Final = 8
_WORDS: Final = 2**64


def order_key(seal: str, randomness: bytes) -> bytes:
    r"""Returns the key that the order of a study is made with.

    It is the SHA-256 of ``qr-sampler order 1\n``, the 32 bytes of the seal's digest, and the
    randomness, so that equal randomness does not order two studies alike.

    Args:
        seal: Digest of the seal, 64 hexadecimal digits.
        randomness: 32 bytes: the randomness of the drand round, or the secret.

    Raises:
        ValueError: When either has another length.
    """
    digest = bytes.fromhex(seal)
    if len(digest) != hashlib.sha256().digest_size or len(randomness) != RANDOMNESS_BYTES:
        raise ValueError(
            f"a seal has 32 bytes and randomness {RANDOMNESS_BYTES}; got {len(digest)} and "
            f"{len(randomness)}"
        )
    return hashlib.sha256(b"qr-sampler order 1\n" + digest + randomness).digest()


class WordStream:
    r"""Whole numbers, uniform on 64 bits, from a key and a label.

    The digests HMAC-SHA256(key, ``{label}\n`` followed by i as 8 bytes, big-endian), i = 0, 1, …,
    one after another; every 8 bytes of them are a number, big-endian.

    Args:
        key: The key.
        label: What it is used for.
    """

    def __init__(self, key: bytes, label: str) -> None:
        self._key = key
        self._label = label.encode() + b"\n"
        self._counter = 0
        self._digest = b""

    def word(self) -> int:
        """Returns the next number, from 0 to 2**64 - 1."""
        if not self._digest:
            message = self._label + self._counter.to_bytes(_WORD_BYTES, "big")
            self._digest = hmac.digest(self._key, message, "sha256")
            self._counter += 1
        word, self._digest = self._digest[:_WORD_BYTES], self._digest[_WORD_BYTES:]
        return int.from_bytes(word, "big")

    def below(self, limit: int) -> int:
        """Returns a number that is uniform on 0, 1, …, *limit* - 1.

        Numbers from the largest multiple of *limit* on are skipped, which makes it exact.
        """
        end = _WORDS - _WORDS % limit
        while True:
            word = self.word()
            if word < end:
                return word % limit


def shuffled(items: Sequence[T], key: bytes, label: str) -> list[T]:
    """Returns *items* in an order of which all are equally probable.

    For i from the last place down to 1, the item there changes places with that at a random place
    from 0 to i.
    """
    stream = WordStream(key, label)
    result = list(items)
    for place in range(len(result) - 1, 0, -1):
        other = stream.below(place + 1)
        result[place], result[other] = result[other], result[place]
    return result
