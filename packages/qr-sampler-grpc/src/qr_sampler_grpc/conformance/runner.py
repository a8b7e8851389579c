# SPDX-License-Identifier: Apache-2.0
"""Runs conformance cases against a server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final

import grpc

from qr_sampler_grpc.conformance.answers import answers_of, parsed
from qr_sampler_grpc.conformance.calls import Exchange, Metadata, exchange
from qr_sampler_grpc.conformance.cases import Case, CaseCall, ExpectedAnswer, load_cases
from qr_sampler_grpc.conformance.results import (
    CaseResult,
    NonconformanceError,
    NotOfferedError,
)
from qr_sampler_grpc.conformance.rules import RULES, Answered
from qr_sampler_grpc.connection.credentials import ApiKey
from qr_sampler_grpc.link.quota_pacer import QuotaPacer, QuotaUsedUpError
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyResponse
from qr_sampler_grpc.protocol.attestation import VerificationKey

__all__ = ["Caller", "run_cases"]

_WRONG_KEY: Final = "not-the-key-of-this-server"
_SERVICE: Final = b"qr_entropy.EntropyService"
_MAX_DETAILS: Final = 200
_BY_STATUS: Final[Mapping[str, str]] = {
    "health": "UNIMPLEMENTED",
    "default_block": "INVALID_ARGUMENT",
}
"""Features whose absence shows in a status, and in which. Any stream may be unimplemented."""
_BY_FIELD: Final[Mapping[str, Callable[[EntropyResponse], object]]] = {
    "sequence_echo": lambda answer: answer.sequence_id,
    "commitment": lambda answer: answer.commitment,
    "device_id": lambda answer: answer.device_id,
    "timestamp": lambda answer: answer.generation_timestamp_ns,
    "signature": lambda answer: answer.signature,
}
"""Features whose absence shows in an empty field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """How the server is called."""

    channel: grpc.Channel = field(repr=False)
    """Connection to the server."""
    key: ApiKey | None = None
    """API key of the calls, if the server asks for one."""
    verification_key: VerificationKey | None = None
    """Public key of the device, if it is known."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """Methods that the server has under another path than the contract's, by the contract's."""
    timeout_s: float = 10.0
    """Longest that a call may take, in seconds."""
    pacer: QuotaPacer = field(default_factory=QuotaPacer, repr=False)
    """Paces the calls to the server's quotas."""


def run_cases(caller: Caller, cases: Iterable[Case]) -> Iterator[CaseResult]:
    """Yields the result of each of *cases*; runs the next one when its result is asked for.

    Args:
        caller: How the server is called.
        cases: See :func:`~qr_sampler_grpc.conformance.load_cases`.
    """
    for case in cases:
        yield _run(caller, case)


def _run(caller: Caller, case: Case) -> CaseResult:
    result = CaseResult(
        case=case.name,
        checks=case.checks,
        level=case.level,
        outcome="passed",
        words="",
        spent_bytes=0,
    )
    if case.feature == "api_key" and caller.key is None:
        return replace(result, outcome="not offered", words="no API key is configured")
    try:
        exchanges, wasted_bytes = _paced_exchanges(caller, case)
    except QuotaUsedUpError as error:
        return replace(result, outcome="not judged", words=str(error))
    result = replace(result, spent_bytes=wasted_bytes + _spent(exchanges))
    try:
        return replace(result, words=_judged(caller, case, exchanges))
    except NotOfferedError as absence:
        return replace(result, outcome="not offered", words=str(absence))
    except NonconformanceError as fault:
        return replace(result, outcome="failed", words=str(fault))


def _paced_exchanges(caller: Caller, case: Case) -> tuple[list[Exchange], int]:
    """Returns the calls of *case* as they went, and the bytes of an attempt that met a quota.

    Raises:
        QuotaUsedUpError: When there is a quota that does not recover soon.
    """
    wasted = 0
    while True:
        if case.requests:
            caller.pacer.admit(case.requests, case.data_bytes)
        exchanges = _exchanges(caller, case)
        refused = [done for done in exchanges if _is_exhausted(done)]
        if not refused:
            caller.pacer.note_answer()
            return exchanges, wasted
        # After a quiet minute, this one request may exceed the quota by itself.
        if caller.pacer.waited_without_success and _answers(caller):
            caller.pacer.note_answer()
            if case.data_bytes:
                raise QuotaUsedUpError(_words(caller, refused[0]))
            return exchanges, wasted
        if not caller.pacer.sit_out(_words(caller, refused[0])):
            raise QuotaUsedUpError(_words(caller, refused[0]))
        wasted += _spent(exchanges)


def _is_exhausted(done: Exchange) -> bool:
    """Whether a call met a quota, which tells nothing about how the server keeps the contract."""
    return done.status == "RESOURCE_EXHAUSTED" and done.status not in done.call.status


def _answers(caller: Caller) -> bool:
    """Whether a request for a single byte is answered."""
    return all(not _is_exhausted(done) for done in _exchanges(caller, load_cases()[0]))


def _words(caller: Caller, done: Exchange) -> str:
    return f"the server has reached a limit{_said(caller, done)}"


def _exchanges(caller: Caller, case: Case) -> list[Exchange]:
    if case.concurrent:
        with ThreadPoolExecutor(len(case.calls)) as threads:
            return list(threads.map(lambda call: _exchange(caller, call), case.calls))
    done: list[Exchange] = []
    for call in case.calls:
        if done:
            time.sleep(case.pause_s)
        done.append(_exchange(caller, call))
    return done


def _exchange(caller: Caller, call: CaseCall) -> Exchange:
    path = caller.paths.get(call.method, call.method)
    return exchange(
        caller.channel, _addressed(caller, call), path, _metadata(caller, call), caller.timeout_s
    )


def _addressed(caller: Caller, call: CaseCall) -> CaseCall:
    """Returns *call* with the service under its name on this server."""
    path = next(iter(caller.paths.values()), "")
    service = path.strip("/").rpartition("/")[0].encode() or _SERVICE

    def renamed(answer: ExpectedAnswer) -> ExpectedAnswer:
        return replace(answer, contains=answer.contains.replace(_SERVICE, service))

    return replace(call, answers=tuple(renamed(answer) for answer in call.answers))


def _metadata(caller: Caller, call: CaseCall) -> Metadata:
    if caller.key is None or call.api_key == "none":
        return ()
    return ((caller.key.header, _WRONG_KEY),) if call.api_key == "wrong" else caller.key.metadata


def _spent(exchanges: Sequence[Exchange]) -> int:
    drawn = [done for done in exchanges if done.call.method.encode().startswith(b"/" + _SERVICE)]
    return sum(_random_bytes(message) for done in drawn for message in done.messages)


def _random_bytes(message: bytes) -> int:
    try:
        return len(parsed(message).data)
    except NonconformanceError:
        return len(message)


def _judged(caller: Caller, case: Case, exchanges: Sequence[Exchange]) -> str:
    """Returns the remarks on a case that has passed."""
    answered: list[Answered] = []
    for done in exchanges:
        _check_status(caller, case, done)
        if done.status == "OK":
            answered += [(done, answer) for answer in answers_of(done)]
    _check_offered(case, answered)
    remarks = [RULES[rule](answered, caller.verification_key) for rule in case.rules]
    return "; ".join(filter(None, remarks))


def _check_status(caller: Caller, case: Case, done: Exchange) -> None:
    if done.status in done.call.status:
        return
    no_stream = done.call.kind == "stream" and done.status == "UNIMPLEMENTED"
    if no_stream or done.status == _BY_STATUS.get(case.feature):
        raise NotOfferedError(f"the call ended with {done.status}{_said(caller, done)}")
    if done.status == "OK" and case.feature == "commitment":
        # A server that knows no commitments has no opinion about their length.
        _check_offered(case, [(done, parsed(message)) for message in done.messages])
    expected = " or ".join(sorted(done.call.status))
    raise NonconformanceError(
        f"the call ended with {done.status}{_said(caller, done)} instead of {expected}"
    )


def _said(caller: Caller, done: Exchange) -> str:
    details = done.details if caller.key is None else caller.key.redact(done.details)
    return f" ({details[:_MAX_DETAILS]})" if details else ""


def _check_offered(case: Case, answered: Sequence[Answered]) -> None:
    value = _BY_FIELD.get(case.feature)
    if value is not None and answered and not any(value(answer) for _, answer in answered):
        raise NotOfferedError("the answer has no such field")
