# SPDX-License-Identifier: Apache-2.0
"""Quotas: no window of a minute or a day holds more than they allow."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_sampler.entropy import SourceLimits
from qr_sampler_grpc.link.quota import Quota, QuotaExceededError

REPEATABLE = settings(derandomize=True, database=None, deadline=None, max_examples=200)
DAY_S = 86_400.0
# Pauses in eighths of a second, of which floating point loses nothing.
DRAWS = st.lists(
    st.tuples(st.integers(0, 240).map(lambda n: n / 8), st.integers(1, 12)), max_size=120
)
LONG_DRAWS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 8 * 60), st.integers(0, 8 * 90_000)).map(lambda n: n / 8),
        st.integers(1, 700),
    ),
    max_size=80,
)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def counted(quota: Quota) -> list[tuple[int, list[tuple[float, int]]]]:
    return [(kept.total, list(kept._kept)) for kept in (quota._requests, quota._bytes) if kept]


def allowed(
    limits: SourceLimits, draws: list[tuple[float, int]], *, as_bytes: bool
) -> list[tuple[float, int]]:
    """Returns what was let through, and when; checks that a refusal leaves no trace."""
    clock = Clock()
    quota = Quota(limits, clock)
    passed = []
    for pause_s, amount in draws:
        clock.now_s += pause_s
        try:
            quota.spend(*((1, amount) if as_bytes else (amount, 1)))
        except QuotaExceededError as error:
            before = counted(quota)
            with pytest.raises(QuotaExceededError, match=re.escape(str(error))):
                quota.spend(*((1, amount) if as_bytes else (amount, 1)))
            assert before == counted(quota)
        else:
            passed.append((clock.now_s, amount))
    return passed


def fullest(passed: list[tuple[float, int]], window_s: float) -> int:
    """Returns the most that any window of *window_s* seconds holds, counted the slow way."""
    return max(
        (
            sum(amount for at, amount in passed if start <= at < start + window_s)
            for start, _ in passed
        ),
        default=0,
    )


@REPEATABLE
@given(DRAWS, st.integers(1, 30))
def test_no_minute_holds_more_requests_than_allowed(
    draws: list[tuple[float, int]], limit: int
) -> None:
    passed = allowed(SourceLimits(max_requests_per_minute=limit), draws, as_bytes=False)
    assert fullest(passed, 60.0) <= limit


@REPEATABLE
@given(LONG_DRAWS, st.integers(1, 2000))
def test_no_day_holds_more_bytes_than_allowed(draws: list[tuple[float, int]], limit: int) -> None:
    passed = allowed(SourceLimits(max_bytes_per_day=limit), draws, as_bytes=True)
    assert fullest(passed, DAY_S) <= limit


def test_refusals_name_the_figure_and_the_remedy() -> None:
    clock = Clock()
    quota = Quota(SourceLimits(max_requests_per_minute=500, max_bytes_per_day=1_234_567), clock)

    def words(requests: int, payload_bytes: int) -> str:
        with pytest.raises(QuotaExceededError) as caught:
            quota.spend(requests, payload_bytes)
        return str(caught.value)

    assert words(501, 1) == (
        "a draw of 501 requests never fits into 500 a minute; draw less with QR_SAMPLE_COUNT, or "
        "raise QR_GRPC_MAX_BYTES_PER_REQUEST if the server allows it"
    )
    assert words(1, 1_234_568) == (
        "a draw of 1234568 bytes never fits into 1234567 a day; draw less with QR_SAMPLE_COUNT, or "
        "raise QR_GRPC_MAX_BYTES_PER_DAY if the server allows it"
    )
    quota.spend(300, 1_000_000)
    clock.now_s += 9.875
    quota.spend(150, 100)
    assert words(60, 1) == (
        "450 of 500 requests were made within a minute; 51 s until 60 more fit, or raise "
        "QR_GRPC_MAX_REQUESTS_PER_MINUTE if the server allows it"
    )
    assert words(1, 234_468) == (
        "1000100 of 1234567 bytes were asked for within a day; 86451 s until 234468 more fit, or "
        "raise QR_GRPC_MAX_BYTES_PER_DAY if the server allows it"
    )


def test_large_limits_are_spelt_out() -> None:
    quota = Quota(SourceLimits(max_requests_per_minute=12_345_678))
    with pytest.raises(QuotaExceededError, match="into 12345678 a minute"):
        quota.spend(12_345_679, 1)


def test_the_longer_wait_counts_where_one_entry_is_not_enough() -> None:
    clock = Clock()
    quota = Quota(SourceLimits(max_requests_per_minute=10), clock)
    for _ in range(10):
        quota.spend(1, 1)
        clock.now_s += 1
    with pytest.raises(QuotaExceededError, match="50 s until 1 more fit"):
        quota.spend(1, 1)
    with pytest.raises(QuotaExceededError, match="57 s until 8 more fit"):
        quota.spend(8, 1)


def test_without_limits_nothing_is_kept() -> None:
    quota = Quota(SourceLimits(max_bytes_per_request=1))
    for _ in range(1000):
        quota.spend(1000, 10**12)
    assert not counted(quota)


def test_a_day_is_kept_short() -> None:
    clock = Clock()
    quota = Quota(SourceLimits(max_bytes_per_day=10**9), clock)
    for _ in range(20_000):
        clock.now_s += 10
        quota.spend(1, 100)
    ((_, kept),) = counted(quota)
    assert len(kept) <= 1443


def test_threads_share_a_quota() -> None:
    quota = Quota(SourceLimits(max_requests_per_minute=1000, max_bytes_per_day=10**9))
    passed: list[int] = []

    def spend() -> None:
        for _ in range(400):
            try:
                quota.spend(1, 1)
            except QuotaExceededError:
                continue
            passed.append(1)

    with ThreadPoolExecutor(8) as pool:
        for running in [pool.submit(spend) for _ in range(8)]:
            running.result()
    assert len(passed) == 1000
