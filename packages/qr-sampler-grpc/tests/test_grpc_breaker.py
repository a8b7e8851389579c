# SPDX-License-Identifier: Apache-2.0
"""The link that joins the quota of a server with the patience for it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from qr_sampler.entropy import SourceLimits
from qr_sampler.entropy.breaker import BreakerState
from qr_sampler.entropy.breaker_settings import BreakerOptions
from qr_sampler.testing.paced_source import PacedSource, wait_s
from qr_sampler_grpc.link import Link, LinkFailure, Refused

SIZES = (1024,)
NO_LIMITS = SourceLimits()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> PacedSource:
    return PacedSource(monkeypatch, SIZES, LinkFailure)


def linked(limits: SourceLimits = NO_LIMITS, timeout_ms: float = 5000.0, **options: object) -> Link:
    return Link(limits, BreakerOptions.checked(**options), timeout_ms)


def test_a_draw_gets_what_the_server_says(server: PacedSource) -> None:
    link = linked()
    assert (link.status().available, link.status().reason) == (True, "not contacted yet")
    assert server.draw(link) == "bytes"
    assert (link.status().available, link.status().reason) == (True, "")
    assert server.allowed_ms == [5000.0]


def test_an_open_circuit_asks_nothing_and_spends_nothing(server: PacedSource) -> None:
    link = linked(SourceLimits(max_requests_per_minute=4))
    server.failure = LinkFailure("it broke")
    for _ in range(3):
        with pytest.raises(LinkFailure):
            server.draw(link)
    for _ in range(10):
        with pytest.raises(Refused, match=r"it broke; not tried again for"):
            server.draw(link)
    assert server.fetches == 3
    assert not link.status().available
    assert link.status().reason.startswith("it broke; not tried again")
    server.failure = None
    wait_s(link._patience, 1.0)
    assert server.draw(link) == "bytes"
    assert link._patience.state is BreakerState.CLOSED


def test_a_refusal_by_the_quota_is_no_failure_and_spends_nothing(server: PacedSource) -> None:
    link = linked(SourceLimits(max_requests_per_minute=2, max_bytes_per_day=5000))
    with pytest.raises(Refused, match="a draw of 3 requests never fits into 2 a minute"):
        link.draw((1, 1, 1), server.now_ns + 10**9, server.fetch)
    for _ in range(9):
        with pytest.raises(Refused, match="never fits into 5000 a day"):
            link.draw((5001,), server.now_ns + 10**9, server.fetch)
    assert server.fetches == 0
    assert link._patience.state is BreakerState.CLOSED
    assert [server.draw(link) for _ in range(2)] == ["bytes", "bytes"]
    with pytest.raises(Refused, match="2 of 2 requests were made within a minute"):
        server.draw(link)


def test_a_probe_that_the_quota_refuses_is_given_back(server: PacedSource) -> None:
    link = linked(SourceLimits(max_requests_per_minute=1), max_consecutive_failures=1)
    server.failure = LinkFailure("it broke")
    with pytest.raises(LinkFailure):
        server.draw(link)
    wait_s(link._patience, 1.0)
    for _ in range(3):
        with pytest.raises(Refused, match="1 of 1 requests"):
            server.draw(link)
    assert link._patience.state is BreakerState.OPEN


def test_threads_share_a_link() -> None:
    link = linked(SourceLimits(max_requests_per_minute=500))
    until_ns = time.monotonic_ns() + 60 * 10**9
    outcomes: list[str] = []

    def draw(fetch: Callable[[int], str]) -> None:
        for _ in range(100):
            try:
                outcomes.append(link.draw(SIZES, until_ns, fetch))
            except Refused:
                outcomes.append("refused")

    with ThreadPoolExecutor(8) as pool:
        for running in [pool.submit(draw, lambda _: "bytes") for _ in range(8)]:
            running.result()
    assert outcomes.count("bytes") == 500
    assert outcomes.count("refused") == 300
    assert math.isfinite(link._patience._deadline.milliseconds(1024))
