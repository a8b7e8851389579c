# SPDX-License-Identifier: Apache-2.0
"""Sources that are watched: start-up, alarms, recovery, quotas, threads, forks, defects."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qr_sampler import (
    DroppedBytes,
    EntropySource,
    EntropyUnavailableError,
    FallbackEntropySource,
    GuardedSource,
    SourceLimits,
)
from qr_sampler.entropy.row_context import RowContext
from qr_sampler.health import Alarm, HealthMonitor, HealthOptions, HealthPolicy, HealthState
from qr_sampler.health.recovery import RecoveryPause
from qr_sampler.health.watch import HealthWatch
from qr_sampler.testing import ConstantEntropySource

WATCHED = HealthOptions()
NEVER_MS = 60_000.0
BLOCK = 10_240


class Device(EntropySource):
    """Good bytes of a generator, or what *fault* makes of them."""

    blocks = False
    conditioning = "none"
    min_entropy_per_byte = 8.0

    def __init__(self, name: str = "device", seed: int = 1, **limits: Any) -> None:
        self._name = name
        self._rng = np.random.default_rng(seed)
        self._lock = threading.Lock()
        self._limits = SourceLimits(**limits)
        self.fault: Callable[[bytes], bytes] | None = None
        self.requests: list[int] = []

    @property
    def name(self) -> str:
        return self._name

    @property
    def limits(self) -> SourceLimits:
        return self._limits

    def get_random_bytes(self, n: int) -> bytes:
        with self._lock:
            self.requests.append(n)
            data = self._rng.bytes(n)
        return data if self.fault is None else self.fault(data)


class Clock:
    """Seconds that pass when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of every watch that is made from now on."""
    clock = Clock()
    monkeypatch.setitem(HealthWatch.__init__.__kwdefaults__, "clock", clock)
    return clock


def stuck(data: bytes) -> bytes:
    return bytes([7]) * len(data)


def watched(
    source: EntropySource, dropped: list[DroppedBytes] | None = None, **options: Any
) -> GuardedSource:
    kept = [] if dropped is None else dropped
    return GuardedSource(source, NEVER_MS, kept.append, health=HealthOptions(**options))


def refusal(guard: GuardedSource, n: int = BLOCK) -> EntropyUnavailableError:
    with pytest.raises(EntropyUnavailableError) as caught:
        guard.draw(n)
    return caught.value


def shown(dropped: list[DroppedBytes]) -> list[tuple[int, str]]:
    return [(each.count, each.reason) for each in dropped]


def test_the_start_up_test_comes_with_the_first_draw_or_earlier_and_is_dropped() -> None:
    dropped: list[DroppedBytes] = []
    device = Device()
    guard = watched(device, dropped)
    assert device.requests == []
    assert (guard.health.state, guard.health.reason) == (
        HealthState.UNTESTED,
        "no start-up test yet",
    )
    assert guard.draw(7).health is HealthState.OK
    assert device.requests == [1024, 7]
    assert shown(dropped) == [(1024, "startup_test")]
    assert guard.health.state is HealthState.OK
    earlier = watched(other := Device())
    earlier.start_up()
    earlier.start_up()
    assert earlier.draw(7).health is HealthState.OK
    assert other.requests == [1024, 7]


def test_no_byte_is_used_from_the_alarm_on_until_a_start_up_test_is_passed(clock: Clock) -> None:
    dropped: list[DroppedBytes] = []
    device = Device()
    guard = watched(device, dropped)
    guard.draw(BLOCK)
    device.fault = stuck
    error = refusal(guard)
    assert error.reason.startswith("health: repetition_count 9 >= 9; ")
    assert "QR_HEALTH=false" in error.reason
    assert error.retry_after_s == 60.0
    assert shown(dropped)[1:] == [(BLOCK, "health: repetition_count 9 >= 9")]
    health = guard.health
    assert (health.state, health.tested, health.retry_after_s) == (HealthState.FAILED, "raw", 60.0)
    assert health.alarms == {"repetition_count": 1}
    # What is wrong with it is over, but nobody asks it before a minute is.
    device.fault, asked = None, len(device.requests)
    clock.now += 59.0
    assert refusal(guard).reason == error.reason
    assert len(device.requests) == asked
    clock.now += 1.0
    assert guard.draw(BLOCK).health is HealthState.OK
    assert device.requests[asked:] == [1024, BLOCK]
    assert shown(dropped)[2:] == [(1024, "startup_test")]
    assert (guard.health.state, guard.health.retry_after_s) == (HealthState.OK, None)


def test_pauses_double_up_to_an_hour_and_begin_anew_after_a_good_time(clock: Clock) -> None:
    device = Device()
    guard = watched(device)
    device.fault = stuck
    pauses = []
    for _ in range(8):
        refusal(guard)
        left_s = guard.health.retry_after_s
        assert left_s is not None
        pauses.append(left_s)
        clock.now += left_s
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    device.fault = None
    guard.draw(BLOCK)
    clock.now += 3601.0
    guard.draw(BLOCK)
    device.fault = stuck
    assert refusal(guard).retry_after_s == 60.0


def test_a_source_that_cannot_deliver_its_start_up_test_is_asked_again_after_a_pause(
    clock: Clock,
) -> None:
    device = Device()
    guard = watched(device)
    device.fault = stuck
    refusal(guard)
    clock.now += 60.0
    device.fault = lambda data: data[1:]
    assert "received 1023" in refusal(guard).reason
    asked = len(device.requests)
    assert refusal(guard).reason.startswith("health: ")
    assert len(device.requests) == asked


def test_a_source_that_fails_its_first_start_up_test_delivers_nothing() -> None:
    dropped: list[DroppedBytes] = []
    device = Device()
    device.fault = stuck
    guard = watched(device, dropped)
    guard.start_up()
    assert guard.health.state is HealthState.FAILED
    assert refusal(guard).reason.startswith("health: ")
    assert device.requests == [1024]
    assert shown(dropped) == [(1024, "health: repetition_count 9 >= 9")]


def slow(device: Device, clock: Clock, bytes_per_s: float, timeout_s: float) -> None:
    """Makes *device* take its time, and be unavailable once that is too long."""
    fast = device.get_random_bytes

    def get(n: int) -> bytes:
        clock.now += min(n / bytes_per_s, timeout_s)
        if n / bytes_per_s > timeout_s:
            raise EntropyUnavailableError("device", "too slow")
        return fast(n)

    device.get_random_bytes = get  # type: ignore[method-assign]


def test_a_slow_source_is_tested_in_pieces_and_no_draw_waits_for_all_of_them(clock: Clock) -> None:
    dropped: list[DroppedBytes] = []
    slow(device := Device(), clock, bytes_per_s=100, timeout_s=5)
    guard = GuardedSource(device, 5000.0, dropped.append, health=HealthOptions())
    guard.start_up()
    waits = [clock.now]
    # Admissions wait once.
    guard.start_up()
    assert clock.now == waits[-1] == 1005.0
    reasons = []
    for _ in range(3):
        reasons.append("")
        try:
            guard.draw(64)
        except EntropyUnavailableError as error:
            reasons[-1] = error.reason
        waits.append(clock.now)
    assert reasons[0].startswith("its start-up test has 448 of 1024 bytes yet; ")
    assert [bool(reason) for reason in reasons] == [True, True, False]
    assert max(np.diff(waits)) < 5.0
    assert sum(each.count for each in dropped) == 1024
    assert {each.reason for each in dropped} == {"startup_test"}
    assert guard.draw(64).health is HealthState.OK


def test_a_slow_source_that_is_stuck_passes_no_start_up_test(clock: Clock) -> None:
    dropped: list[DroppedBytes] = []
    slow(device := Device(), clock, bytes_per_s=100, timeout_s=5)
    device.fault = stuck
    guard = GuardedSource(device, 5000.0, dropped.append, health=HealthOptions())
    guard.start_up()
    found = [refusal(guard, 64).reason for _ in range(3)]
    assert [reason.startswith("health: ") for reason in found] == [False, False, True]
    assert dropped[-1].reason == "health: repetition_count 9 >= 9"


def test_threads_do_not_wait_for_a_start_up_test_longer_than_for_a_draw() -> None:
    going_on, ends = threading.Event(), threading.Event()

    def draw(n: int) -> bytes:
        going_on.set()
        ends.wait(60)
        return np.random.default_rng(1).bytes(n)

    watch = HealthWatch("device", HealthMonitor(), patience_s=0.01)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(watch.admit, draw, lambda *_: None)
        assert going_on.wait(60)
        with pytest.raises(EntropyUnavailableError, match="start-up test goes on"):
            watch.admit(draw, lambda *_: None)
        ends.set()
        first.result(60)
    assert watch.ready


def test_an_unavailable_source_is_no_failed_one() -> None:
    source = ConstantEntropySource(name="device", fail_with="unplugged")
    source.min_entropy_per_byte = 8.0
    guard = watched(source)
    guard.start_up()
    assert guard.health.state is HealthState.UNTESTED
    assert refusal(guard).reason == "unplugged"


def test_suspect_draws_are_used_and_flagged_and_the_third_fails_the_source() -> None:
    device = Device()
    guard = watched(device)
    seen = []
    for draw in range(3):
        device.fault = None
        seen.append(guard.draw(400).health)
        device.fault = lambda data: data[:200] + bytes(7) + data[207:]
        if draw < 2:
            seen.append(guard.draw(400).health)
            assert guard.health.state is HealthState.SUSPECT
            assert guard.health.reason.startswith("repetition_count: ")
    assert seen == [HealthState.OK, HealthState.SUSPECT] * 2 + [HealthState.OK]
    assert refusal(guard, 400).reason.startswith("health: suspect_draws 3 >= 3")
    assert guard.health.alarms == {"repetition_count": 2, "suspect_draws": 1}


def test_the_fallback_says_that_health_is_why() -> None:
    device, spare = Device(), Device("spare", seed=2)
    source = FallbackEntropySource(watched(device), watched(spare))
    assert not source.draw(BLOCK).fallback
    device.fault = stuck
    draw = source.draw(BLOCK)
    assert (draw.source, draw.fallback, draw.health) == ("spare", True, HealthState.OK)
    assert draw.fallback_reason.startswith("device: health: repetition_count 9 >= 9; ")
    assert spare.requests == [1024, BLOCK]


@pytest.mark.parametrize(
    ("limits", "exempt"),
    [
        ({"max_bytes_per_day": 10_239}, True),
        ({"max_bytes_per_day": 10_240}, False),
        ({"max_requests_per_minute": 9.0}, True),
        ({"max_requests_per_minute": 10.0}, False),
        ({"max_requests_per_minute": 10.0, "max_bytes_per_request": 1023}, True),
    ],
)
def test_a_quota_that_a_start_up_test_would_eat_is_spared(
    limits: dict[str, Any], exempt: bool, clock: Clock
) -> None:
    device = Device(**limits)
    guard = watched(device)
    guard.start_up()
    assert len(device.requests) == (0 if exempt else 1)
    assert guard.draw(600).health is (HealthState.UNTESTED if exempt else HealthState.OK)
    assert ("no start-up test" in guard.health.reason) is exempt
    # It is watched all the same; without a start-up test nothing lifts the failure.
    device.fault = stuck
    assert (refusal(guard, 600).retry_after_s is None) is exempt
    asked = len(device.requests)
    clock.now += 1e6
    assert refusal(guard, 600).reason.startswith("health: ")
    assert (len(device.requests) == asked) is exempt


def test_a_source_whose_bytes_belong_to_rows_is_spared_too() -> None:
    class Rows(Device):
        serves_rows = True

        def draw_rows(self, contexts: Any, sizes: Any) -> Any:
            return self.draw(sum(sizes))

    guard = watched(device := Rows())
    context = RowContext("run", "sequence", 0, b"", "key")
    assert guard.draw_rows([context], [64]).health is HealthState.UNTESTED
    device.fault = stuck
    with pytest.raises(EntropyUnavailableError, match="health"):
        guard.draw_rows([context], [64])


def test_all_kinds_of_draws_are_watched() -> None:
    guard = watched(device := Device())
    assert guard.committed_draw(64, b"digest").health is HealthState.OK
    assert len(guard.get_random_bytes(64)) == 64
    device.fault = stuck
    with pytest.raises(EntropyUnavailableError, match="health"):
        guard.committed_draw(64, b"digest")


def test_a_draw_of_nothing_and_an_answer_that_praises_itself_are_no_test() -> None:
    class Boaster(Device):
        def draw(self, n: int) -> Any:
            return replace(super().draw(n), health=HealthState.OK)

    guard = GuardedSource(Boaster(), NEVER_MS)
    assert guard.draw(8).health is HealthState.UNTESTED
    assert watched(Boaster()).draw(0).data == b""


@pytest.mark.parametrize(
    ("said", "tested", "entropy"),
    [
        ({}, "raw", 6.0),
        ({"conditioning": "sha256"}, "output", 8.0),
        ({"conditioning": "unknown"}, "output", 6.0),
        ({"min_entropy_per_byte": 7.5}, "raw", 7.5),
        ({"min_entropy_per_byte": 99}, "raw", 8.0),
        ({"min_entropy_per_byte": "many"}, "raw", 6.0),
        ({"min_entropy_per_byte": float("nan")}, "raw", 6.0),
        ({"min_entropy_per_byte": -1}, "raw", 6.0),
        ({"min_entropy_per_byte": 0.0}, "nothing", None),
        ({"min_entropy_per_byte": 0.1}, "nothing", None),
        ({"integrates": True}, "nothing", None),
    ],
)
def test_what_is_assumed_follows_from_what_a_source_says(
    said: dict[str, Any], tested: str, entropy: float | None
) -> None:
    device = Device()
    for name, value in {"min_entropy_per_byte": None, **said}.items():
        setattr(device, name, value)
    guard = watched(device)
    assert guard.health.tested == tested
    policy = WATCHED.assumption(device).policy
    assert (None if policy is None else policy.min_entropy) == entropy
    draw = guard.draw(8)
    assert draw.health is (HealthState.UNTESTED if entropy is None else HealthState.OK)
    if not said.get("integrates"):
        assert HealthOptions(min_entropy=1.0).assumption(device).policy == HealthPolicy(
            min_entropy=1.0
        )


def test_what_is_switched_off_says_so() -> None:
    guard = watched(device := Device(), enabled=False)
    device.fault = stuck
    assert guard.draw(BLOCK).health is HealthState.UNTESTED
    assert guard.health.reason == "switched off by QR_HEALTH=false"
    guard.start_up()
    assert device.requests == [BLOCK]


def test_a_monitor_with_a_defect_ends_no_step(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(HealthMonitor):
        def observe(self, data: bytes) -> Alarm | None:
            if len(data) == 64:
                raise ZeroDivisionError("in the tests")
            return super().observe(data)

    guard = watched(Device(), make_monitor=Broken)
    assert guard.draw(8).health is HealthState.OK
    with caplog.at_level(logging.ERROR, "qr_sampler"):
        assert guard.draw(64).health is HealthState.UNTESTED
        assert guard.draw(8).health is HealthState.UNTESTED
    assert caplog.text.count("the health monitor of source 'device' has a defect") == 1
    health = guard.health
    assert (health.state, health.tested) == (HealthState.UNTESTED, "nothing")
    assert "ZeroDivisionError: in the tests" in health.reason


def test_threads_share_one_watch_and_lose_no_alarm() -> None:
    class Counting(HealthMonitor):
        inside = 0
        draws = 0

        def observe(self, data: bytes) -> Alarm | None:
            assert self.inside == 0
            self.inside += 1
            alarm = super().observe(data)
            self.draws += 1
            self.inside -= 1
            return alarm

    monitors: list[Counting] = []

    def made(policy: HealthPolicy) -> HealthMonitor:
        monitors.append(Counting(policy))
        return monitors[-1]

    device = Device()
    guard = watched(device, make_monitor=made)

    def drawn(_: int) -> HealthState:
        return guard.draw(700).health

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(drawn, range(200))) == {HealthState.OK}
        assert device.requests.count(1024) == 1
        assert sum(monitor.draws for monitor in monitors if monitor.draws) == 201
        device.fault = stuck
        failed = list(threads.map(lambda _: refusal(guard, 700).reason[:8], range(32)))
    assert failed == ["health: "] * 32
    assert guard.health.alarms == {"repetition_count": 1}


def test_two_sources_have_two_streams() -> None:
    left, right = Device("left"), Device("right", seed=2)
    guards = [watched(left), watched(right)]
    for guard in guards:
        guard.draw(1)
    left.fault = right.fault = lambda data: bytes(len(data))
    # Five zeros from each: together they would be a run of ten.
    assert [guard.draw(5).health for guard in guards] == [HealthState.OK] * 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_process_watches_anew() -> None:
    guard = watched(device := Device())
    guard.draw(8)
    device.fault = stuck
    refusal(guard)
    device.fault = None
    reader, writer = os.pipe()
    # Threads of other tests do not matter here: the child leaves at once.
    child = os.fork()
    if not child:
        before = guard.health.state.value
        device.requests.clear()
        after = guard.draw(8).health.value
        os.write(writer, f"{before} {after} {device.requests}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as told:
        assert told.read() == "untested ok [1024, 8]"
    assert guard.health.state is HealthState.FAILED


def test_a_pause_is_over_when_it_is() -> None:
    pause = RecoveryPause()
    assert pause.left_s(0.0) == 0.0
    pause.begin(0.0)
    assert (pause.left_s(59.0), pause.left_s(61.0)) == (1.0, 0.0)
