# SPDX-License-Identifier: Apache-2.0
"""Our serialisation of an answer, compared with protobuf's own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qr_sampler_grpc.device import Device
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest, EntropyResponse
from qr_sampler_grpc.proto.entropy_service_pb2_grpc import EntropyServiceStub
from qr_sampler_grpc.server.answers import ServedAnswer, serialised
from qr_sampler_grpc.server.servicer import CHUNK_BYTES, EntropyServicer

INT64 = st.integers(-(2**63), 2**63 - 1)
ANSWERS = st.builds(
    ServedAnswer,
    data=st.binary(max_size=400),
    sequence_id=INT64,
    generation_timestamp_ns=INT64,
    device_id=st.text(max_size=200),
    commitment=st.binary(max_size=70),
    signature=st.binary(max_size=70),
    record_signature=st.binary(max_size=70),
)
EXTREMES: dict[str, tuple[Any, ...]] = {
    "data": (b"", b"\0", bytes(127), bytes(128), bytes(16_383), bytes(16_384), bytes(2**21)),
    "sequence_id": (0, 1, 127, 128, -1, 2**63 - 1, -(2**63)),
    "generation_timestamp_ns": (0, 1_700_000_000_000_000_000, -1),
    "device_id": ("", "a", "gerät" * 40),
    "commitment": (b"", b"c" * 64),
    "signature": (b"", b"s" * 64),
    "record_signature": (b"", b"r" * 64),
}


def protobufs(answer: ServedAnswer) -> bytes:
    fields = {**answer._asdict(), "data": bytes(answer.data)}
    return EntropyResponse(**fields).SerializeToString()


def test_an_answer_has_the_fields_of_the_contract() -> None:
    assert ServedAnswer._fields == tuple(EntropyResponse.DESCRIPTOR.fields_by_name)


@given(answer=ANSWERS)
def test_protobuf_would_write_the_same(answer: ServedAnswer) -> None:
    assert serialised(answer) == protobufs(answer)
    assert serialised(answer._replace(data=memoryview(answer.data))) == protobufs(answer)


@pytest.mark.parametrize("name", EXTREMES)
def test_protobuf_would_write_the_same_extremes(name: str) -> None:
    plain = ServedAnswer(b"data", 1, 2, "device", b"commitment", b"signature")
    for value, alone in product(EXTREMES[name], (True, False)):
        answer = (ServedAnswer(b"") if alone else plain)._replace(**{name: value})
        assert serialised(answer) == protobufs(answer)


def test_a_stock_client_reads_what_is_sent() -> None:
    size = 2 * CHUNK_BYTES + 5
    stamped = b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    servicer = EntropyServicer(Device(lambda n: stamped[:n], "bench"))
    server.add_generic_rpc_handlers((servicer,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    unlimited = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", unlimited) as channel:
        stub: Any = EntropyServiceStub(channel)
        request = EntropyRequest(bytes_needed=size, sequence_id=3, commitment=b"c")
        answer = stub.GetEntropy(request)
        request.accept_chunks = True
        chunks = list(stub.StreamEntropy(iter([request])))
    server.stop(0).wait()
    assert (answer.data, answer.sequence_id, answer.device_id) == (stamped, 3, "bench")
    assert [len(one.data) for one in chunks] == [CHUNK_BYTES, CHUNK_BYTES, 5]
    assert b"".join(one.data for one in chunks) == stamped
    for one in (answer, *chunks):
        assert (one.sequence_id, one.commitment) == (3, b"c")
        assert one.generation_timestamp_ns > 0
