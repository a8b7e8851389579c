# SPDX-License-Identifier: Apache-2.0
"""Whatever a source hands out is a plain value afterwards, of bounded size, or a failed draw."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import time
import uuid
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qr_sampler import (
    DroppedBytes,
    EntropyDraw,
    EntropySource,
    EntropyUnavailableError,
    GuardedSource,
    Origin,
    SourceLimits,
    SourceStatus,
)
from qr_sampler.foreign import (
    MAX_TEXT_CHARACTERS,
    MAX_TRACEBACK_CHARACTERS,
    is_signal,
    plain_text,
    traceback_text,
    words_of,
)
from qr_sampler.health import HealthState

NEVER_MS = 60_000.0
KEY = "key-of-forty-characters-that-nobody-sees"


class Saying(EntropySource):
    """Answers every question with what it was given."""

    name = "saying"

    def __init__(self, answer: Any = None, **fields: Any) -> None:
        self._answer, self._fields = answer, fields
        self.origin = Origin("qr-saying", "1.0")

    @property
    def secrets(self) -> tuple[str, ...]:
        return (KEY, "", None)  # type: ignore[return-value]

    def get_random_bytes(self, n: int) -> bytes:
        return b"\7" * n

    def draw(self, n: int) -> Any:
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer or dataclasses.replace(super().draw(n), **self._fields)

    def status(self) -> Any:
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer

    @property
    def limits(self) -> Any:
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer or SourceLimits()


class Lost(list[tuple[int, str]]):
    def __call__(self, dropped: DroppedBytes) -> None:
        self.append((dropped.count, dropped.reason))


def drawn(lost: Lost | None = None, **fields: Any) -> EntropyDraw:
    return GuardedSource(Saying(**fields), NEVER_MS, lost).draw(4)


UUID = uuid.UUID(int=7)

TOLD: list[tuple[str, Any, Any]] = [
    ("device_timestamp_ns", np.int64(5), 5),
    ("device_timestamp_ns", np.uint64(2**63), None),
    ("device_timestamp_ns", -5, None),
    ("device_timestamp_ns", 0, None),
    ("device_timestamp_ns", 10**400, None),
    ("device_timestamp_ns", 1.5, None),
    ("device_timestamp_ns", math.nan, None),
    ("device_timestamp_ns", np.float64(math.nan), None),
    ("device_timestamp_ns", True, None),
    ("device_timestamp_ns", "noon", None),
    ("device_id", b"serial \xff", "serial \N{REPLACEMENT CHARACTER}"),
    ("device_id", UUID, str(UUID)),
    ("device_id", None, ""),
    ("device_id", 7, "7"),
    ("device_id", "two\nlines\x00", r"two lines\x00"),
    ("device_id", "lone \ud800 half", r"lone \ud800 half"),
    ("device_id", np.str_("serial"), "serial"),
    ("device_id", f"I know {KEY}", "I know ***"),
    ("fallback", np.bool_(True), True),
    ("fallback", 0, False),
    ("fallback_from", OSError("gone"), "gone"),
    ("fallback_reason", OSError("gone"), "gone"),
    ("commitment_echoed", np.bool_(False), False),
    ("commitment_echoed", "yes", None),
    ("signature_verified", np.bool_(True), True),
    ("signature_verified", 1, None),
    ("signature", b"s" * 512, b"s" * 512),
    ("signature", b"s" * 513, b""),
    ("signature", bytearray(64), b""),
    ("sequence_id", np.int64(7), 7),
    ("sequence_id", -7, None),
    ("sequence_id", "7", None),
    ("requests", np.int32(3), 3),
    ("requests", None, 1),
    ("requests", -1, 1),
    ("dropped_bytes", np.int64(3), 3),
    ("dropped_bytes", math.nan, 0),
    ("dropped_bytes", -3, 0),
    ("data", bytearray(4), b"\0\0\0\0"),
    ("data", memoryview(b"abcd"), b"abcd"),
    ("origin", None, Origin("qr-saying", "1.0")),
    ("origin", Origin("another", "2.0"), Origin("qr-saying", "1.0")),
    ("source", np.str_("saying"), "saying"),
    ("health", HealthState.OK, HealthState.UNTESTED),
    ("health", "ok", HealthState.UNTESTED),
]


@pytest.mark.parametrize(("field", "told", "kept"), TOLD)
def test_what_a_draw_says_becomes_a_plain_value(field: str, told: Any, kept: Any) -> None:
    value = getattr(drawn(**{field: told}), field)
    assert value == kept
    assert type(value) is type(kept)


PLAIN = (type(None), bool, int, str, bytes, Origin, HealthState)


@given(
    st.dictionaries(
        st.sampled_from([field.name for field in dataclasses.fields(EntropyDraw)]),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.text(),
            st.binary(max_size=8),
            st.lists(st.integers(), max_size=2),
            st.sampled_from([np.int64(9), np.bool_(True), np.zeros(2), object(), Origin()]),
        ),
    )
)
def test_no_draw_surprises_a_record(fields: dict[str, Any]) -> None:
    try:
        draw = drawn(**fields)
    except EntropyUnavailableError:
        return
    values = [getattr(draw, field.name) for field in dataclasses.fields(draw)]
    assert {type(value) for value in values} <= set(PLAIN)
    assert type(draw) is EntropyDraw
    json.dumps([value for value in values if not isinstance(value, (bytes, Origin))])
    assert max(len(value) for value in values if isinstance(value, str)) <= MAX_TEXT_CHARACTERS


def test_a_text_of_any_length_is_cut() -> None:
    draw = drawn(device_id="x" * 2**21)
    assert draw.device_id == "x" * (MAX_TEXT_CHARACTERS - 3) + "..."
    # A secret does not show through where the text is cut, either.
    draw = drawn(device_id="x" * (MAX_TEXT_CHARACTERS - 20) + KEY)
    assert draw.device_id == "x" * (MAX_TEXT_CHARACTERS - 20) + "***"


def test_a_source_may_not_call_itself_another_one() -> None:
    lost = Lost()
    with pytest.raises(EntropyUnavailableError, match="calls itself 'system'; the answer was dro"):
        drawn(lost, source="system", dropped_bytes=2)
    with pytest.raises(EntropyUnavailableError, match="calls itself 'system'"):
        drawn(lost, source="system", fallback=True)
    with pytest.raises(EntropyUnavailableError, match="calls itself ''"):
        drawn(lost, source=None)
    assert lost == [(6, "unfit"), (4, "unfit"), (4, "unfit")]


def test_times_outside_of_the_call_are_replaced_by_those_of_the_call() -> None:
    for told in [
        {"requested_ns": 1},
        {"received_ns": 2**62},
        {"requested_ns": math.nan},
        {"received_ns": None},
        {"requested_ns": 2**62, "received_ns": 2**62 - 1},
    ]:
        before_ns = time.monotonic_ns()
        draw = drawn(**told)
        assert before_ns <= draw.requested_ns <= draw.received_ns <= time.monotonic_ns()
    assert drawn(wall_time_ns=-1).wall_time_ns > 10**18
    assert drawn(wall_time_ns=math.inf).wall_time_ns > 10**18


def test_what_is_plain_is_handed_on_as_it_is() -> None:
    class Remembering(Saying):
        def draw(self, n: int) -> Any:
            self.latest = super().draw(n)
            return self.latest

    source = Remembering(device_id="serial 7", device_timestamp_ns=5, commitment_echoed=True)
    assert GuardedSource(source, NEVER_MS).draw(4) is source.latest


class Lying(EntropyDraw):
    """Answers for itself."""

    device_id = property(lambda self: 1 / 0)  # type: ignore[assignment]


class SlyError(EntropyUnavailableError):
    """Cannot say why."""

    reason = property(lambda self: 1 / 0, lambda self, value: None)  # type: ignore[assignment]


def test_a_value_that_raises_when_it_is_looked_at_is_a_failed_draw() -> None:
    honest = Saying().draw(4)
    lying = Lying.__new__(Lying)
    for field in dataclasses.fields(EntropyDraw):
        EntropyDraw.__dict__[field.name].__set__(lying, getattr(honest, field.name))
    for answer in (lying, SlyError("saying", "no")):
        with pytest.raises(EntropyUnavailableError, match="ZeroDivisionError"):
            GuardedSource(Saying(answer), NEVER_MS).draw(4)


@pytest.mark.parametrize(
    ("told", "count"),
    [(np.int64(3), 3), (3.0, 0), (math.nan, 0), (-3, 0), ("3", 0), (2**70, 0), (True, 0)],
)
def test_what_an_error_says_becomes_plain_values(told: Any, count: int) -> None:
    lost = Lost()
    error = EntropyUnavailableError("another", f"the {KEY}\nis wrong", dropped_bytes=told)
    with pytest.raises(EntropyUnavailableError) as caught:
        GuardedSource(Saying(error), NEVER_MS, lost).draw(4)
    assert (caught.value.source, caught.value.reason) == ("saying", "the *** is wrong")
    assert type(caught.value.dropped_bytes) is int
    assert caught.value.dropped_bytes == count
    assert caught.value.__cause__ is None, "the words of the source would be printed with it"
    assert lost == [(count, "failed")] * bool(count)


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        (None, None),
        (np.float32(1.5), 1.5),
        (2, 2.0),
        (math.inf, math.inf),
        (-1, None),
        (math.nan, None),
        ("soon", None),
    ],
)
def test_when_to_ask_again_is_a_number_of_seconds(told: Any, kept: float | None) -> None:
    error = EntropyUnavailableError("saying", "quota", retry_after_s=told)
    with pytest.raises(EntropyUnavailableError) as caught:
        GuardedSource(Saying(error), NEVER_MS).draw(4)
    assert caught.value.retry_after_s == kept
    assert type(caught.value.retry_after_s) is type(kept)


def test_an_error_that_says_nothing_has_a_reason_all_the_same() -> None:
    with pytest.raises(EntropyUnavailableError, match="it does not say why"):
        GuardedSource(Saying(EntropyUnavailableError("saying", "")), NEVER_MS).draw(4)


def test_words_of_a_defect_are_bounded_and_masked(caplog: pytest.LogCaptureFixture) -> None:
    defect = ValueError(f"{KEY} {'x' * 2**21}")
    with (
        caplog.at_level(logging.ERROR, logger="qr_sampler"),
        pytest.raises(EntropyUnavailableError) as caught,
    ):
        GuardedSource(Saying(defect), NEVER_MS).draw(4)
    assert caught.value.reason.startswith("ValueError: *** xxx")
    assert len(caught.value.reason) <= MAX_TEXT_CHARACTERS + len("ValueError: ")
    assert KEY not in caplog.text
    assert len(caplog.text) < MAX_TRACEBACK_CHARACTERS + 1000


def test_defects_of_endless_kinds_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class Inventive(Saying):
        count = 0

        def draw(self, n: int) -> Any:
            self.count += 1
            raise type(f"Error{self.count}", (Exception,), {})

    guarded = GuardedSource(Inventive(), NEVER_MS)
    with caplog.at_level(logging.ERROR, logger="qr_sampler"):
        for _ in range(50):
            with pytest.raises(EntropyUnavailableError):
                guarded.draw(1)
    assert len(caplog.records) == 16


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        (SourceStatus(available=np.bool_(True)), SourceStatus(available=True)),  # type: ignore[arg-type]
        (
            SourceStatus(available=False, reason=f"{KEY}\n{'x' * 2**21}"),
            SourceStatus(available=False, reason="*** " + "x" * (MAX_TEXT_CHARACTERS - 7) + "..."),
        ),
        (7, SourceStatus(available=False, reason="answered with int instead of a status")),
        (SystemExit(3), SourceStatus(available=False, reason="SystemExit: 3")),
        (KeyboardInterrupt(), SourceStatus(available=False, reason="KeyboardInterrupt")),
        (
            SourceStatus(available=np.zeros(2)),  # type: ignore[arg-type]
            SourceStatus(available=False, reason="ValueError: The truth value of an array"),
        ),
    ],
)
def test_a_status_is_plain(told: Any, kept: SourceStatus) -> None:
    guarded = GuardedSource(Saying(told), NEVER_MS)
    for status in (guarded.status(), guarded.status()):
        assert type(status.available) is bool
        assert status.available == kept.available
        assert status.reason.startswith(kept.reason)


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        (
            SourceLimits(
                max_bytes_per_request=np.int64(9),  # type: ignore[arg-type]
                max_requests_per_minute=np.float32(0.5),  # type: ignore[arg-type]
                max_bytes_per_day=9,
            ),
            SourceLimits(max_bytes_per_request=9, max_requests_per_minute=0.5, max_bytes_per_day=9),
        ),
        (
            SourceLimits(
                max_bytes_per_request=0,
                max_requests_per_minute=math.nan,
                max_bytes_per_day="9",  # type: ignore[arg-type]
            ),
            SourceLimits(),
        ),
        (7, SourceLimits()),
        (SystemExit(3), SourceLimits()),
    ],
)
def test_limits_are_plain(told: Any, kept: SourceLimits) -> None:
    limits = GuardedSource(Saying(told), NEVER_MS).limits
    assert limits == kept
    assert type(limits.max_bytes_per_request) in (int, type(None))


class Stubborn(str):
    """A text that answers for itself."""

    __slots__ = ()

    def __str__(self) -> str:
        return self

    def replace(self, *arguments: Any) -> str:
        raise AssertionError

    def isprintable(self) -> bool:
        return True


def test_a_text_is_a_str_and_nothing_else() -> None:
    text = plain_text(Stubborn(f"{KEY}\ud800"), [KEY])
    assert (text, type(text)) == (r"***\ud800", str)


class Mute(Exception):  # noqa: N818 - the name is not what matters
    def __str__(self) -> str:
        raise SystemExit(3)


def test_an_exception_that_cannot_speak_is_named() -> None:
    assert words_of(Mute()) == "Mute: its text is not available (SystemExit)"
    assert "Mute" in traceback_text(Mute())
    assert words_of(KeyError()) == "KeyError"
    assert traceback_text(ValueError("\ud800")).encode()


def test_an_ordinary_error_comes_from_no_signal() -> None:
    assert not is_signal(ValueError())
    assert not is_signal(SystemExit())
