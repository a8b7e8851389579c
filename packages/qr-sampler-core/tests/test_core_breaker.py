# SPDX-License-Identifier: Apache-2.0
"""The circuit breaker: a model of it, its pauses, its probes, and threads that share it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from qr_sampler.entropy.breaker import BreakerState, CircuitBreaker, CircuitOpenError

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


def test_why_calls_are_refused_can_be_asked_without_making_one() -> None:
    clock = Clock()
    breaker = CircuitBreaker(1, recovery_s=2.0, clock=clock)
    assert breaker.refusal() is None
    breaker.fail(breaker.enter(), "it broke")
    assert breaker.refusal() == "it broke; not tried again for 2.0 s"
    clock.now_s += 2.0
    assert breaker.refusal() == "it broke; the next draw tries it"
    assert breaker.state is BreakerState.OPEN
    probe = breaker.enter()
    assert breaker.refusal() == "it broke; whether it has recovered is being tried"
    breaker.succeed(probe)
    assert breaker.refusal() is None
