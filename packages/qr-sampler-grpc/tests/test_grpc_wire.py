# SPDX-License-Identifier: Apache-2.0
"""The wire contract, held against protoc's own output and an independent description of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

import qr_sampler_grpc.proto
from qr_sampler_grpc.proto import entropy_service_pb2
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest, EntropyResponse
from qr_sampler_grpc.wire import (
    Answer,
    BytesOnlyWire,
    EntropyServiceWire,
    UnreadableAnswerError,
    wire_for,
)

FIELD = descriptor_pb2.FieldDescriptorProto
# Written down from the contract that existing servers speak, not from our own .proto file.
CONTRACT = {
    "EntropyRequest": [
        ("bytes_needed", 1, FIELD.TYPE_INT32),
        ("sequence_id", 2, FIELD.TYPE_INT64),
    ],
    "EntropyResponse": [
        ("data", 1, FIELD.TYPE_BYTES),
        ("sequence_id", 2, FIELD.TYPE_INT64),
        ("generation_timestamp_ns", 3, FIELD.TYPE_INT64),
        ("device_id", 4, FIELD.TYPE_STRING),
    ],
}
QRNG = {
    "RandomRequest": [("num_bytes", 1, FIELD.TYPE_UINT32)],
    "RandomResponse": [
        ("data", 1, FIELD.TYPE_BYTES),
        ("timestamp", 2, FIELD.TYPE_UINT64),
        ("device_id", 3, FIELD.TYPE_STRING),
    ],
}


def messages(
    package: str, shapes: dict[str, list[tuple[str, int, FIELD.Type.ValueType]]]
) -> dict[str, type[Message]]:
    """Returns message classes made from a description, in a pool of their own."""
    file = descriptor_pb2.FileDescriptorProto(name="foreign.proto", package=package)
    file.syntax = "proto3"
    for name, fields in shapes.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            message.field.add(name=field, number=number, type=kind, label=FIELD.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        for name in shapes
    }


PEER = messages("qr_entropy", CONTRACT)
INT64 = st.integers(-(2**63), 2**63 - 1)


def test_the_stubs_describe_the_contract() -> None:
    file = descriptor_pb2.FileDescriptorProto()
    entropy_service_pb2.DESCRIPTOR.CopyToProto(file)
    assert file.package == "qr_entropy"
    described = {
        message.name: [(one.name, one.number, one.type) for one in message.field]
        for message in file.message_type
    }
    assert described == CONTRACT
    (service,) = file.service
    assert service.name == "EntropyService"
    methods = [
        (one.name, one.input_type, one.output_type, one.client_streaming, one.server_streaming)
        for one in service.method
    ]
    request, response = ".qr_entropy.EntropyRequest", ".qr_entropy.EntropyResponse"
    assert methods == [
        ("GetEntropy", request, response, False, False),
        ("StreamEntropy", request, response, True, True),
    ]


# Printed by protoc 29.0, for example:
# echo 'bytes_needed: 10240' | protoc --encode=qr_entropy.EntropyRequest entropy_service.proto
@pytest.mark.parametrize(
    ("message", "by_protoc"),
    [
        (EntropyRequest(bytes_needed=10240), "088050"),
        (EntropyRequest(bytes_needed=1, sequence_id=1), "08011001"),
        (
            EntropyRequest(bytes_needed=2**31 - 1, sequence_id=2**63 - 1),
            "08ffffffff0710ffffffffffffffff7f",
        ),
        (
            EntropyResponse(
                data=b"\0\xff\n",
                sequence_id=7,
                generation_timestamp_ns=1795309903192267894,
                device_id="Gerät-1",
            ),
            "0a0300ff0a100718f6b8908c859b8ef5182208476572c3a4742d31",
        ),
        (EntropyResponse(data=b"abc"), "0a03616263"),
        (EntropyResponse(data=b"x", sequence_id=-1), "0a017810ffffffffffffffffff01"),
        (EntropyResponse(), ""),
    ],
)
def test_bytes_are_those_of_protoc(
    message: EntropyRequest | EntropyResponse, by_protoc: str
) -> None:
    assert message.SerializeToString().hex() == by_protoc
    assert type(message).FromString(bytes.fromhex(by_protoc)) == message


@settings(derandomize=True, database=None)
@given(st.integers(1, 2**31 - 1), st.integers(1, 2**63 - 1))
def test_requests_are_read_by_a_peer(bytes_needed: int, sequence_id: int) -> None:
    request = PEER["EntropyRequest"]()
    request.MergeFromString(EntropyServiceWire().encode(bytes_needed, sequence_id))
    assert (request.bytes_needed, request.sequence_id) == (bytes_needed, sequence_id)  # type: ignore[attr-defined]


@settings(derandomize=True, database=None)
@given(st.binary(max_size=99), INT64, st.text(max_size=20), st.integers(1, 2**63 - 1))
def test_answers_of_a_peer_are_read(
    data: bytes, timestamp: int, device_id: str, sequence_id: int
) -> None:
    message = PEER["EntropyResponse"](
        data=data,
        sequence_id=sequence_id,
        generation_timestamp_ns=timestamp,
        device_id=device_id,
    ).SerializeToString()
    assert EntropyServiceWire().decode(message, sequence_id) == Answer(
        data=data, device_id=device_id, device_timestamp_ns=timestamp or None
    )


def test_unknown_fields_are_skipped_and_the_last_value_wins() -> None:
    later = EntropyResponse(data=b"late").SerializeToString()
    unknown = bytes.fromhex("9a0605") + b"extra"  # field 99, length-delimited
    message = EntropyResponse(data=b"early", device_id="d").SerializeToString() + unknown + later
    assert EntropyServiceWire().decode(message, 1) == Answer(data=b"late", device_id="d")


def test_an_answer_without_echo_is_believed_and_a_foreign_one_is_not() -> None:
    wire = EntropyServiceWire()
    assert wire.decode(EntropyResponse(data=b"x").SerializeToString(), 5).data == b"x"
    for foreign in (4, 6, -5):
        message = EntropyResponse(data=b"x", sequence_id=foreign).SerializeToString()
        with pytest.raises(UnreadableAnswerError, match=f"names request {foreign}, but 5 was"):
            wire.decode(message, 5)


@pytest.mark.parametrize(
    "garbage",
    [b"\xff", b"\x0a\x05ab", b"\x22\x01\xff", b"<html>404</html>"],
    ids=["truncated tag", "truncated field", "device_id is not UTF-8", "not protobuf"],
)
def test_garbage_is_unreadable(garbage: bytes) -> None:
    with pytest.raises(UnreadableAnswerError, match="the answer is no EntropyResponse"):
        EntropyServiceWire().decode(garbage, 1)


def test_data_of_a_wrong_type_is_no_data() -> None:
    assert EntropyServiceWire().decode(b"\x08\x05", 1).data == b""
    assert BytesOnlyWire().decode(b"\x08\x05", 1).data == b""


def test_the_method_decides_what_is_believed() -> None:
    assert isinstance(wire_for("/qr_entropy.EntropyService/GetEntropy"), EntropyServiceWire)
    assert isinstance(wire_for("/qrng.QuantumRNG/GetRandomBytes"), BytesOnlyWire)
    assert isinstance(wire_for("/my.qr_entropy.EntropyService/GetEntropy"), BytesOnlyWire)


def test_a_qrng_answer_yields_its_bytes_and_nothing_else() -> None:
    foreign = messages("qrng", QRNG)
    request = foreign["RandomRequest"]()
    request.MergeFromString(BytesOnlyWire().encode(300, 7))
    assert request == foreign["RandomRequest"](num_bytes=300)
    assert BytesOnlyWire().encode(300, 7) == request.SerializeToString()
    answer = foreign["RandomResponse"](data=b"abc", timestamp=1_795_309_903_192_267, device_id="f1")
    assert BytesOnlyWire().decode(answer.SerializeToString(), 7) == Answer(data=b"abc")


@pytest.mark.parametrize("later", ["10ff01", "19ffffffffffffffff", "2202ff00", "25ffffffff"])
def test_any_other_field_of_any_type_is_skipped(later: str) -> None:
    message = b"\x0a\x02ab" + bytes.fromhex(later)
    assert BytesOnlyWire().decode(message, 1) == Answer(data=b"ab")


def test_bytes_only_garbage_is_unreadable() -> None:
    with pytest.raises(UnreadableAnswerError, match="no protobuf message"):
        BytesOnlyWire().decode(b"\xff", 1)


def test_the_descriptor_name_is_our_own() -> None:
    name = entropy_service_pb2.DESCRIPTOR.name
    assert name == "qr_sampler_grpc/proto/entropy_service.proto"


def test_every_field_and_method_is_documented() -> None:
    folder = Path(qr_sampler_grpc.proto.__file__).parent
    for file in folder.glob("*.proto"):
        lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
        for above, line in pairwise(lines):
            if line.startswith(("rpc ", "service ")) or (" = " in line and "syntax" not in line):
                assert above.startswith("//"), f"{file.name}: no comment above {line!r}"


def test_importing_the_package_alone_stays_light(run_python: Callable[..., str]) -> None:
    script = """
        import sys, qr_sampler_grpc
        print(sorted({"grpc", "google.protobuf", "qr_sampler", "pydantic"} & set(sys.modules)))
    """
    assert run_python(script) == "[]", sys.version
