# SPDX-License-Identifier: Apache-2.0
"""Quotas over rolling windows, compared with a list of everything that was admitted."""

from __future__ import annotations

import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qr_sampler import ConfigError
from qr_sampler_grpc.device.metering import Meters
from qr_sampler_grpc.rolling_sum import RollingSum

WINDOW_S = 60.0
SLOTS = 6
SLOT_S = WINDOW_S / SLOTS
GRAINS = st.sampled_from([0.0, SLOT_S])

# Multiples of a quarter are exact, so that the ends of windows are.
ARRIVALS = st.lists(
    st.tuples(st.integers(0, 400).map(lambda quarters: quarters / 4), st.integers(1, 8)),
    max_size=40,
)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@given(arrivals=ARRIVALS, limit=st.integers(1, 20), grain_s=GRAINS)
def test_no_window_ever_holds_more_than_the_limit(
    arrivals: list[tuple[float, int]], limit: int, grain_s: float
) -> None:
    meter = RollingSum(limit, WINDOW_S, grain_s)
    admitted: list[tuple[float, int]] = []
    now_s = 0.0
    for pause_s, amount in arrivals:
        now_s += pause_s
        recent = sum(n for at_s, n in admitted if at_s > now_s - WINDOW_S)
        longer = sum(n for at_s, n in admitted if at_s > now_s - WINDOW_S - grain_s)
        if meter.wait_s(amount, now_s) == 0.0:
            assert recent + amount <= limit
            meter.add(amount, now_s)
            admitted.append((now_s, amount))
        else:
            assert longer + amount > limit


@given(arrivals=ARRIVALS, limit=st.integers(1, 20), grain_s=GRAINS)
def test_the_time_to_wait_is_right_to_the_second(
    arrivals: list[tuple[float, int]], limit: int, grain_s: float
) -> None:
    meter = RollingSum(limit, WINDOW_S, grain_s)
    now_s = 0.0
    for pause_s, amount in arrivals:
        now_s += pause_s
        wait_s = meter.wait_s(amount, now_s)
        if amount > limit:
            assert wait_s == math.inf
            continue
        if wait_s > 0.0:
            assert wait_s <= WINDOW_S + grain_s
            before = RollingSum(limit, WINDOW_S, grain_s)
            before._kept, before.total = meter._kept.copy(), meter.total
            assert before.wait_s(amount, now_s + wait_s - 0.125) > 0.0
            now_s += wait_s
            assert meter.wait_s(amount, now_s) == 0.0
        meter.add(amount, now_s)


def test_the_memory_does_not_grow_with_the_requests() -> None:
    meter = RollingSum(10**9, WINDOW_S, SLOT_S)
    for step in range(100_000):
        meter.wait_s(1, step / 100)
        meter.add(1, step / 100)
    assert len(meter._kept) <= SLOTS + 1


def test_accounts_do_not_share_their_quota() -> None:
    clock = Clock()
    meters = Meters(2, None, clock=clock)
    assert [meters.admit("a", 1)[1] for _ in range(3)] == ["", "", "2 requests a minute"]
    assert meters.admit("b", 1) == (0.0, "")
    wait_s, limit = meters.admit("a", 1)
    assert 60.0 <= wait_s <= 61.0
    assert limit == "2 requests a minute"
    clock.now_s += wait_s
    assert meters.admit("a", 1) == (0.0, "")


def test_a_refused_request_counts_against_neither_quota() -> None:
    meters = Meters(2, 100, clock=Clock())
    assert meters.admit("", 90) == (0.0, "")
    wait_s, limit = meters.admit("", 11)
    assert limit == "100 bytes a day"
    assert 86_400.0 <= wait_s <= 86_460.0
    assert meters.admit("", 10) == (0.0, "")
    # Both are used up now; the longer wait is the one that helps.
    assert meters.admit("", 1)[1] == "100 bytes a day"


def test_without_limits_nothing_is_kept() -> None:
    meters = Meters()
    for account in ("a", "b"):
        assert meters.admit(account, 10**12) == (0.0, "")
    assert meters._accounts == {}


@pytest.mark.parametrize("limits", [(0, None), (None, -1)])
def test_a_quota_of_nothing_is_a_mistake(limits: tuple[int | None, int | None]) -> None:
    with pytest.raises(ConfigError, match="admits nothing"):
        Meters(*limits)


def test_threads_admit_exactly_the_quota() -> None:
    meters = Meters(500, None, clock=Clock())
    admitted: list[int] = []

    def ask() -> None:
        admitted.append(sum(not meters.admit("", 1)[1] for _ in range(100)))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(admitted) == 500
