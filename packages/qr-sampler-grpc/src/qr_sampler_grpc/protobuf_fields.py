# SPDX-License-Identifier: Apache-2.0
"""The wire format of protobuf messages, field by field and without a copy of the payload.

Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, NoReturn

__all__ = [
    "FIXED64",
    "LENGTH",
    "VARINT",
    "Field",
    "MalformedMessageError",
    "fields_of",
    "length_prefix",
    "tagged",
]

VARINT: Final = 0
"""Wire type of integers and booleans."""
FIXED64: Final = 1
"""Wire type of doubles."""
LENGTH: Final = 2
"""Wire type of byte strings and text."""
_GROUP_START: Final = 3
_GROUP_END: Final = 4
_FIXED32: Final = 5

_MASK64: Final = 2**64 - 1
_MAX_VARINT_BYTES: Final = 10
_MAX_SHORT_VARINT_BYTES: Final = 5
"""Of tags and lengths, which have 32 bits; protobuf's own parsers refuse longer spellings."""
_MAX_TAG: Final = 2**32 - 1
_MAX_DEPTH: Final = 100
"""Groups within groups; protobuf's own parsers stop there, too."""


class MalformedMessageError(ValueError):
    """Bytes that are no protobuf message."""


class Field(NamedTuple):
    """One field of a message, as it stands on the wire."""

    number: int
    """Field number, at least 1."""
    wire_type: int
    """:data:`VARINT`, :data:`FIXED64`, :data:`LENGTH` or another one that nothing here reads."""
    value: int | memoryview
    """Unsigned 64-bit integer of a varint, else the bytes of the field."""


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
        return _varint(number << 3 | VARINT) + _varint(value & _MASK64)
    return length_prefix(number, len(value)) + value


def length_prefix(number: int, length: int) -> bytes:
    """Returns what stands in front of the *length* bytes of field *number*.

    Examples:
        >>> length_prefix(2, 300).hex()
        '12ac02'
    """
    return _varint(number << 3 | LENGTH) + _varint(length)


def fields_of(message: bytes | memoryview) -> Iterator[Field]:
    """Yields the fields of *message* in the order of the wire; groups are skipped.

    Raises:
        MalformedMessageError: When it is no message. Fields before the damage have been yielded.
    """
    view = memoryview(message)
    position = 0
    while position < len(view):
        number, wire_type, position = _read_tag(view, position)
        if not number:
            _malformed("0 is the number of no field")
        if wire_type == VARINT:
            integer, position = _read_varint(view, position)
            yield Field(number, wire_type, integer)
        elif wire_type == _GROUP_START:
            position = _end_of_group(view, position, number)
        else:
            start, position = _payload(view, position, wire_type)
            yield Field(number, wire_type, view[start:position])


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(
    view: memoryview, position: int, max_bytes: int = _MAX_VARINT_BYTES
) -> tuple[int, int]:
    """Returns the integer that begins at *position*, and where it ends."""
    value = 0
    for index, byte in enumerate(view[position : position + max_bytes]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value & _MASK64, position + index + 1
    raise MalformedMessageError("an integer is cut short or too long")


def _read_tag(view: memoryview, position: int) -> tuple[int, int, int]:
    """Returns the number and the wire type of a field, and where its value begins."""
    tag, position = _read_varint(view, position, _MAX_SHORT_VARINT_BYTES)
    if tag > _MAX_TAG:
        _malformed(f"{tag} is no tag of a field")
    return tag >> 3, tag & 7, position


def _payload(view: memoryview, position: int, wire_type: int) -> tuple[int, int]:
    """Returns where the payload of a field begins and ends."""
    if wire_type == LENGTH:
        length, position = _read_varint(view, position, _MAX_SHORT_VARINT_BYTES)
    elif wire_type in (FIXED64, _FIXED32):
        length = 8 if wire_type == FIXED64 else 4
    else:
        _malformed(f"wire type {wire_type} is not expected here")
    if position + length > len(view):
        _malformed("a field is cut short")
    return position, position + length


def _end_of_group(view: memoryview, position: int, number: int) -> int:
    """Returns where the group of field *number*, begun before *position*, ends.

    Nothing in it is read, so a field of number 0 is skipped as protobuf's own parser does there.
    """
    open_groups = [number]
    while open_groups:
        number, wire_type, position = _read_tag(view, position)
        if wire_type == VARINT:
            _, position = _read_varint(view, position)
        elif wire_type == _GROUP_START:
            open_groups.append(number)
        elif wire_type == _GROUP_END:
            if open_groups.pop() != number:
                _malformed("a group ends that was not begun")
        else:
            _, position = _payload(view, position, wire_type)
        if len(open_groups) > _MAX_DEPTH:
            _malformed("groups are nested too deeply")
    return position


def _malformed(problem: str) -> NoReturn:
    raise MalformedMessageError(problem)
