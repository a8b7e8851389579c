# SPDX-License-Identifier: Apache-2.0
"""Probes of healthy servers whose quota is small or used up: kept, waited for, never blamed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from qr_sampler.entropy import SourceLimits
from qr_sampler_grpc.conformance import Caller, load_cases, run_cases
from qr_sampler_grpc.device import Device
from qr_sampler_grpc.direct.server import serve_direct
from qr_sampler_grpc.link.quota_pacer import QUIET_S, QuotaPacer, QuotaUsedUpError
from qr_sampler_grpc.probe import Plan, ProbeReport, examine, target_for
from qr_sampler_grpc.probe.size_limit import MOST_SEARCHED, _search
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest, EntropyResponse
from qr_sampler_grpc.server import serve

THOROUGH = Plan(draws=6, draw_bytes=2048, search_bytes=0, thorough=True)


class Time:
    """Seconds that pass when somebody sleeps; the servers here count their quotas by it."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.told: list[str] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def pacer(self, limits: SourceLimits | None = None) -> QuotaPacer:
        return QuotaPacer(limits, tell=self.told.append, clock=self, sleep=self.sleep)


@pytest.fixture
def time() -> Time:
    return Time()


@contextmanager
def unwatched(_description: str) -> Iterator[Callable[[int, int], None]]:
    yield lambda done, total: None


def probed(time: Time, address: str, profile: str = "", plan: Plan = THOROUGH) -> ProbeReport:
    target = target_for(address, profile)
    return examine(target, plan.checked(target), unwatched, time.pacer(target.limits))


def device(time: Time, **quotas: int) -> Device:
    return Device(os.urandom, "bench", clock=time, **quotas)


def test_a_quota_that_only_the_server_knows_is_waited_for(time: Time) -> None:
    # Eight calls at once are one case; all in all there are more than sixty requests.
    with serve(device(time, requests_per_minute=12), "127.0.0.1:0") as server:
        report = probed(time, server.address)
    assert report.verdict == "usable"
    assert [(mode.works, mode.draws) for mode in report.modes] == [(True, 7)] * 3
    outcomes = {case.outcome for case in report.cases}
    assert outcomes == {"passed", "not offered"}
    assert time.now_s > 1_000.0 + 4 * QUIET_S
    assert all(words.startswith("waiting 62 s: ") for words in time.told)
    assert all("quota of 12 requests a minute" in words for words in time.told)


def test_the_quota_of_the_settings_is_never_exceeded(
    time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QR_GRPC_MAX_REQUESTS_PER_MINUTE", "15")
    asked_at: list[float] = []

    def generate(n: int) -> bytes:
        asked_at.append(time.now_s)
        return os.urandom(n)

    # The server would refuse what exceeds the quota, and the device sees what does not.
    own = Device(generate, "bench", clock=time, requests_per_minute=15)
    with serve(own, "127.0.0.1:0") as server:
        target = target_for(server.address)
        plan = THOROUGH.checked(target)
        report = examine(target, plan, unwatched, time.pacer(target.limits))
    assert report.verdict == "usable"
    assert max(sum(start <= at < start + 60 for at in asked_at) for start in asked_at) <= 15
    assert len(asked_at) <= plan.most_requests(target)
    assert plan.least_minutes(target) * 60 <= time.now_s - 1_000.0
    assert report.spent_bytes <= plan.most_bytes(target)


def test_a_used_up_quota_of_a_day_is_no_fault(time: Time) -> None:
    with serve(device(time, bytes_per_day=4096), "127.0.0.1:0") as server:
        target_source = target_for(server.address).source("unary", 4096)
        target_source.draw(4096)
        target_source.close()
        report = probed(time, server.address)
    assert report.verdict == "not judged"
    assert not report.usable
    assert all(mode.exhausted and not mode.works for mode in report.modes)
    assert all("4096 bytes a day" in mode.reason for mode in report.modes)
    # One quiet minute, and not one for each mode and case.
    assert time.now_s - 1_000.0 == QUIET_S
    assert all(case.outcome != "failed" for case in report.cases)


def test_a_quota_that_ends_during_the_cases_leaves_them_unjudged(time: Time) -> None:
    with serve(device(time, bytes_per_day=3 * 7 * 2048 + 500), "127.0.0.1:0") as server:
        report = probed(time, server.address)
    assert [mode.works for mode in report.modes] == [True, True, True]
    outcomes = {case.case: case.outcome for case in report.cases}
    assert outcomes["length-13312"] == outcomes["streams-at-once"] == "not judged"
    assert outcomes["length-1"] == outcomes["health"] == "passed"
    assert "failed" not in outcomes.values()
    # Conformance was asked for and cannot be told; without that question it is usable.
    assert report.verdict == "not judged"
    assert replace(report, thorough=False).verdict == "usable"


def test_a_direct_server_is_waited_for(time: Time, socket_path: Path) -> None:
    with serve_direct(device(time, requests_per_minute=5), f"unix://{socket_path}") as server:
        plan = Plan(draws=12, draw_bytes=512, search_bytes=0)
        report = probed(time, server.address, "direct", plan)
    assert report.verdict == "usable"
    assert report.modes[0].draws == 13
    assert len(time.told) == 2
    assert report.provenance is not None
    assert report.provenance.sequence_id_echoed is True


def test_a_request_that_is_always_too_much_is_a_failure_of_its_case(
    time: Time, scripted: Callable[..., Any]
) -> None:
    def answer(message: bytes, context: grpc.ServicerContext) -> bytes:
        request = EntropyRequest.FromString(message)
        if request.bytes_needed > 2**20:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too large")
        return EntropyResponse(data=os.urandom(max(0, request.bytes_needed))).SerializeToString()

    channel = grpc.insecure_channel(scripted(answer).address)
    cases = [case for case in load_cases() if case.name in ("size-over-limit", "length-1")]
    with channel:
        results = run_cases(Caller(channel=channel, pacer=time.pacer()), cases)
        outcomes = {result.case: result.outcome for result in results}
    assert outcomes == {"length-1": "passed", "size-over-limit": "failed"}


def test_a_case_of_more_requests_than_the_quota_is_not_run(
    time: Time, scripted: Callable[..., Any]
) -> None:
    server = scripted(lambda *_: b"")
    (case,) = (case for case in load_cases() if case.name == "concurrent-calls")
    pacer = time.pacer(SourceLimits(max_requests_per_minute=7))
    with grpc.insecure_channel(server.address) as channel:
        (result,) = run_cases(Caller(channel=channel, pacer=pacer), [case])
    assert result.outcome == "not judged"
    assert "8 requests never fits into 7 a minute" in result.words
    assert server.requests == []


def test_a_pacer_gives_up_once_and_for_all(time: Time) -> None:
    pacer = time.pacer(SourceLimits(max_bytes_per_day=100))
    pacer.admit(1, 100)
    with pytest.raises(QuotaUsedUpError, match="within a day"):
        pacer.admit(1, 1)
    assert pacer.sit_out("enough")
    pacer.note_answer()
    assert pacer.sit_out("enough")
    assert not pacer.sit_out("enough")
    with pytest.raises(QuotaUsedUpError, match="enough"):
        pacer.admit(0, 0)


def test_a_server_cannot_keep_a_search_going() -> None:
    asked: list[int] = []

    def ask(n: int) -> str:
        asked.append(n)
        # A hint to the next smaller size, which is refused as well, and so on.
        return "" if n <= 2**19 else f"at most {n - 2}"

    limit = _search(ask, 1, 2**30)
    assert len(asked) == MOST_SEARCHED
    assert limit.accepted_bytes == 2**19


@pytest.mark.parametrize(
    ("variables", "profile", "says"),
    [
        ({"QR_GRPC_COMMITMENT": "false"}, "", "not sent: QR_GRPC_COMMITMENT is false"),
        ({}, "custom", "cannot be sent in this protocol"),
        ({}, "", ""),
    ],
)
def test_why_there_is_no_commitment_is_said_as_it_is(
    time: Time,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    profile: str,
    says: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with serve(os.urandom, "127.0.0.1:0") as server:
        report = probed(time, server.address, profile, Plan(draws=2, draw_bytes=64, search_bytes=0))
    assert report.provenance is not None
    assert report.provenance.commitment_words == says
    assert (report.provenance.commitment_echoed is None) is bool(says)


def test_a_sequence_id_that_was_not_answered_is_not_known(
    time: Time, scripted: Callable[..., Any]
) -> None:
    served = iter(range(4))

    def answer(message: bytes, context: grpc.ServicerContext) -> bytes:
        request = EntropyRequest.FromString(message)
        if next(served, None) is None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        data = os.urandom(request.bytes_needed)
        return EntropyResponse(data=data, sequence_id=request.sequence_id).SerializeToString()

    plan = Plan(draws=3, draw_bytes=64, search_bytes=0)
    report = probed(time, scripted(answer).address, plan=plan)
    assert report.provenance is not None
    assert report.provenance.sequence_id_echoed is None
    assert "was not answered" in report.provenance.sequence_id_words


def test_the_largest_request_of_the_settings_is_respected(
    time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QR_GRPC_MAX_BYTES_PER_REQUEST", "700")
    sizes: list[int] = []

    def generate(n: int) -> bytes:
        sizes.append(n)
        return os.urandom(n)

    with serve(generate, "127.0.0.1:0") as server:
        target = target_for(server.address)
        plan = Plan(draws=4, draw_bytes=2048).checked(target)
        report = examine(target, plan, unwatched, time.pacer())
    assert max(sizes) <= 700
    assert report.size_limit is None
    assert report.configuration["QR_GRPC_MAX_BYTES_PER_REQUEST"] == "700"
    assert len(sizes) <= plan.most_requests(target)
