# SPDX-License-Identifier: Apache-2.0
"""Frames of the direct protocol: bytes to values and back, as ``PROTOCOL.md`` defines them.

Nothing here touches a socket, and no length is trusted before it has been checked against the
request.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from qr_sampler.errors import QRSamplerError
from qr_sampler_grpc.direct.status import Status

__all__ = [
    "AFTER_TIME_OFFSET",
    "ANSWER_HEADER_BYTES",
    "MAGIC",
    "MAX_COMMITMENT_BYTES",
    "MAX_DEVICE_ID_BYTES",
    "MAX_REQUEST_BYTES",
    "MAX_WORDS_BYTES",
    "RECORD_VERSION",
    "REQUEST_HEADER_BYTES",
    "TIME",
    "TIME_OFFSET",
    "VERSION",
    "AnswerHeader",
    "AnswerText",
    "MalformedFrameError",
    "RequestHeader",
    "data_in",
    "decode_answer_header",
    "decode_answer_text",
    "decode_request_header",
    "encode_answer",
    "encode_request",
    "usual_answer",
]

MAGIC: Final = b"QRED"
VERSION: Final = 1
"""The version that every side reads, in which whole connections are refused."""
RECORD_VERSION: Final = 2
"""The version whose signature records alone can verify."""
MAX_COMMITMENT_BYTES: Final = 64
MAX_DEVICE_ID_BYTES: Final = 255
MAX_WORDS_BYTES: Final = 1024
_MAX_SIGNATURE_BYTES: Final = 64

_REQUEST_KIND: Final = 1
_ANSWER_KIND: Final = 2
_VERSIONS: Final = (VERSION, RECORD_VERSION)
_REQUEST_STARTS: Final = {one: MAGIC + bytes((one, _REQUEST_KIND)) for one in _VERSIONS}
_ANSWER_STARTS: Final = {one: MAGIC + bytes((one, _ANSWER_KIND)) for one in _VERSIONS}
_REQUEST: Final = Struct(">6sHqII")
_ANSWER: Final = Struct(">6sBBqqIBBH")
# The same in three parts.
_BEFORE_TIME: Final = Struct(">6sBBq")
_AFTER_TIME: Final = Struct(">IBBH")

REQUEST_HEADER_BYTES: Final = _REQUEST.size
ANSWER_HEADER_BYTES: Final = _ANSWER.size
TIME: Final = Struct(">q")
TIME_OFFSET: Final = _BEFORE_TIME.size
AFTER_TIME_OFFSET: Final = TIME_OFFSET + TIME.size
MAX_REQUEST_BYTES: Final = REQUEST_HEADER_BYTES + MAX_COMMITMENT_BYTES


_OK: Final = int(Status.OK)


class MalformedFrameError(QRSamplerError, ValueError):
    """Bytes that are not the expected frame.

    Attributes:
        reason: What is wrong, without quoting more than numbers.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class RequestHeader(NamedTuple):
    """The header of a request; the commitment follows it."""

    commitment_length: int
    sequence_id: int
    bytes_needed: int
    timeout_us: int
    """How long the client waits, in microseconds; 0 when it is not given."""
    version: int


class AnswerHeader(NamedTuple):
    """The header of an answer; its text and then its data follow it."""

    start: bytes
    status: int
    device_id_length: int
    sequence_id: int
    generation_timestamp_ns: int
    data_length: int
    commitment_length: int
    signature_length: int
    words_length: int

    @property
    def version(self) -> int:
        """The version of the frame."""
        return self.start[4]

    @property
    def text_length(self) -> int:
        """Number of bytes between the header and the data."""
        return (
            self.device_id_length
            + self.commitment_length
            + self.signature_length
            + self.words_length
        )


class AnswerText(NamedTuple):
    """What lies between the header of an answer and its data."""

    device_id: str
    commitment: bytes
    signature: bytes
    words: str


def encode_request(
    sequence_id: int,
    bytes_needed: int,
    timeout_us: int = 0,
    commitment: bytes = b"",
    version: int = VERSION,
) -> bytes:
    """Returns the frame of a request.

    Raises:
        struct.error: When a number is out of its field's range.
    """
    start = _REQUEST_STARTS[version]
    header = _REQUEST.pack(start, len(commitment), sequence_id, bytes_needed, timeout_us)
    return header + commitment if commitment else header


def decode_request_header(frame: bytes | bytearray | memoryview) -> RequestHeader:
    """Returns the header at the start of *frame*, which holds at least its 24 bytes.

    Raises:
        MalformedFrameError: When it is not the header of a request.
    """
    start, commitment_length, sequence_id, bytes_needed, timeout_us = _REQUEST.unpack_from(frame)
    version = start[4]
    if start != _REQUEST_STARTS.get(version):
        raise MalformedFrameError(_foreign(start, _REQUEST_KIND, *_VERSIONS))
    if commitment_length > MAX_COMMITMENT_BYTES:
        raise MalformedFrameError(
            f"a commitment of {commitment_length} bytes; {MAX_COMMITMENT_BYTES} are the most"
        )
    if sequence_id < 1:
        raise MalformedFrameError(f"the number {sequence_id}; the first one is 1")
    return RequestHeader(commitment_length, sequence_id, bytes_needed, timeout_us, version)


def encode_answer(
    sequence_id: int,
    status: Status = Status.OK,
    *,
    generation_timestamp_ns: int = 0,
    device_id: bytes = b"",
    commitment: bytes = b"",
    signature: bytes = b"",
    words: str = "",
    data_length: int = 0,
    version: int = VERSION,
) -> bytes:
    """Returns an answer up to its data, which follows unchanged.

    Words that are too long are cut.

    Raises:
        struct.error: When a number is out of its field's range.
    """
    encoded = words.encode()[:MAX_WORDS_BYTES] if words else b""
    header = _ANSWER.pack(
        _ANSWER_STARTS[version],
        status,
        len(device_id),
        sequence_id,
        generation_timestamp_ns,
        data_length,
        len(commitment),
        len(signature),
        len(encoded),
    )
    return b"".join((header, device_id, commitment, signature, encoded))


def decode_answer_header(
    frame: bytes | bytearray | memoryview,
    sequence_id: int,
    bytes_needed: int,
    version: int = VERSION,
) -> AnswerHeader:
    """Returns the header at the start of *frame*, which holds at least its 32 bytes.

    Args:
        frame: What arrived.
        sequence_id: Number of the request that is waited for.
        bytes_needed: How many bytes it asked for.
        version: Its version.

    Raises:
        MalformedFrameError: When it is not the header of the answer to that request.
    """
    header = AnswerHeader._make(_ANSWER.unpack_from(frame))
    if header.start != _ANSWER_STARTS[version] and not _refuses_connection(header):
        raise MalformedFrameError(_foreign(header.start, _ANSWER_KIND, version))
    if header.status != _OK:
        return _checked_refusal(header, sequence_id)
    if header.sequence_id != sequence_id:
        raise MalformedFrameError(_misnumbered(header, sequence_id))
    if header.data_length != bytes_needed:
        raise MalformedFrameError(
            f"asked for {bytes_needed} bytes, received {header.data_length}",
        )
    if header.words_length:
        raise MalformedFrameError("words in an answer with bytes")
    return _checked_lengths(header)


def decode_answer_text(header: AnswerHeader, frame: bytes | bytearray) -> AnswerText:
    """Returns the text that follows *header* in *frame*, which holds all of it.

    Raises:
        MalformedFrameError: When the device id is not UTF-8.
    """
    first = ANSWER_HEADER_BYTES
    second = first + header.device_id_length
    third = second + header.commitment_length
    fourth = third + header.signature_length
    try:
        device_id = frame[first:second].decode()
    except UnicodeDecodeError as error:
        raise MalformedFrameError("a device id that is not UTF-8") from error
    words = frame[fourth : fourth + header.words_length]
    return AnswerText(
        device_id,
        bytes(frame[second:third]),
        bytes(frame[third:fourth]),
        # Words may have been cut within a character.
        words.decode(errors="replace") if words else "",
    )


def data_in(stream: bytes, missing: int = 0) -> int:
    """Returns how many bytes of the data of answers are in *stream*, whatever they answer.

    Args:
        stream: What has arrived on a connection; may be cut off anywhere.
        missing: How much of an earlier answer's data it begins with.
    """
    count, offset = min(missing, len(stream)), missing
    while offset + ANSWER_HEADER_BYTES <= len(stream):
        header = AnswerHeader._make(_ANSWER.unpack_from(stream, offset))
        if header.start not in _ANSWER_STARTS.values():
            break
        offset += ANSWER_HEADER_BYTES + header.text_length
        count += max(0, min(header.data_length, len(stream) - offset))
        offset += header.data_length
    return count


def usual_answer(
    sequence_id: int, bytes_needed: int, device_id: bytes, commitment: bytes
) -> tuple[bytes, bytes]:
    """Returns what comes before the data of an unsigned answer with bytes, but for its time.

    Answers of one device are alike but for their numbers and times, so comparing is quicker than
    taking apart.

    Args:
        sequence_id: Number of the request.
        bytes_needed: How many bytes it asked for.
        device_id: Identity of the device.
        commitment: The commitment of the request.

    Returns:
        What is before the time, which is as long as :data:`TIME_OFFSET`, and what is after it.
    """
    before = _BEFORE_TIME.pack(_ANSWER_STARTS[VERSION], _OK, len(device_id), sequence_id)
    after = _AFTER_TIME.pack(bytes_needed, len(commitment), 0, 0)
    return before, b"".join((after, device_id, commitment))


def _refuses_connection(header: AnswerHeader) -> bool:
    known = header.start == _ANSWER_STARTS[VERSION]
    return known and header.status != _OK and header.sequence_id == 0


def _checked_refusal(header: AnswerHeader, sequence_id: int) -> AnswerHeader:
    # What is wrong with the connection itself is reported without a number.
    if header.sequence_id not in (sequence_id, 0):
        raise MalformedFrameError(_misnumbered(header, sequence_id))
    if header.data_length:
        raise MalformedFrameError(f"bytes in an answer with status {header.status}")
    if header.words_length > MAX_WORDS_BYTES:
        raise MalformedFrameError(f"{header.words_length} bytes of words")
    return _checked_lengths(header)


def _checked_lengths(header: AnswerHeader) -> AnswerHeader:
    if header.commitment_length > MAX_COMMITMENT_BYTES:
        raise MalformedFrameError(f"a commitment of {header.commitment_length} bytes")
    if header.signature_length not in (0, _MAX_SIGNATURE_BYTES):
        raise MalformedFrameError(f"a signature of {header.signature_length} bytes")
    return header


def _misnumbered(header: AnswerHeader, sequence_id: int) -> str:
    return f"an answer with the number {header.sequence_id} instead of {sequence_id}"


def _foreign(start: bytes, kind: int, *versions: int) -> str:
    """Returns what is wrong with the first six bytes of a frame."""
    if start[:4] != MAGIC:
        return "bytes that are no frame of the direct protocol"
    if start[4] not in versions:
        due = " or ".join(map(str, versions))
        return f"a frame of version {start[4]} of the direct protocol where {due} is due"
    return f"a frame of kind {start[5]} instead of {kind}"
