# SPDX-License-Identifier: Apache-2.0
"""Frames: the example of the protocol, round trips, and that no broken frame is believed."""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import qr_sampler_grpc.direct
from qr_sampler_grpc.direct.frame import (
    AFTER_TIME_OFFSET,
    ANSWER_HEADER_BYTES,
    MAX_REQUEST_BYTES,
    MAX_WORDS_BYTES,
    RECORD_VERSION,
    REQUEST_HEADER_BYTES,
    TIME_OFFSET,
    MalformedFrameError,
    data_in,
    decode_answer_header,
    decode_answer_text,
    decode_request_header,
    encode_answer,
    encode_request,
    usual_answer,
)
from qr_sampler_grpc.direct.status import Status

PROTOCOL = Path(qr_sampler_grpc.direct.__file__).with_name("PROTOCOL.md")

NUMBERS = st.integers(1, 2**63 - 1)
TIMES = st.integers(-(2**63), 2**63 - 1)
SIZES = st.integers(1, 2**32 - 1)
COMMITMENTS = st.binary(max_size=64)


def documented_frames() -> list[bytes]:
    blocks = re.findall(r"```\n(.*?)```", PROTOCOL.read_text("utf-8"), re.DOTALL)
    return [bytes.fromhex(block) for block in blocks]


def test_the_protocol_shows_the_frames_that_are_sent() -> None:
    request, answer = documented_frames()
    assert encode_request(7, 4, 5000, b"\xaa\xbb") == request
    head = encode_answer(
        7,
        generation_timestamp_ns=10**9,
        device_id=b"d",
        commitment=b"\xaa\xbb",
        data_length=4,
    )
    assert head + bytes((1, 2, 3, 4)) == answer


def test_the_protocol_lists_every_status() -> None:
    rows = re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", PROTOCOL.read_text("utf-8"), re.MULTILINE)
    assert {int(number): name for number, name in rows} == {one.value: one.name for one in Status}


def test_lengths_are_those_of_the_protocol() -> None:
    assert (REQUEST_HEADER_BYTES, ANSWER_HEADER_BYTES) == (24, 32)
    assert MAX_REQUEST_BYTES == 24 + 64


@given(number=NUMBERS, size=SIZES, timeout_us=st.integers(0, 2**32 - 1), commitment=COMMITMENTS)
def test_requests_return(number: int, size: int, timeout_us: int, commitment: bytes) -> None:
    frame = encode_request(number, size, timeout_us, commitment)
    assert decode_request_header(frame) == (len(commitment), number, size, timeout_us, 1)
    later = encode_request(number, size, timeout_us, commitment, RECORD_VERSION)
    assert later == frame[:4] + b"\x02" + frame[5:]
    assert decode_request_header(later) == (len(commitment), number, size, timeout_us, 2)
    assert frame[REQUEST_HEADER_BYTES:] == commitment


@given(
    number=NUMBERS,
    time_ns=TIMES,
    size=SIZES,
    device_id=st.text(max_size=60),
    commitment=COMMITMENTS,
    signature=st.sampled_from([b"", bytes(range(64))]),
)
def test_answers_return(
    number: int, time_ns: int, size: int, device_id: str, commitment: bytes, signature: bytes
) -> None:
    frame = encode_answer(
        number,
        generation_timestamp_ns=time_ns,
        device_id=device_id.encode(),
        commitment=commitment,
        signature=signature,
        data_length=size,
    )
    header = decode_answer_header(frame, number, size)
    assert (header.status, header.data_length) == (0, size)
    assert header.generation_timestamp_ns == time_ns
    assert ANSWER_HEADER_BYTES + header.text_length == len(frame)
    text = decode_answer_text(header, bytearray(frame))
    assert text == (device_id, commitment, signature, "")


@given(number=NUMBERS, time_ns=TIMES, size=SIZES, device_id=st.binary(max_size=9), c=COMMITMENTS)
def test_the_usual_answer_is_the_encoded_one(
    number: int, time_ns: int, size: int, device_id: bytes, c: bytes
) -> None:
    before, after = usual_answer(number, size, device_id, c)
    frame = encode_answer(
        number,
        generation_timestamp_ns=time_ns,
        device_id=device_id,
        commitment=c,
        data_length=size,
    )
    assert before + struct.pack(">q", time_ns) + after == frame
    assert (len(before), AFTER_TIME_OFFSET) == (TIME_OFFSET, TIME_OFFSET + 8)


@given(status=st.sampled_from([one for one in Status if one]), words=st.text(max_size=300))
def test_refusals_return(status: Status, words: str) -> None:
    frame = encode_answer(5, status, words=words)
    header = decode_answer_header(frame, 5, 99)
    assert header.status == status
    assert decode_answer_text(header, bytearray(frame)).words == words


def test_long_words_are_cut_even_within_a_character() -> None:
    frame = encode_answer(5, Status.DEFECT, words="x" + "é" * 600)
    header = decode_answer_header(frame, 5, 1)
    assert header.words_length == MAX_WORDS_BYTES
    words = decode_answer_text(header, bytearray(frame)).words
    assert words.startswith("xéé")
    assert words.endswith("�")


ANSWER = encode_answer(7, device_id=b"d", commitment=b"cc", data_length=4)
REFUSAL = encode_answer(7, Status.UNAVAILABLE, words="later")


def with_bytes(frame: bytes, offset: int, value: bytes) -> bytes:
    return frame[:offset] + value + frame[offset + len(value) :]


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (with_bytes(ANSWER, 0, b"HTTP"), "no frame of the direct protocol"),
        (with_bytes(ANSWER, 4, b"\x02"), "version 2"),
        (with_bytes(ANSWER, 5, b"\x01"), "kind 1 instead of 2"),
        (with_bytes(ANSWER, 15, b"\x08"), "the number 8 instead of 7"),
        (with_bytes(ANSWER, 8, b"\xff" * 8), "the number -1 instead of 7"),
        (with_bytes(ANSWER, 27, b"\x03"), "asked for 4 bytes, received 3"),
        (with_bytes(ANSWER, 27, b"\x00"), "asked for 4 bytes, received 0"),
        (with_bytes(ANSWER, 24, b"\xff" * 4), "asked for 4 bytes, received 4294967295"),
        (with_bytes(ANSWER, 28, b"\x41"), "a commitment of 65 bytes"),
        (with_bytes(ANSWER, 29, b"\x01"), "a signature of 1 bytes"),
        (with_bytes(ANSWER, 31, b"\x01"), "words in an answer with bytes"),
        (with_bytes(REFUSAL, 15, b"\x08"), "the number 8 instead of 7"),
        (with_bytes(REFUSAL, 27, b"\x04"), "bytes in an answer with status 3"),
        (with_bytes(REFUSAL, 30, b"\x04\x01"), "1025 bytes of words"),
        (with_bytes(REFUSAL, 28, b"\x41"), "a commitment of 65 bytes"),
    ],
)
def test_a_malformed_answer_is_named(frame: bytes, says: str) -> None:
    with pytest.raises(MalformedFrameError, match=says) as caught:
        decode_answer_header(frame, 7, 4)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)


SECOND = encode_answer(7, data_length=4, version=RECORD_VERSION)
REFUSED = encode_answer(0, Status.UNREADABLE, words="version")


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (ANSWER, "version 1 of the direct protocol where 2 is due"),
        (REFUSAL, "version 1 of the direct protocol where 2 is due"),
        (with_bytes(REFUSED, 6, b"\0"), "version 1 of the direct protocol where 2 is due"),
        (with_bytes(REFUSED, 4, b"\3"), "version 3 of the direct protocol where 2 is due"),
        (with_bytes(REFUSED, 27, b"\4"), "bytes in an answer with status 7"),
        (with_bytes(REFUSED, 30, b"\4\1"), "1025 bytes of words"),
        (with_bytes(SECOND, 5, b"\1"), "kind 1 instead of 2"),
        (with_bytes(SECOND, 15, b"\x08"), "the number 8 instead of 7"),
        (with_bytes(SECOND, 29, b"\x41"), "a signature of 65 bytes"),
    ],
)
def test_a_malformed_answer_to_a_second_version_is_named(frame: bytes, says: str) -> None:
    with pytest.raises(MalformedFrameError, match=says):
        decode_answer_header(frame, 7, 4, RECORD_VERSION)


def test_both_versions_refuse_connections_alike() -> None:
    for version in (1, RECORD_VERSION):
        assert decode_answer_header(REFUSED, 7, 4, version).status == Status.UNREADABLE
    with pytest.raises(MalformedFrameError, match="version 2 of the direct protocol where 1 is"):
        decode_answer_header(with_bytes(REFUSED, 4, b"\2"), 7, 4)


@pytest.mark.parametrize("cut", range(len(ANSWER + b"data") * 2 + 1))
def test_data_is_counted_wherever_a_stream_is_cut(cut: int) -> None:
    second = with_bytes(ANSWER, 4, b"\2")
    stream = ANSWER + b"data" + second + b"data"
    whole, rest = divmod(cut, len(stream) // 2)
    stream, expected = stream[:cut], 4 * whole + max(0, rest - len(ANSWER))
    assert data_in(stream) == expected
    assert data_in(b"abc" + stream, 3) == 3 + expected
    assert data_in(b"ab", 3) == 2


def test_what_is_no_answer_has_no_data() -> None:
    assert data_in(b"HTTP/1.1 400 Bad Request" * 9) == 0
    assert data_in(with_bytes(ANSWER, 24, b"\xff" * 4) + b"data") == 4


def test_a_device_id_is_text() -> None:
    frame = bytearray(encode_answer(7, device_id=b"\xff", data_length=4))
    with pytest.raises(MalformedFrameError, match="not UTF-8"):
        decode_answer_text(decode_answer_header(frame, 7, 4), frame)


REQUEST = encode_request(7, 4, 0, b"cc")


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (with_bytes(REQUEST, 0, b"PRI "), "no frame of the direct protocol"),
        (with_bytes(REQUEST, 4, b"\x00"), "version 0 of the direct protocol where 1 or 2 is due"),
        (with_bytes(REQUEST, 4, b"\x03"), "version 3 of the direct protocol where 1 or 2 is due"),
        (with_bytes(REQUEST, 4, b"\x02\x02"), "kind 2 instead of 1"),
        (with_bytes(REQUEST, 5, b"\x02"), "kind 2 instead of 1"),
        (with_bytes(REQUEST, 6, b"\x00\x41"), "a commitment of 65 bytes"),
        (with_bytes(REQUEST, 8, bytes(8)), "the number 0"),
        (with_bytes(REQUEST, 8, b"\xff" * 8), "the number -1"),
    ],
)
def test_a_malformed_request_is_named(frame: bytes, says: str) -> None:
    with pytest.raises(MalformedFrameError, match=says):
        decode_request_header(frame)


@given(frame=st.binary(min_size=32, max_size=32))
def test_noise_is_refused_in_one_way(frame: bytes) -> None:
    for start in (b"", b"QRED\x01\x02", b"QRED\x01\x02\x00", b"QRED\x01\x01"):
        noise = start + frame[len(start) :]
        try:
            header = decode_answer_header(noise, 7, 4)
        except MalformedFrameError:
            pass
        else:
            assert header.sequence_id in (7, 0)
            assert header.data_length == (0 if header.status else 4)
        with suppress(MalformedFrameError):
            assert decode_request_header(noise).sequence_id > 0


@pytest.fixture(scope="module")
def fuzzer(campaign: Callable[[str], ModuleType]) -> ModuleType:
    return campaign("fuzz_direct")


@pytest.mark.slow
def test_broken_answers_never_pass_for_right_ones(fuzzer: ModuleType) -> None:
    kinds, wrong = fuzzer.FUZZER.run_shard(seed=1, shard=0, cases=5_000)
    assert not wrong, wrong[:3]
    assert sum(kinds.values()) == 5_000
    assert all(kinds[kind] > 50 for kind in ("intact accepted", "flip refused", "cut refused"))
