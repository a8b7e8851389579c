# SPDX-License-Identifier: Apache-2.0
"""The published conformance cases: their encoding, and what they say of good and bad servers."""
# The names of the methods are the contract's.
# ruff: noqa: N802

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from qr_sampler_grpc.conformance import CASES_FILE, Caller, Case, CaseResult, load_cases, run_cases
from qr_sampler_grpc.conformance.rules import RULES, clock_offset_ns
from qr_sampler_grpc.connection.credentials import ApiKey
from qr_sampler_grpc.proto.entropy_service_pb2 import DESCRIPTOR, EntropyRequest, EntropyResponse
from qr_sampler_grpc.proto.entropy_service_pb2_grpc import (
    EntropyServiceServicer,
    add_EntropyServiceServicer_to_server,
)
from qr_sampler_grpc.protocol.attestation import SigningKey, VerificationKey
from qr_sampler_grpc.server import serve
from qr_sampler_grpc.testing.keys import make_key_pair

DOCUMENT = json.loads(CASES_FILE.read_text("utf-8"))
REQUESTS = [
    pytest.param(request, id=f"{case['id']}-{call_number}-{number}")
    for case in DOCUMENT["cases"]
    for call_number, call in enumerate(case["calls"])
    for number, request in enumerate(call["requests"])
    if call["method"].startswith("/qr_entropy.")
]


@pytest.mark.parametrize("request_", REQUESTS)
def test_hex_is_protobufs_own_encoding(request_: dict[str, Any]) -> None:
    message = json_format.ParseDict(request_["fields"], EntropyRequest())
    unknown = request_.get("unknown_hex", "")
    encoded = bytes.fromhex(request_["hex"])
    parsed = EntropyRequest.FromString(encoded)
    if request_["hex"] != "08050807":
        expected = message.SerializeToString(deterministic=True).hex() + unknown
        assert request_["hex"] == expected
    parsed.DiscardUnknownFields()
    assert parsed == message
    assert bool(unknown) == (len(EntropyRequest.FromString(encoded).SerializeToString())
                             != len(parsed.SerializeToString()))  # fmt: skip


def test_messages_of_the_standard_services_are_theirs() -> None:
    by_id = {case["id"]: case["calls"][0] for case in DOCUMENT["cases"]}
    health, reflection = by_id["health"], by_id["reflection"]
    assert health_pb2.HealthCheckRequest().SerializeToString().hex() == health["requests"][0]["hex"]
    serving = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
    assert serving.SerializeToString().hex() == health["answers"][0]["message_hex"]
    listing = reflection_pb2.ServerReflectionRequest(list_services="")
    assert listing.SerializeToString().hex() == reflection["requests"][0]["hex"]
    service = DESCRIPTOR.services_by_name["EntropyService"]
    assert reflection["answers"][0]["contains_text"] == service.full_name
    methods = {f"/{service.full_name}/{method.name}" for method in service.methods}
    assert methods == {call["method"] for call in by_id.values()} - {
        health["method"],
        reflection["method"],
    }


def test_the_file_is_complete_and_consistent() -> None:
    cases = load_cases()
    assert len({case.name for case in cases}) == len(cases) == len(DOCUMENT["cases"])
    for case in cases:
        assert case.checks.endswith(".")
        assert case.why.endswith(".")
        assert set(case.rules) <= set(RULES)
        for call in case.calls:
            assert len(call.requests) == len(call.answers) or "OK" not in call.status
            assert call.status <= {code.name for code in grpc.StatusCode}
        spends = sum(answer.data_bytes or 0 for call in case.calls for answer in call.answers)
        assert not case.cheap or spends < 200


@contextmanager
def calling(address: str, **options: Any) -> Iterator[Caller]:
    with grpc.insecure_channel(address) as channel:
        yield Caller(channel=channel, timeout_s=30.0, **options)


def chosen(*names: str) -> list[Case]:
    return [case for case in load_cases() if not names or case.name in names]


def by_outcome(results: Iterable[CaseResult], outcome: str) -> set[str]:
    return {result.case for result in results if result.outcome == outcome}


def test_the_kit_passes_everything(tmp_path: Path) -> None:
    pair = make_key_pair(tmp_path)
    with (
        serve(
            os.urandom,
            "127.0.0.1:0",
            device_id="bench",
            api_key="k",
            signing_key=SigningKey(pair.private),
        ) as server,
        calling(
            server.address,
            key=ApiKey("api-key", "k"),
            verification_key=VerificationKey(pair.public),
        ) as caller,
    ):
        results = list(run_cases(caller, load_cases()))
    assert [(one.case, one.words) for one in results if one.outcome != "passed"] == []
    spent = {result.case: result.spent_bytes for result in results}
    assert (spent["length-13312"], spent["stream-in-order"], spent["health"]) == (13312, 40, 0)
    words = {result.case: result.words for result in results}
    assert words["signature"] == "verified"


def test_another_public_key_is_told_apart(tmp_path: Path) -> None:
    ours, other = SigningKey(make_key_pair(tmp_path).private), make_key_pair(tmp_path, "other")
    with serve(os.urandom, "127.0.0.1:0", signing_key=ours) as server:
        for key, outcome in ((VerificationKey(other.public), "failed"), (None, "passed")):
            with calling(server.address, verification_key=key) as caller:
                (result,) = run_cases(caller, chosen("signature"))
            assert result.outcome == outcome
            assert result.words


class Servicer(EntropyServiceServicer):
    """Keeps the contract, except for what a test changes."""

    def GetEntropy(self, request: EntropyRequest, context: grpc.ServicerContext) -> EntropyResponse:
        if not 1 <= request.bytes_needed <= 2**20 or len(request.commitment) > 64:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such size")
        answer = EntropyResponse(
            data=os.urandom(request.bytes_needed),
            sequence_id=request.sequence_id,
            commitment=request.commitment,
            generation_timestamp_ns=time.time_ns(),
            device_id="scripted",
        )
        self.change(request, answer, context)
        return answer

    def StreamEntropy(
        self, request_iterator: Iterator[EntropyRequest], context: grpc.ServicerContext
    ) -> Iterator[EntropyResponse]:
        for request in request_iterator:
            yield self.GetEntropy(request, context)

    def change(
        self, request: EntropyRequest, answer: EntropyResponse, context: grpc.ServicerContext
    ) -> None:
        pass


Change = Callable[[EntropyRequest, EntropyResponse, grpc.ServicerContext], None]


@contextmanager
def scripted_server(servicer: EntropyServiceServicer) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
    add_EntropyServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def results_of(servicer: EntropyServiceServicer, *names: str) -> list[CaseResult]:
    with scripted_server(servicer) as address, calling(address) as caller:
        return list(run_cases(caller, chosen(*names)))


def changed(change: Change) -> Servicer:
    servicer = Servicer()
    servicer.change = change  # type: ignore[method-assign]
    return servicer


def test_a_server_without_options_passes_what_it_offers() -> None:
    results = results_of(Servicer())
    assert by_outcome(results, "failed") == set()
    assert by_outcome(results, "not offered") == {
        "signature",
        "key-missing",
        "key-wrong",
        "stream-key-missing",
        "health",
        "reflection",
    }


def test_a_server_may_have_a_small_limit() -> None:
    def limited(request: EntropyRequest, _answer: object, context: grpc.ServicerContext) -> None:
        if request.bytes_needed > 1000:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "at most 1000")

    results = results_of(changed(limited))
    assert by_outcome(results, "failed") == set()
    (block,) = [result for result in results if result.case == "length-13312"]
    assert (block.outcome, block.words) == (
        "not offered",
        "the call ended with INVALID_ARGUMENT (at most 1000)",
    )


def short(_request: EntropyRequest, answer: EntropyResponse, _context: object) -> None:
    answer.data = answer.data[:-1]


def constant(_request: EntropyRequest, answer: EntropyResponse, _context: object) -> None:
    answer.data = bytes(len(answer.data))


def next_id(_request: EntropyRequest, answer: EntropyResponse, _context: object) -> None:
    answer.sequence_id += 1


def other_commitment(_request: EntropyRequest, answer: EntropyResponse, _context: object) -> None:
    answer.commitment = answer.commitment[::-1] + b"?"


def stamped_once(_request: EntropyRequest, answer: EntropyResponse, _context: object) -> None:
    answer.generation_timestamp_ns = 1_700_000_000_000_000_000


def stub_signature(_request: EntropyRequest, answer: EntropyResponse, _context: object) -> None:
    answer.signature = b"signed"


def stub_record_signature(
    _request: EntropyRequest, answer: EntropyResponse, _context: object
) -> None:
    answer.signature = bytes(64)
    answer.record_signature = b"signed"


@pytest.mark.parametrize(
    ("change", "failing", "words"),
    [
        (short, {"length-2", "stream-in-order"}, "1 bytes arrived instead of 2"),
        (constant, {"answers-differ", "concurrent-calls", "streams-at-once"}, "the same bytes"),
        (next_id, {"length-1", "sequence-one", "stream-step-by-step"}, "names request 1"),
        (other_commitment, {"commitment-1", "commitment-64"}, "repeats the commitment"),
        (stamped_once, {"timestamp"}, "ms outside of request and answer"),
        (stub_signature, {"signature"}, "6 bytes, not 64"),
        (stub_record_signature, {"signature"}, "the signature for records has 6 bytes, not 64"),
    ],
)
def test_a_deviation_is_found(change: Change, failing: set[str], words: str) -> None:
    results = results_of(changed(change))
    assert failing <= by_outcome(results, "failed")
    assert any(words in result.words for result in results)
    # What has nothing to do with it is not blamed.
    assert "size-zero" in by_outcome(results, "passed")


def test_a_server_that_tells_nothing_is_within_its_rights() -> None:
    def silent(_request: EntropyRequest, answer: EntropyResponse, _context: object) -> None:
        data = answer.data
        answer.Clear()
        answer.data = data

    results = results_of(changed(silent))
    assert by_outcome(results, "failed") == set()
    assert {"sequence-one", "commitment-32", "device-id", "timestamp"} <= by_outcome(
        results, "not offered"
    )


def test_a_server_that_ignores_commitments_need_not_refuse_long_ones() -> None:
    class Old(Servicer):
        def GetEntropy(
            self, request: EntropyRequest, context: grpc.ServicerContext
        ) -> EntropyResponse:
            request.ClearField("commitment")
            return super().GetEntropy(request, context)

    results = results_of(Old(), "commitment-65", "commitment-64")
    assert by_outcome(results, "not offered") == {"commitment-64", "commitment-65"}


def test_a_server_without_streams_offers_none() -> None:
    class UnaryOnly(Servicer):
        def StreamEntropy(
            self, request_iterator: Iterator[EntropyRequest], context: grpc.ServicerContext
        ) -> Iterator[EntropyResponse]:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "")

    with scripted_server(UnaryOnly()) as address:
        with calling(address) as caller:
            results = list(run_cases(caller, load_cases()))
        with calling(address, key=ApiKey("api-key", "k")) as caller:
            results += run_cases(caller, chosen("stream-key-missing"))
    assert by_outcome(results, "failed") == set()
    assert {"stream-in-order", "streams-at-once", "stream-key-missing"} <= by_outcome(
        results, "not offered"
    )
    assert results[-1].words.startswith("the call ended with UNIMPLEMENTED")


def test_streams_that_answer_too_little_or_too_much_fail() -> None:
    class Batching(Servicer):
        def StreamEntropy(
            self, request_iterator: Iterator[EntropyRequest], context: grpc.ServicerContext
        ) -> Iterator[EntropyResponse]:
            requests = list(request_iterator)
            for request in requests[1:]:
                yield self.GetEntropy(request, context)

    class Repeating(Servicer):
        def StreamEntropy(
            self, request_iterator: Iterator[EntropyRequest], context: grpc.ServicerContext
        ) -> Iterator[EntropyResponse]:
            for request in request_iterator:
                answer = self.GetEntropy(request, context)
                yield answer
                yield answer

    (result,) = results_of(Batching(), "stream-in-order")
    assert result.outcome == "failed"
    (result,) = results_of(Repeating(), "stream-chunks")
    assert (result.outcome, result.words) == (
        "failed",
        "1 messages more than were asked for arrived",
    )


def test_an_empty_answer_and_an_empty_chunk_fail() -> None:
    class Trailing(Servicer):
        def StreamEntropy(
            self, request_iterator: Iterator[EntropyRequest], context: grpc.ServicerContext
        ) -> Iterator[EntropyResponse]:
            for request in request_iterator:
                yield EntropyResponse()
                yield self.GetEntropy(request, context)

    class Mute(Servicer):
        def StreamEntropy(
            self, request_iterator: Iterator[EntropyRequest], context: grpc.ServicerContext
        ) -> Iterator[EntropyResponse]:
            next(request_iterator)
            yield from ()

    (result,) = results_of(Trailing(), "stream-chunks")
    assert (result.outcome, result.words) == ("failed", "a chunk is empty")
    (result,) = results_of(Mute(), "stream-step-by-step")
    assert (result.outcome, result.words) == ("failed", "request 1 of 3 was not answered")


@pytest.mark.parametrize("chunk_bytes", [1, 100, 128])
def test_chunks_are_put_together(chunk_bytes: int) -> None:
    class Chunking(Servicer):
        def StreamEntropy(
            self, request_iterator: Iterator[EntropyRequest], context: grpc.ServicerContext
        ) -> Iterator[EntropyResponse]:
            for request in request_iterator:
                whole = self.GetEntropy(request, context)
                for start in range(0, len(whole.data), chunk_bytes):
                    part = EntropyResponse(data=whole.data[start : start + chunk_bytes])
                    part.sequence_id = whole.sequence_id
                    yield part

    (result,) = results_of(Chunking(), "stream-chunks")
    assert (result.outcome, result.spent_bytes) == ("passed", 128)


@pytest.mark.parametrize(
    ("method", "answer", "case", "words"),
    [
        ("/grpc.health.v1.Health/Check", b"\x08\x02", "health", "is 0802 instead of 0801"),
        ("/grpc.health.v1.Health/Check", b"", "health", "is empty instead of 0801"),
    ],
)
def test_a_server_that_is_not_well_says_so(
    scripted: Callable[..., Any], method: str, answer: bytes, case: str, words: str
) -> None:
    server = scripted(lambda _request, _context: answer, method)
    with calling(server.address) as caller:
        (result,) = run_cases(caller, chosen(case))
    assert result.outcome == "failed"
    assert words in result.words


def test_reflection_has_to_mention_the_service() -> None:
    with serve(os.urandom, "127.0.0.1:0") as server:
        paths = {"/qr_entropy.EntropyService/GetEntropy": "/lab.Entropy/Draw"}
        with calling(server.address, paths=paths) as caller:
            (result,) = run_cases(caller, chosen("reflection"))
    assert (result.outcome, result.words) == ("failed", "the answer does not mention lab.Entropy")


def test_what_is_no_message_fails_and_counts(scripted: Callable[..., Any]) -> None:
    server = scripted(lambda _request, _context: b"\xff\xff")
    with calling(server.address) as caller:
        (result,) = run_cases(caller, chosen("length-1"))
    assert result.outcome == "failed"
    assert "no EntropyResponse" in result.words
    assert result.spent_bytes == 2


def test_a_hang_ends_in_words() -> None:
    class Hanging(Servicer):
        def StreamEntropy(
            self, request_iterator: Iterator[EntropyRequest], context: grpc.ServicerContext
        ) -> Iterator[EntropyResponse]:
            list(request_iterator)
            yield from ()

    with scripted_server(Hanging()) as address, grpc.insecure_channel(address) as channel:
        caller = Caller(channel=channel, timeout_s=0.3)
        (result,) = run_cases(caller, chosen("stream-step-by-step"))
    assert result.outcome == "failed"
    assert "DEADLINE_EXCEEDED" in result.words


def test_the_key_is_never_repeated() -> None:
    def tell(_request: EntropyRequest, _answer: object, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.INTERNAL, f"got {dict(context.invocation_metadata())}")

    with (
        scripted_server(changed(tell)) as address,
        calling(address, key=ApiKey("api-key", "s3cret-0")) as caller,
    ):
        (result,) = run_cases(caller, chosen("length-1"))
    assert "INTERNAL" in result.words
    assert "***" in result.words
    assert "s3cret-0" not in repr(result) + repr(caller)


def test_methods_may_have_another_path(scripted: Callable[..., Any]) -> None:
    answer = EntropyResponse(data=b"x").SerializeToString()
    server = scripted(lambda _request, _context: answer, "/lab.Entropy/Draw")
    paths = {"/qr_entropy.EntropyService/GetEntropy": "/lab.Entropy/Draw"}
    with calling(server.address, paths=paths) as caller:
        (result,) = run_cases(caller, chosen("length-1"))
    assert result.outcome == "passed"


def test_an_offset_is_bounded_from_both_sides() -> None:
    assert clock_offset_ns([(100, 1105, 110), (200, 1203, 206)]) == (997, 1003)
    lowest, highest = clock_offset_ns([(100, 150, 110), (500, 150, 510)])
    assert lowest > highest
