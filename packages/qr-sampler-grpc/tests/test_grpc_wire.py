# SPDX-License-Identifier: Apache-2.0
"""Messages as we write and read them, held against protobuf's own classes."""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

import qr_sampler_grpc.proto
from qr_sampler_grpc.proto import entropy_service_pb2, purity_service_pb2, qrng_pb2
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest, EntropyResponse
from qr_sampler_grpc.proto.purity_service_pb2 import DrawRequest, DrawResponse
from qr_sampler_grpc.proto.qrng_pb2 import RandomRequest, RandomResponse
from qr_sampler_grpc.protocol.contract import Contract
from qr_sampler_grpc.protocol.wire import Answer, FieldWire, Question, UnreadableAnswerError, Wire
from qr_sampler_grpc.testing.fields import tag, tagged, varint

FIELD = descriptor_pb2.FieldDescriptorProto
# Written down from the contracts that servers speak, not from our own .proto files.
CONTRACT = {
    "EntropyRequest": [
        ("bytes_needed", 1, FIELD.TYPE_INT32),
        ("sequence_id", 2, FIELD.TYPE_INT64),
        ("commitment", 3, FIELD.TYPE_BYTES),
        ("accept_chunks", 4, FIELD.TYPE_BOOL),
    ],
    "EntropyResponse": [
        ("data", 1, FIELD.TYPE_BYTES),
        ("sequence_id", 2, FIELD.TYPE_INT64),
        ("generation_timestamp_ns", 3, FIELD.TYPE_INT64),
        ("device_id", 4, FIELD.TYPE_STRING),
        ("commitment", 5, FIELD.TYPE_BYTES),
        ("signature", 6, FIELD.TYPE_BYTES),
        ("record_signature", 7, FIELD.TYPE_BYTES),
    ],
}
QRNG_CONTRACT = {
    "RandomRequest": [("num_bytes", 1, FIELD.TYPE_UINT32)],
    "RandomResponse": [
        ("data", 1, FIELD.TYPE_BYTES),
        ("timestamp", 2, FIELD.TYPE_UINT64),
        ("device_id", 3, FIELD.TYPE_STRING),
    ],
}

QR_ENTROPY = Contract.declared("qr_entropy", mode="unary").wire
QRNG = Contract.declared("qrng", mode="unary").wire
QR_PURITY = Contract.declared("qr_purity", mode="unary").wire

REPEATABLE = settings(derandomize=True, database=None, deadline=None, max_examples=200)
INT64 = st.integers(-(2**63), 2**63 - 1)
UINT64 = st.integers(0, 2**64 - 1)
NAMES = st.integers(1, 2**63 - 1)
SMALL = st.binary(max_size=70)


def reported(nanoseconds: int) -> int | None:
    """What becomes of a time: one that is none, or that no int64 holds, was not reported."""
    return nanoseconds if 0 < nanoseconds < 2**63 else None


def described(file: Any) -> dict[str, list[tuple[str, int, int]]]:
    content = descriptor_pb2.FileDescriptorProto()
    file.DESCRIPTOR.CopyToProto(content)
    return {
        message.name: [(one.name, one.number, one.type) for one in message.field]
        for message in content.message_type
    }


def test_the_stubs_describe_the_contracts() -> None:
    assert described(entropy_service_pb2) == CONTRACT
    assert described(qrng_pb2) == QRNG_CONTRACT
    assert entropy_service_pb2.DESCRIPTOR.package == "qr_entropy"
    assert qrng_pb2.DESCRIPTOR.package == "qrng"
    assert purity_service_pb2.DESCRIPTOR.package == "qr_purity"
    file = descriptor_pb2.FileDescriptorProto()
    entropy_service_pb2.DESCRIPTOR.CopyToProto(file)
    methods = [
        (one.name, one.input_type, one.output_type, one.client_streaming, one.server_streaming)
        for one in file.service[0].method
    ]
    request, response = ".qr_entropy.EntropyRequest", ".qr_entropy.EntropyResponse"
    assert methods == [
        ("GetEntropy", request, response, False, False),
        ("StreamEntropy", request, response, True, True),
    ]


# Printed by protoc 29.0, for example:
# echo 'bytes_needed: 10240' | protoc --encode=qr_entropy.EntropyRequest entropy_service.proto
@pytest.mark.parametrize(
    ("question", "by_protoc"),
    [
        (Question(bytes_needed=1, sequence_id=1), "08011001"),
        (
            Question(bytes_needed=2**31 - 1, sequence_id=2**63 - 1),
            "08ffffffff0710ffffffffffffffff7f",
        ),
    ],
)
def test_requests_are_those_of_protoc(question: Question, by_protoc: str) -> None:
    assert QR_ENTROPY.encode(question).hex() == by_protoc


def test_an_answer_of_protoc_is_read() -> None:
    by_protoc = "0a0300ff0a100718f6b8908c859b8ef5182208476572c3a4742d31"
    assert QR_ENTROPY.decode(bytes.fromhex(by_protoc)) == Answer(
        data=b"\0\xff\n",
        sequence_id=7,
        device_timestamp_ns=1795309903192267894,
        device_id="Gerät-1",
        commitment=b"",
    )


@REPEATABLE
@given(st.integers(-(2**31), 2**31 - 1), INT64, SMALL, st.booleans())
@example(-(2**31), -(2**63), b"", False)
@example(0, 0, b"", True)
@example(2**31 - 1, 2**63 - 1, b"\0" * 64, True)
def test_requests_of_qr_entropy_are_those_of_protobuf(
    bytes_needed: int, sequence_id: int, commitment: bytes, accept_chunks: bool
) -> None:
    ours = QR_ENTROPY.encode(
        Question(
            bytes_needed=bytes_needed,
            sequence_id=sequence_id,
            commitment=commitment,
            accept_chunks=accept_chunks,
        )
    )
    theirs = EntropyRequest(
        bytes_needed=bytes_needed,
        sequence_id=sequence_id,
        commitment=commitment,
        accept_chunks=accept_chunks,
    )
    assert ours == theirs.SerializeToString()


@REPEATABLE
@given(st.integers(0, 2**32 - 1), NAMES, SMALL)
def test_requests_of_qrng_are_those_of_protobuf(
    bytes_needed: int, sequence_id: int, commitment: bytes
) -> None:
    question = Question(bytes_needed=bytes_needed, sequence_id=sequence_id, commitment=commitment)
    assert QRNG.encode(question) == RandomRequest(num_bytes=bytes_needed).SerializeToString()


@REPEATABLE
@given(INT64, st.text(max_size=9), st.integers(0, 2**32 - 1))
def test_requests_of_qr_purity_are_those_of_protobuf(
    sequence_id: int, source_id: str, integrated_bytes: int
) -> None:
    wire = Contract.declared(
        "qr_purity", mode="unary", source_id=source_id, integrated_bytes=integrated_bytes
    ).wire
    theirs = DrawRequest(sequence_id=sequence_id, source_id=source_id, block_bytes=integrated_bytes)
    ours = wire.encode(Question(bytes_needed=8, sequence_id=sequence_id))
    assert ours == theirs.SerializeToString()


def test_declared_fields_are_written_in_the_order_of_their_numbers() -> None:
    wire = FieldWire(request={"sequence_id": 9, "bytes_needed": 2}, answer={"data": 1})
    assert wire.encode(Question(bytes_needed=3, sequence_id=4)).hex() == "10034804"


@REPEATABLE
@given(st.binary(max_size=300), INT64, INT64, st.text(max_size=20), SMALL, SMALL, SMALL)
@example(b"", 0, 0, "", b"", b"", b"")
@example(b"x", -(2**63), 2**63 - 1, "\0", b"\0", b"\0" * 64, b"\1" * 64)
def test_answers_of_qr_entropy_are_read(
    data: bytes,
    sequence_id: int,
    timestamp: int,
    device_id: str,
    commitment: bytes,
    signature: bytes,
    record_signature: bytes,
) -> None:
    message = EntropyResponse(
        data=data,
        sequence_id=sequence_id,
        generation_timestamp_ns=timestamp,
        device_id=device_id,
        commitment=commitment,
        signature=signature,
        record_signature=record_signature,
    ).SerializeToString()
    assert QR_ENTROPY.decode(message) == Answer(
        data=data,
        sequence_id=sequence_id,
        device_timestamp_ns=reported(timestamp),
        device_id=device_id,
        commitment=commitment,
        signature=signature,
        record_signature=record_signature,
    )


@REPEATABLE
@given(st.binary(max_size=300), UINT64, st.text(max_size=20))
@example(b"x", 2**64 - 1, "")
@example(b"x", (2**63 - 1) // 1000, "")
@example(b"x", (2**63 - 1) // 1000 + 1, "")
def test_answers_of_qrng_are_read(data: bytes, timestamp_us: int, device_id: str) -> None:
    answer = RandomResponse(data=data, timestamp=timestamp_us, device_id=device_id)
    assert QRNG.decode(answer.SerializeToString()) == Answer(
        data=data,
        device_id=device_id,
        device_timestamp_ns=reported(timestamp_us * 1000),
    )


@REPEATABLE
@given(
    st.floats(0.0, 1.0, exclude_min=True, exclude_max=True),
    INT64,
    UINT64,
    st.text(max_size=9),
    st.floats(),
    st.text(max_size=9),
)
@example(5e-324, 1, 0, "", 0.0, "")
@example(2.0**-64, 1, 2**64 - 1, "", 0.0, "")
@example(math.nextafter(1.0, 0.0), 1, 1, "", 0.0, "")
def test_answers_of_qr_purity_are_read(
    u: float, sequence_id: int, timestamp: int, source_id: str, z: float, label: str
) -> None:
    message = DrawResponse(
        u=u,
        z=z,
        sequence_id=sequence_id,
        generation_timestamp_ns=timestamp,
        source_id=source_id,
        coherence_valid=True,
        purity_label=label,
        integrated_bytes=512,
    ).SerializeToString()
    answer = QR_PURITY.decode(message)
    assert int.from_bytes(answer.data, "big") == math.floor(Fraction(u) * 2**64)
    assert len(answer.data) == 8
    assert answer.sequence_id == sequence_id
    assert answer.device_timestamp_ns == reported(timestamp)
    assert answer.device_id == source_id
    assert answer.commitment is None


@pytest.mark.parametrize("u", [1.0, -0.5, 2.0, math.inf, -math.inf, math.nan])
def test_a_number_that_is_no_u_is_flawed(u: float) -> None:
    answer = QR_PURITY.decode(b"\x09" + struct.pack("<d", u))
    assert "not inside the open interval (0, 1)" in answer.flaw
    assert len(answer.data) == 8, "a draw has arrived"


def test_an_answer_without_u_is_refused() -> None:
    zeros = [b"\x09" + struct.pack("<d", zero) for zero in (0.0, -0.0)]
    for message in (b"", DrawResponse(z=1.5).SerializeToString(), b"\x08\x01", *zeros):
        with pytest.raises(UnreadableAnswerError, match="without a draw"):
            QR_PURITY.decode(message)


# What may be wrong with a message, or merely strange: everything is put together at random.
def _varints() -> st.SearchStrategy[bytes]:
    return st.one_of(
        st.integers(0, 2**70).map(varint),
        st.binary(min_size=1, max_size=11).map(
            lambda raw: bytes(byte | 0x80 for byte in raw[:-1]) + bytes((raw[-1] & 0x7F,))
        ),
    )


NUMBERS = st.sampled_from([1, 2, 3, 4, 5, 6, 7, 100, 2**29 - 1, 2**29, 0])


PLAIN_FIELDS = st.one_of(
    st.builds(lambda number, value: tag(number, 0) + value, NUMBERS, _varints()),
    st.builds(lambda number, value: tag(number, 1) + value, NUMBERS, st.binary(max_size=8)),
    st.builds(tagged, NUMBERS, st.one_of(st.binary(max_size=9), st.just(b"\xed\xa0\x80"))),
    st.builds(lambda number, raw: tagged(number, b"") + raw, NUMBERS, st.binary(max_size=3)),
    st.builds(lambda number, value: tag(number, 5) + value, NUMBERS, st.binary(max_size=4)),
    st.builds(tag, NUMBERS, st.sampled_from([3, 4, 6, 7])),
)
FIELDS = st.recursive(
    PLAIN_FIELDS,
    lambda inner: st.builds(
        lambda number, fields: tag(number, 3) + b"".join(fields) + tag(number, 4),
        NUMBERS,
        st.lists(inner, max_size=3),
    ),
    max_leaves=4,
)


def agrees(message: bytes) -> bool:
    """Checks that we read *message* as protobuf does; returns whether it is one."""
    try:
        theirs = EntropyResponse.FromString(message)
    except DecodeError:
        with pytest.raises(UnreadableAnswerError):
            QR_ENTROPY.decode(message)
        return False
    assert QR_ENTROPY.decode(message) == Answer(
        data=theirs.data,
        sequence_id=theirs.sequence_id,
        device_timestamp_ns=reported(theirs.generation_timestamp_ns),
        device_id=theirs.device_id,
        commitment=theirs.commitment,
        signature=theirs.signature,
        record_signature=theirs.record_signature,
    )
    return True


@settings(REPEATABLE, max_examples=150)
@given(st.lists(FIELDS, max_size=5).map(b"".join))
def test_any_fields_mean_what_they_mean_to_protobuf(message: bytes) -> None:
    agrees(message)


@settings(REPEATABLE, max_examples=100)
@given(st.binary(max_size=60))
def test_noise_means_what_it_means_to_protobuf(message: bytes) -> None:
    agrees(message)


@settings(REPEATABLE, max_examples=150)
@given(SMALL, INT64, st.text(max_size=5), st.integers(0, 99), st.integers(1, 255), st.booleans())
def test_a_damaged_answer_means_what_it_means_to_protobuf(
    data: bytes, sequence_id: int, device_id: str, place: int, flip: int, cut: bool
) -> None:
    whole = EntropyResponse(data=data, sequence_id=sequence_id, device_id=device_id)
    damaged = bytearray(whole.SerializeToString() or b"\x10\x00")
    place %= len(damaged)
    damaged[place] ^= flip
    agrees(bytes(damaged[:place] if cut else damaged))


@pytest.mark.parametrize(
    ("message", "is_one"),
    [
        ("0a0161" + "0a0162", True),  # a repeated field: the last one counts
        ("0805" + "0a0162", True),  # data as a number is skipped
        ("0a0162" + "120163", True),  # sequence_id as bytes is skipped
        ("9a06056578747261" + "0a0162", True),  # field 99
        ("3b" + "0a0163" + "3c" + "0a0162", True),  # a group of field 7
        ("0b" + "0a0163" + "0c" + "0a0162", True),  # a group in the place of data
        ("3b" + "0a0163" + "33" + "3c" + "34", False),  # a group that ends within another one
        ("3b0a0163", False),  # a group that does not end
        ("3c", False),  # an end without a group
        ("3e", False),  # wire type 6
        ("0001", False),  # field 0
        ("0a8180808000" + "61", True),  # a length of five bytes
        ("0a818080808000" + "61", False),  # a length of six
        ("8a8080800001" + "61", True),  # a tag of five bytes
        ("8a808080800001" + "61", False),  # a tag of six
        ("10ffffffffffffffffff7f", True),  # a number with more bits than 64
        ("10ffffffffffffffffffff01", False),  # a number of eleven bytes
        ("0aff", False),  # a length that is cut short
        ("0a0561", False),  # data that are cut short
        ("110102", False),  # a fixed number that is cut short
        ("220361ff62", False),  # a device that is no UTF-8
        ("2201ff" + "220161", False),  # one that is replaced later
        ("4a01ff", True),  # bytes that nobody declared
        ("3c68746d6c3e343034", False),
        ("", True),
    ],
)
def test_what_is_a_message(message: str, is_one: bool) -> None:
    assert agrees(bytes.fromhex(message)) is is_one


@pytest.mark.parametrize("depth", [1, 99, 100, 101, 10_000])
def test_groups_within_groups_are_followed_as_deep_as_by_protobuf(depth: int) -> None:
    assert agrees(b"\x3b" * depth + b"\x3c" * depth) is (depth <= 100)


def test_text_that_is_not_declared_is_not_read() -> None:
    """Protobuf refuses such an answer; a server's label is no reason to drop a draw."""
    message = DrawResponse(u=0.5).SerializeToString() + tagged(8, b"\xff")
    with pytest.raises(DecodeError):
        DrawResponse.FromString(message)
    assert QR_PURITY.decode(message).data == bytes([128, 0, 0, 0, 0, 0, 0, 0])


def test_a_refusal_says_why() -> None:
    for message in (b"\x0a\x05ab", b"\x22\x01\xff"):
        with pytest.raises(UnreadableAnswerError, match=r"no protobuf message \(.+\)"):
            QR_ENTROPY.decode(message)


def test_a_wire_reads_nothing_that_it_does_not_declare() -> None:
    wire: Wire = FieldWire(request={"bytes_needed": 1}, answer={"data": 1})
    message = EntropyResponse(data=b"ab", sequence_id=5, device_id="d", commitment=b"c")
    assert wire.decode(message.SerializeToString()) == Answer(data=b"ab")


def test_a_time_in_microseconds_precedes_one_in_nanoseconds() -> None:
    wire = FieldWire(
        request={"bytes_needed": 1}, answer={"data": 1, "timestamp_us": 2, "timestamp_ns": 3}
    )
    assert wire.decode(tagged(2, 5) + tagged(3, 7)).device_timestamp_ns == 5000
    assert wire.decode(tagged(2, 0) + tagged(3, 7)).device_timestamp_ns == 7
    assert wire.decode(tagged(2, -5)).device_timestamp_ns is None


@pytest.fixture(scope="module")
def fuzzer(campaign: Callable[[str], ModuleType]) -> ModuleType:
    return campaign("fuzz_answers")


def test_broken_answers_never_pass_for_right_ones(fuzzer: ModuleType) -> None:
    kinds, wrong = fuzzer.FUZZER.run_shard(seed=1, shard=0, cases=20_000)
    assert not wrong, wrong[:3]
    assert sum(kinds.values()) == 20_000
    for kind in ("intact accepted", "flip accepted", "more accepted", "cut refused"):
        assert kinds[kind] > 50


def test_the_campaign_notices_short_bytes_and_foreign_exceptions(
    fuzzer: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzzer.AnswerParts, "add_all", lambda _parts, answer: answer)
    _, wrong = fuzzer.FUZZER.run_shard(seed=1, shard=0, cases=2000)
    assert any("bytes were accepted" in problem for problem in wrong)

    def failing(_parts: object, _answer: object) -> None:
        raise KeyError

    monkeypatch.setattr(fuzzer.AnswerParts, "add_all", failing)
    with pytest.raises(KeyError):
        fuzzer.FUZZER.run_shard(seed=1, shard=0, cases=2000)


def test_the_descriptor_name_is_our_own() -> None:
    name = entropy_service_pb2.DESCRIPTOR.name
    assert name == "qr_sampler_grpc/proto/entropy_service.proto"


def test_every_field_and_method_of_our_contract_is_documented() -> None:
    file = Path(qr_sampler_grpc.proto.__file__).with_name("entropy_service.proto")
    lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
    for above, line in pairwise(lines):
        if line.startswith(("rpc ", "service ")) or (" = " in line and "syntax" not in line):
            assert above.startswith("//"), f"no comment above {line!r}"


def test_importing_the_package_alone_stays_light(run_python: Callable[..., str]) -> None:
    script = """
        import sys, qr_sampler_grpc
        print(sorted({"grpc", "google.protobuf", "qr_sampler", "pydantic"} & set(sys.modules)))
    """
    assert run_python(script) == "[]", sys.version
