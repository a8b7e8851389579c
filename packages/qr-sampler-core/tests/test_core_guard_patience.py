# SPDX-License-Identifier: Apache-2.0
"""A guarded source that can wait: it is left alone when it fails, and not waited for too long."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest

from qr_sampler import EntropyDraw, EntropySource, EntropyUnavailableError, GuardedSource, Settings
from qr_sampler.components.failure_policy import configured_sources
from qr_sampler.entropy.breaker import BreakerState
from qr_sampler.entropy.breaker_settings import BreakerOptions
from qr_sampler.entropy.guard import SHORTEST_DEADLINE_MS
from qr_sampler.testing import ConstantEntropySource

NEVER_MS = 60_000.0
PATIENCE_S = 60.0


class Device(EntropySource):
    """Fails while it is *broken*, and hangs while it is *silent*."""

    name = "device"

    def __init__(self) -> None:
        self.calls = 0
        self.broken = False
        self.silent = False
        self.speak = threading.Event()

    def get_random_bytes(self, n: int) -> bytes:
        self.calls += 1
        if self.broken:
            raise EntropyUnavailableError(self.name, "no carrier")
        if self.silent:
            assert self.speak.wait(PATIENCE_S)
        return bytes(n)


def guard(device: EntropySource, timeout_ms: float = NEVER_MS, **options: Any) -> GuardedSource:
    return GuardedSource(device, timeout_ms, breaker=BreakerOptions.checked(**options))


def refusal(guarded: GuardedSource) -> str:
    with pytest.raises(EntropyUnavailableError) as caught:
        guarded.draw(8)
    return caught.value.reason


def let_the_pause_pass(guarded: GuardedSource) -> None:
    guarded._patience.get()._breaker._retry_at -= 3600.0


def test_a_source_that_fails_is_left_alone_and_tried_again() -> None:
    device = Device()
    guarded = guard(device, recovery_window_s=3600.0, recovery_max_s=3600.0)
    device.broken = True
    assert [refusal(guarded) for _ in range(3)] == ["no carrier"] * 3
    assert guarded.status().reason.startswith("no carrier; not tried again for ")
    assert not guarded.status().available
    for _ in range(50):
        assert refusal(guarded).startswith("no carrier; not tried again for ")
    assert device.calls == 3
    let_the_pause_pass(guarded)
    assert refusal(guarded) == "no carrier"
    assert refusal(guarded).startswith("no carrier; not tried again for ")
    device.broken = False
    let_the_pause_pass(guarded)
    assert guarded.status().reason == "no carrier; the next draw tries it"
    assert guarded.draw(8).data == bytes(8)
    assert guarded.status().available
    assert device.calls == 5
    guarded.close()


def test_a_source_that_has_answered_is_not_waited_for_as_long_as_any_other() -> None:
    device = Device()
    guarded = guard(device, min_samples=10)
    for _ in range(10):
        guarded.draw(8)
    assert guarded._patience.get()._deadline.milliseconds(8) >= SHORTEST_DEADLINE_MS
    device.silent = True
    waited_ms = float(refusal(guarded).removeprefix("no answer within ").removesuffix(" ms"))
    assert waited_ms < NEVER_MS
    device.speak.set()
    guarded.close()


def test_only_a_draw_that_was_asked_for_counts() -> None:
    """While one hangs the others fail at once, and that says nothing new of the source."""
    device = Device()
    guarded = guard(device, 50.0)
    device.silent = True
    assert refusal(guarded) == "no answer within 50 ms"
    for _ in range(10):
        assert refusal(guarded).startswith("still busy with a draw that was due")
    assert guarded._patience.get().state is BreakerState.CLOSED
    device.silent = False
    device.speak.set()
    assert eventually_answers(guarded)
    assert device.calls == 2
    guarded.close()


def eventually_answers(guarded: GuardedSource) -> bool:
    due_s = time.monotonic() + PATIENCE_S
    while guarded.status().reason.startswith("still busy") and time.monotonic() < due_s:
        time.sleep(0.005)
    return guarded.draw(8).data == bytes(8)


def test_without_options_a_source_is_asked_every_time() -> None:
    device = Device()
    device.broken = True
    guarded = GuardedSource(device, NEVER_MS)
    for _ in range(20):
        refusal(guarded)
    assert device.calls == 20
    guarded.close()


def test_a_source_that_bounds_itself_is_not_bounded_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of this project that do not block have a breaker, or nothing to wait for."""
    calls = 0

    class Bounded(ConstantEntropySource):
        def draw(self, n: int) -> EntropyDraw:
            nonlocal calls
            calls += 1
            raise EntropyUnavailableError(self.name, "refused")

    monkeypatch.setattr(Bounded, "__module__", ConstantEntropySource.__module__)
    guarded = guard(Bounded())
    for _ in range(20):
        assert refusal(guarded) == "refused"
    assert calls == 20


def test_a_forked_process_begins_with_trust_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device()
    guarded = guard(device, max_consecutive_failures=1)
    device.broken = True
    refusal(guarded)
    assert guarded._patience.get().state is BreakerState.OPEN
    child = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: child)
    assert guarded._patience.get().state is BreakerState.CLOSED


@pytest.mark.parametrize(
    ("fallback_mode", "has_fallback"),
    [("spare", True), ("error", False), ("end_request", False), ("device", False)],
)
def test_a_source_knows_whether_another_one_takes_over(
    fallback_mode: str, has_fallback: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, EntropySource] = {}

    def create(name: str) -> EntropySource:
        made[name] = ConstantEntropySource(name=name)
        return made[name]

    monkeypatch.setattr("qr_sampler.components.failure_policy.create_source", create)
    monkeypatch.setenv("QR_CB_MAX_CONSECUTIVE_FAILURES", "7")
    settings = Settings(entropy_source_type="device", fallback_mode=fallback_mode)
    configured = configured_sources(settings)["device"]
    assert made["device"].has_fallback is has_fallback
    guarded = getattr(configured, "primary", configured)
    assert guarded._breaker.max_consecutive_failures == 7
    if "spare" in made:
        assert not made["spare"].has_fallback
