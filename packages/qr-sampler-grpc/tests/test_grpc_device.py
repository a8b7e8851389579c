# SPDX-License-Identifier: Apache-2.0
"""The device behind the listeners: turns, refusals, health, and what is never measured."""

from __future__ import annotations

import dataclasses
import logging
import pickle
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from qr_sampler import EntropyUnavailableError, FallbackEntropySource
from qr_sampler.entropy import EntropyDraw
from qr_sampler.testing import ConstantEntropySource
from qr_sampler_grpc.device import Device, MeasurementRefusedError, Refusal
from qr_sampler_grpc.device.generate import GenerateSource
from qr_sampler_grpc.device.telemetry import Telemetry
from qr_sampler_grpc.protocol.attestation import SigningKey, signed_message
from qr_sampler_grpc.testing.devices import Gate
from qr_sampler_grpc.testing.keys import make_key_pair


class Notes(Telemetry):
    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def answered(self, method: str, code: str) -> None:
        self.events.append(("answered", method, code))

    def measured(self, n: int, seconds: float) -> None:
        assert seconds >= 0.0
        self.events.append(("measured", n))

    def streams(self, change: int) -> None:
        self.events.append(("streams", change))

    def health(self, *, serving: bool) -> None:
        self.events.append(("health", serving))


def refusal_of(attempt: Callable[[], object]) -> tuple[Refusal, str]:
    with pytest.raises(MeasurementRefusedError) as caught:
        attempt()
    return caught.value.kind, str(caught.value)


def ask_with_seven(n: int) -> bytes:
    return b"\x07" * n


def test_a_function_is_enough() -> None:
    device = Device(ask_with_seven)
    before_ns = time.time_ns()
    measured = device.measure(3)
    assert before_ns <= measured.timestamp_ns <= time.time_ns()
    assert (measured.data, measured.device_id) == (b"\x07\x07\x07", "ask_with_seven")
    assert Device(lambda n: bytes(n)).device_id == "device"
    assert Device(ask_with_seven, "unit 3").measure(1).device_id == "unit 3"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_function_may_return_any_kind_of_bytes(kind: type) -> None:
    assert Device(lambda n: kind(bytes(n))).measure(2).data == b"\0\0"


@pytest.mark.parametrize("n", [0, -1, 101])
def test_an_impossible_size_is_named_before_anything_is_counted(n: int) -> None:
    source = ConstantEntropySource()
    device = Device(source, max_bytes_per_request=100, requests_per_minute=1)
    assert refusal_of(lambda: device.measure(n)) == (
        Refusal.MALFORMED,
        f"bytes_needed={n}; ask for 1 to 100",
    )
    assert source.requests == []
    assert len(device.measure(100).data) == 100


def test_what_exceeds_a_days_quota_is_never_served() -> None:
    device = Device(ask_with_seven, bytes_per_day=10)
    kind, words = refusal_of(lambda: device.measure(11))
    assert (kind, words) == (Refusal.MALFORMED, "bytes_needed=11; ask for 1 to 10")


def test_a_commitment_has_a_longest_length() -> None:
    device = Device(ask_with_seven)
    assert device.measure(1, commitment=b"c" * 64).data
    kind, words = refusal_of(lambda: device.measure(1, commitment=b"c" * 65))
    assert (kind, words) == (Refusal.MALFORMED, "a commitment of 65 bytes; send 64 or less")


def test_a_quota_is_used_up_before_anything_is_measured() -> None:
    source = ConstantEntropySource()
    device = Device(source, requests_per_minute=2, clock=lambda: 0.0)
    device.measure(1, account="a")
    device.measure(1, account="a")
    assert refusal_of(lambda: device.measure(1, account="a")) == (
        Refusal.EXHAUSTED,
        "the quota of 2 requests a minute is used up; try again in 61 s",
    )
    device.measure(1, account="b")
    assert source.requests == [1, 1, 1]


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (b"x", Refusal.UNAVAILABLE, "asked for 2 bytes, received 1"),
        (b"xxx", Refusal.UNAVAILABLE, "asked for 2 bytes, received 3"),
        (b"", Refusal.UNAVAILABLE, "asked for 2 bytes, received 0"),
        ("xx", Refusal.DEFECT, "failed with TypeError"),
        ([1, 2], Refusal.DEFECT, "failed with TypeError"),
        (None, Refusal.DEFECT, "failed with TypeError"),
    ],
)
def test_a_wrong_answer_of_the_function_is_never_served(
    answer: object, kind: Refusal, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    device = Device(lambda n: answer)  # type: ignore[arg-type, return-value]
    given, words = refusal_of(lambda: device.measure(2))
    assert given is kind
    assert says in words
    assert not device._serving
    assert "not serving" in caplog.text


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (OSError("no such port"), Refusal.UNAVAILABLE, "no such port"),
        (TimeoutError(), Refusal.UNAVAILABLE, "TimeoutError"),
        (EntropyUnavailableError("laser", "too hot"), Refusal.UNAVAILABLE, "too hot"),
        (
            ZeroDivisionError("of the words nothing"),
            Refusal.DEFECT,
            "failed with ZeroDivisionError",
        ),
    ],
)
def test_an_error_of_the_function_is_reported_and_logged(
    error: Exception, kind: Refusal, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(n: int) -> bytes:
        raise error

    given, words = refusal_of(lambda: Device(fail).measure(2))
    assert given is kind
    assert says in words
    assert "of the words nothing" not in words
    # The traceback of a defect is in the log.
    assert (", in fail" in caplog.text) is (kind is Refusal.DEFECT)


def test_a_source_that_cheats_on_the_length_is_refused() -> None:
    class Short(ConstantEntropySource):
        def draw(self, n: int) -> EntropyDraw:
            return super().draw(n - 1)

    kind, words = refusal_of(lambda: Device(Short()).measure(5))
    assert kind is Refusal.UNAVAILABLE
    assert "asked for 5 bytes and gave 4" in words


def test_fallback_bytes_are_refused() -> None:
    broken = ConstantEntropySource(name="laser", fail_with="shutter closed")
    device = Device(FallbackEntropySource(broken, ConstantEntropySource(1, name="spare")))
    kind, words = refusal_of(lambda: device.measure(1))
    assert (kind, "shutter closed" in words) == (Refusal.UNAVAILABLE, True)


def test_a_commitment_reaches_a_source_that_passes_it_on() -> None:
    class Committing(ConstantEntropySource):
        commits = True

        def committed_draw(self, n: int, commitment: bytes) -> EntropyDraw:
            seen.append(commitment)
            return self.draw(n)

    seen: list[bytes] = []
    device = Device(Committing())
    device.measure(1, commitment=b"c")
    device.measure(1)
    assert seen == [b"c"]


def test_a_busy_device_is_waited_for_no_longer_than_the_time_allows() -> None:
    gate = Gate()
    device = Device(gate)
    holder = threading.Thread(target=device.measure, args=(1,))
    holder.start()
    gate.entered.wait()
    assert not device.wait_until_idle(0.0)
    for timeout_s in (0.0, -1.0, 0.01):
        kind, words = refusal_of(partial(device.measure, 1, timeout_s))
        assert kind is Refusal.TOO_LATE
        assert "busy" in words
    gate.open.set()
    holder.join()
    assert len(gate.sizes) == 1
    assert device.wait_until_idle(0.0)
    assert device._serving


def test_a_time_beyond_all_bounds_waits_for_ever() -> None:
    assert Device(ask_with_seven).measure(1, 1e300).data == b"\x07"
    assert Device(ask_with_seven).measure(1, 0.0).data == b"\x07"


def test_an_abandoned_request_is_not_measured() -> None:
    source = ConstantEntropySource()
    device = Device(source)
    kind, _ = refusal_of(lambda: device.measure(1, is_wanted=lambda: False))
    assert kind is Refusal.ABANDONED
    assert source.requests == []
    assert device._serving
    assert device.measure(1).data


def test_one_thread_at_a_time_and_no_byte_twice() -> None:
    counter = 0
    inside = threading.Lock()

    def count(n: int) -> bytes:
        nonlocal counter
        # Fails at once where two threads are inside; the pause invites them.
        assert inside.acquire(blocking=False)
        first = counter
        time.sleep(0.0001)
        counter = first + n // 8
        inside.release()
        return b"".join(number.to_bytes(8, "big") for number in range(first, counter))

    device = Device(count)
    served: list[bytes] = []

    def draw() -> None:
        served.extend(device.measure(8 * words).data for words in range(1, 41))

    threads = [threading.Thread(target=draw) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = [
        int.from_bytes(data[at : at + 8], "big") for data in served for at in range(0, len(data), 8)
    ]
    assert sorted(numbers) == list(range(8 * sum(range(1, 41))))


def test_health_is_what_the_last_measurement_says(caplog: pytest.LogCaptureFixture) -> None:
    source = ConstantEntropySource(name="laser")
    device, notes = Device(source), Notes()
    device.attach(notes)
    device.measure(2)
    source.fail_with = "shutter closed"
    for _ in range(2):
        refusal_of(lambda: device.measure(1))
    assert not device._serving
    source.fail_with = None
    device.measure(3)
    device.note_answer("M", "OK")
    device.note_streams(1)
    device.detach(notes)
    device.measure(1)
    assert notes.events == [
        ("health", True),
        ("measured", 2),
        ("health", False),
        ("measured", 3),
        ("health", True),
        ("answered", "M", "OK"),
        ("streams", 1),
    ]
    assert caplog.text.count("laser is not serving") == 1
    assert caplog.text.count("laser is serving again") == 1


def test_a_refused_request_says_nothing_about_the_device() -> None:
    device = Device(ask_with_seven, requests_per_minute=1)
    device.measure(1)
    for attempt in (lambda: device.measure(0), lambda: device.measure(1)):
        refusal_of(attempt)
    assert device._serving


def test_before_the_first_draw_the_source_speaks_for_itself() -> None:
    assert not Device(ConstantEntropySource(fail_with="unplugged"))._serving


def test_signatures_are_verified_by_another_implementation(tmp_path: Path) -> None:
    pair = make_key_pair(tmp_path)
    device = Device(ask_with_seven, "unit 3", signing_key=SigningKey(pair.private))
    measured = device.measure(5, commitment=b"c")
    signature = device.sign(measured, sequence_id=-2)
    message = signed_message(
        sequence_id=-2,
        generation_timestamp_ns=measured.timestamp_ns,
        device_id="unit 3",
        commitment=b"c",
        data=b"\x07" * 5,
    )
    pair.public_key.verify(signature, message)
    unsigned = Device(ask_with_seven)
    assert unsigned.sign(measured, sequence_id=1) == b""


def test_refusals_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(MeasurementRefusedError(Refusal.DEFECT, "words")))
    assert (error.kind, error.words, str(error)) == (Refusal.DEFECT, "words", "words")


def test_the_source_made_of_a_function_keeps_the_contract() -> None:
    source = GenerateSource(ask_with_seven)
    assert source.name == "ask_with_seven"
    assert source.get_random_bytes(0) == b""
    with pytest.raises(ValueError, match="must not be negative"):
        source.get_random_bytes(-1)
    with pytest.raises(EntropyUnavailableError, match="received 1") as caught:
        GenerateSource(lambda n: b"x").get_random_bytes(2)
    assert caught.value.dropped_bytes == 1


def test_every_telemetry_method_may_be_left_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    device = Device(ask_with_seven)
    device.attach(Telemetry())
    device.measure(1)
    device.note_answer("M", "OK")
    device.note_streams(-1)
    assert device._serving


class Relayed(ConstantEntropySource):
    """Draws that carry what another server has said of them."""

    commits = True
    said: dict[str, Any] = {}  # noqa: RUF012

    def committed_draw(self, n: int, commitment: bytes) -> EntropyDraw:
        return dataclasses.replace(self.draw(n), **self.said)


@pytest.mark.parametrize("is_client", [True, False])
@pytest.mark.parametrize("echoed", [True, False, None])
def test_a_commitment_is_returned_by_whoever_had_it(is_client: bool, echoed: bool | None) -> None:
    source = Relayed()
    source.is_client = is_client
    source.said = {"commitment_echoed": echoed}
    returned = Device(source).measure(4, commitment=b"c").commitment
    assert returned == (b"c" if echoed or (echoed is None and not is_client) else b"")


def test_what_a_source_knows_of_its_device_is_handed_on() -> None:
    source = Relayed()
    source.said = {"device_id": "é" * 200, "device_timestamp_ns": 77}
    measured = Device(source).measure(4, commitment=b"c")
    assert (measured.device_id, measured.timestamp_ns) == ("é" * 127, 77)
    assert Device(source, "unit 3").measure(4, commitment=b"c").device_id == "unit 3"


@pytest.mark.parametrize("told", [0, -1, 2**63, 1.5, "now", None])
def test_what_a_protocol_cannot_carry_is_not_handed_on(told: Any) -> None:
    source = Relayed()
    source.said = {"device_id": "a\ud800", "device_timestamp_ns": told, "wall_time_ns": 5}
    measured = Device(source).measure(4, commitment=b"c")
    assert (measured.device_id, measured.timestamp_ns) == ("a?", 5)


def test_a_refusal_tells_what_was_lost() -> None:
    def lose(n: int) -> bytes:
        raise EntropyUnavailableError("relay", "too late", dropped_bytes=99)

    with pytest.raises(MeasurementRefusedError, match=r"too late.*; 99 bytes were dropped"):
        Device(lose).measure(4)
