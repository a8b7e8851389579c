# SPDX-License-Identifier: Apache-2.0
"""The circuit breaker, the adaptive deadline, and the link that joins them with the quota."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from qr_sampler.entropy import SourceLimits
from qr_sampler_grpc import link as link_module
from qr_sampler_grpc.adaptive_deadline import AdaptiveDeadline, DeadlineRule, percentile99
from qr_sampler_grpc.breaker import BreakerState, CircuitBreaker, CircuitOpenError
from qr_sampler_grpc.breaker_settings import BreakerOptions
from qr_sampler_grpc.link import Link, LinkFailure, Refused

REPEATABLE = settings(derandomize=True, database=None, deadline=None)
FAILURES, RECOVERY_S, LONGEST_S = 3, 1.0, 8.0


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class BreakerMachine(RuleBasedStateMachine):
    """Plays calls that overlap, and compares with a model that is written as a table.

    The model's calls carry the number of the era in which they began; what ends in another era
    changes nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = CircuitBreaker(
            FAILURES, recovery_s=RECOVERY_S, recovery_max_s=LONGEST_S, clock=self.clock
        )
        self.state = "closed"
        self.era = 0
        self.failed = 0
        self.opened = 0
        self.opened_at = 0.0
        self.calls: list[tuple[int, int]] = []

    def pause_s(self) -> float:
        return [RECOVERY_S, 2.0, 4.0, LONGEST_S][min(self.opened, 4) - 1]

    def become(self, state: str) -> None:
        self.state = state
        self.era += 1

    @rule()
    def enter(self) -> None:
        waited = self.clock.now_s >= self.opened_at + self.pause_s()
        if self.state == "half_open" or (self.state == "open" and not waited):
            with pytest.raises(CircuitOpenError, match=r"^it broke; "):
                self.breaker.enter()
            return
        if self.state == "open":
            self.become("half_open")
        self.calls.append((self.breaker.enter(), self.era))

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 50))
    def succeed(self, which: int) -> None:
        ticket, era = self.calls.pop(which % len(self.calls))
        self.breaker.succeed(ticket)
        if era != self.era:
            return
        self.failed = 0
        if self.state == "half_open":
            self.become("closed")
            self.opened = 0

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 50))
    def fail(self, which: int) -> None:
        ticket, era = self.calls.pop(which % len(self.calls))
        self.breaker.fail(ticket, "it broke")
        if era != self.era:
            return
        self.failed += 1
        if self.state == "half_open" or self.failed == FAILURES:
            self.become("open")
            self.opened_at = self.clock.now_s
            self.opened += 1
            self.failed = 0

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 50))
    def abandon(self, which: int) -> None:
        ticket, era = self.calls.pop(which % len(self.calls))
        self.breaker.abandon(ticket)
        if era == self.era and self.state == "half_open":
            self.become("open")

    # Halves and quarters, of which floating point loses nothing.
    @rule(quarters=st.integers(1, 40))
    def wait(self, quarters: int) -> None:
        self.clock.now_s += quarters / 4

    @invariant()
    def states_agree(self) -> None:
        assert self.breaker.state.value == self.state
        assert self.breaker.openings == self.opened


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(REPEATABLE, max_examples=150, stateful_step_count=60)


def opened(clock: Clock, **options: float) -> CircuitBreaker:
    breaker = CircuitBreaker(
        1, **{"recovery_s": 1.0, "recovery_max_s": 60.0, **options}, clock=clock
    )
    breaker.fail(breaker.enter(), "it broke")
    return breaker


def test_the_pause_doubles_up_to_its_limit() -> None:
    clock = Clock()
    breaker = opened(clock)
    pauses = []
    for _ in range(80):
        began_s = clock.now_s
        while True:
            try:
                probe = breaker.enter()
                break
            except CircuitOpenError:
                clock.now_s += 0.5
        pauses.append(clock.now_s - began_s)
        breaker.fail(probe, "it broke")
    assert pauses[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert set(pauses[8:]) == {60}


def test_a_limit_below_the_first_pause_holds_for_it() -> None:
    clock = Clock()
    breaker = opened(clock, recovery_s=10.0, recovery_max_s=2.0)
    clock.now_s += 2.0
    breaker.enter()


def test_the_pause_begins_anew_after_a_recovery() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now_s += 1.0
    breaker.fail(breaker.enter(), "it broke")
    clock.now_s += 2.0
    breaker.succeed(breaker.enter())
    assert breaker.openings == 0
    breaker.fail(breaker.enter(), "it broke again")
    with pytest.raises(CircuitOpenError, match=r"it broke again; not tried again for 1\.0 s"):
        breaker.enter()


def test_exactly_one_of_many_threads_probes() -> None:
    clock = Clock()
    breaker = opened(clock)
    for _ in range(50):
        clock.now_s += 60.0
        start = threading.Barrier(8)

        def enter(start: threading.Barrier = start) -> int | None:
            start.wait(60)
            try:
                return breaker.enter()
            except CircuitOpenError:
                return None

        with ThreadPoolExecutor(8) as pool:
            probes = [one.result() for one in [pool.submit(enter) for _ in range(8)]]
        (probe,) = [one for one in probes if one is not None]
        assert breaker.state is BreakerState.HALF_OPEN
        with pytest.raises(CircuitOpenError, match="whether it has recovered is being tried"):
            breaker.enter()
        breaker.fail(probe, "it broke")


@pytest.mark.parametrize("late", ["succeed", "fail", "abandon"])
def test_what_began_before_the_circuit_opened_says_nothing_about_the_probe(late: str) -> None:
    clock = Clock()
    breaker = CircuitBreaker(1, clock=clock)
    old, first = breaker.enter(), breaker.enter()
    breaker.fail(first, "it broke")
    clock.now_s += 1.0
    probe = breaker.enter()
    arguments = (old, "late") if late == "fail" else (old,)
    getattr(breaker, late)(*arguments)
    assert breaker.state is BreakerState.HALF_OPEN
    breaker.succeed(probe)
    assert breaker.state is BreakerState.CLOSED


def test_a_quiet_circuit_takes_no_lock() -> None:
    breaker = CircuitBreaker(2)
    with breaker._lock:
        # It is not reentrant: whoever took it would hang.
        breaker.succeed(breaker.enter())
    breaker.fail(breaker.enter(), "down")
    assert breaker._quiet_epoch is None
    breaker.succeed(breaker.enter())
    breaker.fail(breaker.enter(), "down")
    assert breaker.state is BreakerState.CLOSED
    breaker.fail(breaker.enter(), "down")
    assert breaker.state is BreakerState.OPEN
    with pytest.raises(CircuitOpenError):
        breaker.enter()


def test_an_abandoned_probe_leaves_the_next_call_the_chance() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now_s += 1.0
    breaker.abandon(breaker.enter())
    assert breaker.state is BreakerState.OPEN
    breaker.succeed(breaker.enter())
    assert breaker.state is BreakerState.CLOSED


LATENCIES = st.lists(st.floats(0.0, 1e6), min_size=1, max_size=250)


@REPEATABLE
@given(LATENCIES)
def test_p99_is_the_inverted_distribution_function(values: list[float]) -> None:
    expected = np.quantile(np.array(values), 0.99, method="inverted_cdf")
    assert percentile99(values) == expected


def test_p99_is_exceeded_by_at_most_a_hundredth_whatever_their_number() -> None:
    for n in [*range(1, 1201), 9_999, 10_000]:
        rank = percentile99(range(1, n + 1))
        assert 100 * rank >= 99 * n > 100 * (rank - 1)


@REPEATABLE
@given(
    LATENCIES,
    st.integers(1, 2**24),
    st.floats(0.0, 100.0),
    st.floats(0.0, 100.0),
    st.floats(1.0, 10.0),
    st.floats(1.0, 1e5),
)
def test_the_deadline_is_what_the_rule_says(
    latencies: list[float],
    payload: int,
    floor_ms: float,
    per_mib: float,
    multiplier: float,
    cap_ms: float,
) -> None:
    deadline = AdaptiveDeadline(
        DeadlineRule(
            window_size=100,
            min_samples=5,
            floor_ms=floor_ms,
            floor_ms_per_mib=per_mib,
            multiplier=multiplier,
            cap_ms=cap_ms,
        )
    )
    for latency in latencies:
        deadline.observe(payload, latency)
    window = np.array(latencies[-100:])
    p99 = float(np.quantile(window, 0.99, method="inverted_cdf"))
    due = min(max(floor_ms + per_mib * payload / 2**20, multiplier * p99), cap_ms)
    assert deadline.milliseconds(payload) == pytest.approx(cap_ms if len(window) < 5 else due)


def test_the_floor_grows_with_the_payload() -> None:
    deadline = AdaptiveDeadline(DeadlineRule(min_samples=1))
    for payload in (1, 20_480, 2**20, 64 * 20_480, 2**24):
        deadline.observe(payload, 0.0)
        assert deadline.milliseconds(payload) == pytest.approx(5.0 + 20.0 * payload / 2**20)


def test_payloads_of_another_magnitude_do_not_count() -> None:
    deadline = AdaptiveDeadline(DeadlineRule(min_samples=1))
    deadline.observe(20_480, 40.0)
    assert deadline.milliseconds(20_480) == 60.0
    assert deadline.milliseconds(16_384) == 60.0
    assert deadline.milliseconds(16_383) == 5000.0
    assert deadline.milliseconds(32_768) == 5000.0
    assert deadline.milliseconds(64 * 20_480) == 5000.0


def starved(latency_ms: float, draws: int, *, count_lapses: bool) -> tuple[int, float]:
    """Returns how many draws got an answer from a server that has become slower, and the deadline.

    The window is full of its fast days.
    """
    deadline = AdaptiveDeadline(DeadlineRule())
    for _ in range(100):
        deadline.observe(1024, 2.0)
    answered = 0
    for _ in range(draws):
        allowed_ms = deadline.milliseconds(1024)
        if latency_ms <= allowed_ms:
            answered += 1
            deadline.observe(1024, latency_ms)
        elif count_lapses:
            deadline.observe(1024, allowed_ms)
    return answered, deadline.milliseconds(1024)


def test_timeouts_count_or_a_slower_server_would_be_starved_for_ever() -> None:
    answered, deadline_ms = starved(20.0, 100, count_lapses=True)
    assert answered > 85
    assert deadline_ms == 30.0
    assert starved(20.0, 100_000, count_lapses=False) == (0, pytest.approx(5.0 + 20 / 1024))


SIZES = (1024,)
NO_LIMITS = SourceLimits()


class Server:
    """Stands for the other end: takes as long as a test says, on a clock that only it moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = 10**12
        self.latency_ms = 1.0
        self.fetches = 0
        self.allowed_ms: list[float] = []
        self.failure: LinkFailure | None = None
        stand_in = type("time", (), {"monotonic_ns": lambda: self.now_ns})
        monkeypatch.setattr(link_module, "time", stand_in)

    def fetch(self, until_ns: int) -> str:
        self.fetches += 1
        allowed_ns = until_ns - self.now_ns
        self.allowed_ms.append(allowed_ns / 1e6)
        latency_ns = round(self.latency_ms * 1e6)
        self.now_ns += max(min(latency_ns, allowed_ns), 0)
        if self.failure is not None:
            raise self.failure
        if latency_ns > allowed_ns:
            raise LinkFailure("too late", lapsed=True)
        return "bytes"

    def draw(self, link: Link, timeout_ms: float = 5000.0) -> str:
        return link.draw(SIZES, self.now_ns + round(timeout_ms * 1e6), self.fetch)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(monkeypatch)


def linked(limits: SourceLimits = NO_LIMITS, timeout_ms: float = 5000.0, **options: object) -> Link:
    return Link(limits, BreakerOptions.checked(**options), timeout_ms)


def wait_s(link: Link, seconds: float) -> None:
    """Lets the pause of an open circuit pass."""
    link._breaker._retry_at -= seconds


def test_a_draw_gets_what_the_server_says(server: Server) -> None:
    link = linked()
    assert (link.status().available, link.status().reason) == (True, "not contacted yet")
    assert server.draw(link) == "bytes"
    assert (link.status().available, link.status().reason) == (True, "")
    assert server.allowed_ms == [5000.0]


def test_an_open_circuit_asks_nothing_and_spends_nothing(server: Server) -> None:
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
    wait_s(link, 1.0)
    assert server.draw(link) == "bytes"
    assert link.breaker_state is BreakerState.CLOSED


def test_a_refusal_by_the_quota_is_no_failure_and_spends_nothing(server: Server) -> None:
    link = linked(SourceLimits(max_requests_per_minute=2, max_bytes_per_day=5000))
    with pytest.raises(Refused, match="a draw of 3 requests never fits into 2 a minute"):
        link.draw((1, 1, 1), server.now_ns + 10**9, server.fetch)
    for _ in range(9):
        with pytest.raises(Refused, match="never fits into 5000 a day"):
            link.draw((5001,), server.now_ns + 10**9, server.fetch)
    assert server.fetches == 0
    assert link.breaker_state is BreakerState.CLOSED
    assert [server.draw(link) for _ in range(2)] == ["bytes", "bytes"]
    with pytest.raises(Refused, match="2 of 2 requests were made within a minute"):
        server.draw(link)


def test_a_probe_that_the_quota_refuses_is_given_back(server: Server) -> None:
    link = linked(SourceLimits(max_requests_per_minute=1), max_consecutive_failures=1)
    server.failure = LinkFailure("it broke")
    with pytest.raises(LinkFailure):
        server.draw(link)
    wait_s(link, 1.0)
    for _ in range(3):
        with pytest.raises(Refused, match="1 of 1 requests"):
            server.draw(link)
    assert link.breaker_state is BreakerState.OPEN


def test_patience_doubles_with_each_probe_that_fails(server: Server) -> None:
    link = linked()
    for _ in range(100):
        server.draw(link)
    server.latency_ms = 60.0
    usual = 5.0 + 20 / 1024
    server.allowed_ms.clear()
    for _ in range(3):
        with pytest.raises(LinkFailure):
            server.draw(link)
    for _ in range(4):
        wait_s(link, 60.0)
        try:
            server.draw(link)
        except LinkFailure:
            continue
        break
    assert server.allowed_ms[0] == pytest.approx(usual)
    growth = [later / usual for later in server.allowed_ms[3:]]
    # The time-outs raise the P99 as well, hence at least the power of two.
    assert all(grown >= 2**n * 0.99 for n, grown in enumerate(growth, start=1)), growth
    assert link.breaker_state is BreakerState.CLOSED


def test_no_patience_exceeds_the_timeout(server: Server) -> None:
    link = linked(timeout_ms=50.0)
    server.latency_ms = 1e9
    for _ in range(20):
        wait_s(link, 60.0)
        with pytest.raises(LinkFailure):
            server.draw(link, 50.0)
    assert set(server.allowed_ms) == {50.0}


def test_a_disabled_breaker_never_opens_and_allows_the_whole_timeout(server: Server) -> None:
    link = linked(enabled=False)
    for _ in range(300):
        server.draw(link)
    server.failure = LinkFailure("it broke")
    for _ in range(1000):
        with pytest.raises(LinkFailure):
            server.draw(link)
    assert link.breaker_state is BreakerState.CLOSED
    assert server.fetches == 1300
    assert set(server.allowed_ms) == {5000.0}


def test_a_link_learns_from_its_timeouts(server: Server) -> None:
    link = linked(max_consecutive_failures=1000)
    for _ in range(100):
        server.draw(link)
    server.latency_ms = 20.0
    answered = 0
    for _ in range(100):
        try:
            server.draw(link)
        except LinkFailure:
            continue
        answered += 1
    assert answered > 85


def test_a_wait_that_was_cut_short_does_not_pass_for_a_fast_answer(server: Server) -> None:
    link = linked(max_consecutive_failures=1000)
    for _ in range(100):
        server.latency_ms = 40.0
        server.draw(link)
    for _ in range(100):
        with pytest.raises(LinkFailure):
            server.draw(link, timeout_ms=0.001)
    server.latency_ms = 40.0
    assert server.draw(link) == "bytes"


def test_failures_that_are_no_timeouts_teach_no_latency(server: Server) -> None:
    link = linked(max_consecutive_failures=1000)
    server.failure = LinkFailure("refused")
    for _ in range(200):
        with pytest.raises(LinkFailure):
            server.draw(link)
    assert set(server.allowed_ms) == {5000.0}


def test_an_interrupted_probe_does_not_block_the_circuit(server: Server) -> None:
    link = linked(max_consecutive_failures=1)

    def interrupted(_: int) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        link.draw(SIZES, server.now_ns + 10**9, interrupted)
    assert link.breaker_state is BreakerState.OPEN
    with pytest.raises(Refused, match="the draw was interrupted"):
        server.draw(link)
    wait_s(link, 1.0)
    assert server.draw(link) == "bytes"


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
    assert math.isfinite(link._deadline.milliseconds(1024))
