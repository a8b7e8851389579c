# SPDX-License-Identifier: Apache-2.0
"""The deadline that is learnt from the latest draws, compared with what it has to be."""

from __future__ import annotations

import random
import threading
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_sampler.entropy import adaptive_deadline
from qr_sampler.entropy.adaptive_deadline import AdaptiveDeadline, DeadlineRule, percentile99

REPEATABLE = settings(derandomize=True, database=None, deadline=None)
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


def test_payloads_of_another_size_do_not_count() -> None:
    deadline = AdaptiveDeadline(DeadlineRule(min_samples=1))
    deadline.observe(20_480, 40.0)
    assert deadline.milliseconds(20_480) == 60.0
    assert deadline.milliseconds(22_527) == 60.0
    assert deadline.milliseconds(20_479) == 5000.0
    assert deadline.milliseconds(22_528) == 5000.0
    assert deadline.milliseconds(64 * 20_480) == 5000.0


def test_a_device_of_constant_rate_is_not_given_up_for_a_larger_draw() -> None:
    """A step of 31 rows takes almost twice as long as one of 16: more than the multiplier has."""
    block_bytes, bytes_per_ms = 10_240, 44.0
    for usual_rows in range(1, 65):
        deadline = AdaptiveDeadline(DeadlineRule(min_samples=1, cap_ms=1e6))
        for _ in range(100):
            deadline.observe(usual_rows * block_bytes, usual_rows * block_bytes / bytes_per_ms)
        for rows in range(usual_rows, 65):
            payload = rows * block_bytes
            assert payload / bytes_per_ms < deadline.milliseconds(payload), (usual_rows, rows)


@REPEATABLE
@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_sizes_of_one_class_differ_by_less_than_an_eighth(one: int, other: int) -> None:
    if adaptive_deadline._size_class(one) == adaptive_deadline._size_class(other):
        assert 8 * abs(one - other) < max(min(one, other), 1)


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


@pytest.mark.parametrize("floor_ms", [0.0, 1.5, 6.0])
@pytest.mark.parametrize("share_of_slow", [0.002, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("size", [1, 2, 99, 100, 101, 250])
def test_the_deadline_is_that_of_the_latest_latencies(
    size: int, share_of_slow: float, floor_ms: float
) -> None:
    """Compared with sorting all of them anew; few, some and all of them exceed the floor."""
    rng = random.Random(size)
    rule = DeadlineRule(
        window_size=size, min_samples=1, floor_ms=floor_ms, floor_ms_per_mib=0, cap_ms=1e9
    )
    deadline, latest = AdaptiveDeadline(rule), deque[float](maxlen=size)
    for _ in range(8 * size + 20):
        slow = 4.0 if rng.random() < share_of_slow else 0.0
        latency_ms = slow + rng.choice((rng.expovariate(1), rng.randrange(3) / 2))
        latest.append(latency_ms)
        deadline.observe(8, latency_ms)
        expected_ms = max(floor_ms, rule.multiplier * percentile99(list(latest)))
        assert deadline.milliseconds(8) == expected_ms


def test_threads_may_share_the_window() -> None:
    deadline = AdaptiveDeadline(DeadlineRule(window_size=50, min_samples=1, floor_ms=0, cap_ms=1e9))

    def observe(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(2000):
            deadline.observe(8, rng.random())
            deadline.milliseconds(8)

    threads = [threading.Thread(target=observe, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (window,) = deadline._windows.values()
    assert sorted(window._latest) == window._slow
    assert len(window._slow) == 50
