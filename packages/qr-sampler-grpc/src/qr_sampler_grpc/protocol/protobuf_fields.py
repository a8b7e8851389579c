# SPDX-License-Identifier: Apache-2.0
"""Fields of protobuf messages, written without a copy of the payload.

Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from typing import Final

__all__ = ["length_prefix", "tagged"]

_VARINT: Final = 0
_LENGTH: Final = 2
_MASK64: Final = 2**64 - 1


def tagged(number: int, value: int | bytes) -> bytes:
    """Returns a field of a message: an integer as a varint, bytes with their length in front.

    Args:
        number: Field number, at least 1.
        value: Integer from -2**63 to 2**64 - 1, or bytes.

    Examples:
        >>> tagged(1, 300).hex(), tagged(2, b"ab").hex()
        ('08ac02', '12026162')
    """
    if isinstance(value, int):
        return _varint(number << 3 | _VARINT) + _varint(value & _MASK64)
    return length_prefix(number, len(value)) + value


def length_prefix(number: int, length: int) -> bytes:
    """Returns what stands in front of the *length* bytes of field *number*.

    Examples:
        >>> length_prefix(2, 300).hex()
        '12ac02'
    """
    return _varint(number << 3 | _LENGTH) + _varint(length)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
