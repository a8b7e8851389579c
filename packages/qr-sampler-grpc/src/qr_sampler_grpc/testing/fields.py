# SPDX-License-Identifier: Apache-2.0
"""Single fields of protobuf messages, for messages that no message class would write.

Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from typing import Final

__all__ = ["tag", "tagged", "varint"]

_VARINT: Final = 0
_LENGTH: Final = 2


def tagged(number: int, value: int | bytes) -> bytes:
    """Returns a field: an integer as a varint, bytes with their length in front.

    Args:
        number: Field number.
        value: Integer from -2**63 to 2**64 - 1, or bytes.

    Examples:
        >>> tagged(1, 300).hex(), tagged(2, b"ab").hex()
        ('08ac02', '12026162')
    """
    if isinstance(value, int):
        return tag(number, _VARINT) + varint(value)
    return tag(number, _LENGTH) + varint(len(value)) + value


def tag(number: int, wire_type: int) -> bytes:
    """Returns what a field of *wire_type* begins with."""
    return varint(number << 3 | wire_type)


def varint(value: int) -> bytes:
    """Returns an integer, -2**63 to 2**64 - 1, seven bits a byte."""
    value &= 2**64 - 1
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
