# SPDX-License-Identifier: Apache-2.0
"""Sources with one fault each, and the only clause of the contract that may notice it.

Collected by ``test_core_planted_faults.py``, in a process of its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import pytest

from qr_sampler import EntropyDraw, EntropySource, EntropyUnavailableError, SourceLimits
from qr_sampler.entropy import SourceStatus
from qr_sampler.testing import EntropySourceContract, StampedWriter


class Device:
    """A stand-in for hardware that counts what it generates."""

    def __init__(self) -> None:
        self.generated = 0
        self.broken = False
        self.silent = False

    def measure(self, n: int) -> bytes:
        if self.broken or self.silent:
            raise EntropyUnavailableError("stand-in", "no answer from the device")
        self.generated += n
        return os.urandom(n)


class Sound(EntropySource):
    """Has no fault."""

    def __init__(self, device: Device) -> None:
        self.device = device

    @property
    def name(self) -> str:
        return "stand-in"

    def get_random_bytes(self, n: int) -> bytes:
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        return self.device.measure(n)


class SoundWithLimit(Sound):
    limits = SourceLimits(max_bytes_per_request=100)


class Nameless(Sound):
    name = ""


class NeverAnswers(Sound):
    def get_random_bytes(self, n: int) -> bytes:
        threading.Event().wait()
        return b""


class ShortAnswers(Sound):
    """Returns what one packet holds."""

    def get_random_bytes(self, n: int) -> bytes:
        return super().get_random_bytes(n)[:512]


class SharedBuffer(Sound):
    """Hands out the same buffer each time."""

    _buffer: Any = bytearray()

    def get_random_bytes(self, n: int) -> bytes:
        self._buffer[:] = super().get_random_bytes(n)
        return self._buffer  # type: ignore[no-any-return]


class ChangedLater(Sound):
    """Hands out a new buffer each time, and writes into the old one."""

    _buffer: Any = bytearray()

    def get_random_bytes(self, n: int) -> bytes:
        self._buffer[:] = bytes(len(self._buffer))
        self._buffer = bytearray(super().get_random_bytes(n))
        return self._buffer  # type: ignore[no-any-return]


class SharedFloats(Sound):
    _numbers = np.empty(1000)

    def get_random_float64(self, shape: Any, out: Any = None) -> Any:
        numbers = super().get_random_float64(shape, out)
        if out is not None:
            return out
        kept = self._numbers[: numbers.size].reshape(numbers.shape)
        kept[...] = numbers
        return kept


class NegativeAccepted(Sound):
    def get_random_bytes(self, n: int) -> bytes:
        return super().get_random_bytes(max(n, 0))


class NegativeUnavailable(Sound):
    def get_random_bytes(self, n: int) -> bytes:
        if n < 0:
            raise EntropyUnavailableError(self.name, "nothing there")
        return super().get_random_bytes(n)


class ClosedInterval(Sound):
    def get_random_float64(self, shape: Any, out: Any = None) -> Any:
        return np.ones(shape)


class CoarseLattice(Sound):
    def get_random_float64(self, shape: Any, out: Any = None) -> Any:
        return np.full(shape, 2.0**-54)


class OutIgnored(Sound):
    def get_random_float64(self, shape: Any, out: Any = None) -> Any:
        return super().get_random_float64(shape)


class OutUnchecked(Sound):
    def get_random_float64(self, shape: Any, out: Any = None) -> Any:
        numbers = super().get_random_float64(shape)
        if out is None:
            return numbers
        with suppress(ValueError):
            out[...] = numbers
        return out


class StuckBit(Sound):
    def get_random_bytes(self, n: int) -> bytes:
        return bytes(byte & 0x7F for byte in super().get_random_bytes(n))


class StuckValue(Sound):
    def get_random_bytes(self, n: int) -> bytes:
        data = bytearray(super().get_random_bytes(n))
        data[::50] = b"\x55" * len(data[::50])
        return bytes(data)


class NumPyScalars(Sound):
    """Passes on what its library returns."""

    def draw(self, n: int) -> EntropyDraw:
        return changed(super().draw(n), device_timestamp_ns=np.int64(12))


class NumPyLimits(Sound):
    limits = SourceLimits(max_bytes_per_request=np.int64(100))  # type: ignore[arg-type]


class TellsItsKey(Sound):
    secrets = ("key-1",)
    recorded_settings: ClassVar[dict[str, object]] = {"url": "https://example.org/?key=key-1"}


class SettingsNoJsonHolds(Sound):
    recorded_settings: ClassVar[dict[str, object]] = {"rate": np.float32(1.0)}


class StatusIsText(Sound):
    def status(self) -> SourceStatus:
        return "fine"  # type: ignore[return-value]

    is_available = True

    def probe(self) -> SourceStatus:
        return SourceStatus(available=not (self.device.broken or self.device.silent), reason="x")


class RequestedTooEarly(Sound):
    def draw(self, n: int) -> EntropyDraw:
        return changed(super().draw(n), requested_ns=0)


class AnonymousDraw(Sound):
    def draw(self, n: int) -> EntropyDraw:
        return changed(super().draw(n), source="someone else")


class OriginLost(Sound):
    def draw(self, n: int) -> EntropyDraw:
        return changed(super().draw(n), origin=type(self).origin)


class OneBlockForAllRows(Sound):
    def draw_rows(self, contexts: Any, sizes: Any) -> EntropyDraw:
        return self.draw(max(sizes, default=0))


class LimitIgnored(Sound):
    limits = SourceLimits(max_bytes_per_request=64)

    def draw(self, n: int) -> EntropyDraw:
        return changed(super().draw(n), requests=1)


class ThreadAtConstruction(Sound):
    """Fills a queue from the start."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._done = threading.Event()
        self._ahead: list[bytes] = []
        self._thread = threading.Thread(target=self._fill, daemon=True)
        self._thread.start()

    def _fill(self) -> None:
        while not self._done.wait(0.001):
            if len(self._ahead) < 8:
                self._ahead.append(self.device.measure(64))

    def get_random_bytes(self, n: int) -> bytes:
        if n == 64 and self._ahead:
            return self._ahead.pop()
        return super().get_random_bytes(n)

    def close(self) -> None:
        self._done.set()


class DrawsAtConstruction(Sound):
    def __init__(self, device: Device) -> None:
        super().__init__(device)
        device.measure(1)


class DrawsOnStatus(Sound):
    def status(self) -> SourceStatus:
        with suppress(EntropyUnavailableError):
            self.device.measure(1)
        return SourceStatus(available=True)


class Cache(Sound):
    """Remembers the answer for each length."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._remembered = lru_cache(device.measure)

    def get_random_bytes(self, n: int) -> bytes:
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        return self._remembered(n)


class Pool(Sound):
    """Serves from a pool that it fills when it is empty."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._pool = b""
        self._lock = threading.Lock()

    def get_random_bytes(self, n: int) -> bytes:
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        with self._lock:
            if len(self._pool) < n:
                self._pool += self.device.measure(max(n, 8192))
            answer, self._pool = self._pool[:n], self._pool[n:]
        if self.device.broken:
            raise EntropyUnavailableError(self.name, "unplugged")
        return answer


class PrefetchInBackground(Sound):
    """Measures on after the first draw."""

    _thread: Any = None
    _done = threading.Event()

    def get_random_bytes(self, n: int) -> bytes:
        data = super().get_random_bytes(n)
        if self._thread is None:
            self._done = threading.Event()
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        return data

    def _run(self) -> None:
        while not self._done.wait(0.001):
            with suppress(EntropyUnavailableError):
                self.device.measure(1)

    def close(self) -> None:
        self._done.set()


class ReadsAhead(Sound):
    """Reads the next answer before it returns this one, so that the counts seem right."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._next = b""
        self._lock = threading.Lock()

    def get_random_bytes(self, n: int) -> bytes:
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        with self._lock:
            missing = n - len(self._next)
            data = self._next + (self.device.measure(missing) if missing > 0 else b"")
            self._next = data[n:]
            with suppress(EntropyUnavailableError):
                self._next += self.device.measure(64)
            return data[:n]


class Substitute(Sound):
    """Serves the system's bytes where the device has none."""

    def get_random_bytes(self, n: int) -> bytes:
        try:
            return super().get_random_bytes(n)
        except EntropyUnavailableError:
            return os.urandom(n)


class NoDeadline(Sound):
    def get_random_bytes(self, n: int) -> bytes:
        if self.device.silent:
            threading.Event().wait()
        return super().get_random_bytes(n)


class LeakyFault(Sound):
    def get_random_bytes(self, n: int) -> bytes:
        if self.device.broken:
            raise OSError("the driver's own error")
        return super().get_random_bytes(n)


class LeakyAfterUse(Sound):
    """Opens well, and breaks in another way when it is open."""

    _is_open = False

    def get_random_bytes(self, n: int) -> bytes:
        if self.device.broken and self._is_open:
            raise OSError("the driver's own error")
        data = super().get_random_bytes(n)
        self._is_open = True
        return data


class ProbeFromMemory(Sound):
    """Says what it believes instead of asking."""

    def probe(self) -> SourceStatus:
        return SourceStatus(available=True)


class BrokenProbe(Sound):
    def probe(self) -> SourceStatus:
        return SourceStatus(available=False, reason="not implemented")


class AvailableOnlyAtFirst(Sound):
    """Calls itself unavailable while it works."""

    _used = False

    def get_random_bytes(self, n: int) -> bytes:
        self._used = True
        return super().get_random_bytes(n)

    def status(self) -> SourceStatus:
        return SourceStatus(available=not self._used, reason="busy")


class RacingThreads(Sound):
    """Keeps the answer where the next call of another thread finds it."""

    _answer = b""

    def get_random_bytes(self, n: int) -> bytes:
        self._answer = super().get_random_bytes(n)
        time.sleep(0.002)
        return self._answer


class KeystreamOfTwins(Sound):
    """Stretches a seed of its first draw; a fork inherits the seed and the position."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._seed = b""
        self._position = 0
        self._lock = threading.Lock()

    def get_random_bytes(self, n: int) -> bytes:
        data = super().get_random_bytes(n)
        with self._lock:
            self._seed = self._seed or data or os.urandom(16)
            self._position += 1
            key = self._seed + self._position.to_bytes(8, "little")
        return hashlib.shake_256(key).digest(n)


class DeafAfterFork(Sound):
    """Leaves the work to a thread that a fork does not have."""

    _pool: Any = None

    def get_random_bytes(self, n: int) -> bytes:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1)
        return self._pool.submit(super().get_random_bytes, n).result()  # type: ignore[no-any-return]


class ClosesOnce(Sound):
    _closed = False

    def close(self) -> None:
        if self._closed:
            raise RuntimeError("closed already")
        self._closed = True

    def get_random_bytes(self, n: int) -> bytes:
        self._closed = False
        return super().get_random_bytes(n)


class BrittleAfterClose(Sound):
    _closed = False

    def get_random_bytes(self, n: int) -> bytes:
        if self._closed:
            raise AttributeError("'NoneType' object has no attribute 'read'")
        return super().get_random_bytes(n)

    def close(self) -> None:
        self._closed = True


def changed(draw: EntropyDraw, **values: Any) -> EntropyDraw:
    return dataclasses.replace(draw, **values)


class Checks(EntropySourceContract):
    """The whole contract, with all that an author can provide but a stream."""

    __test__ = False
    kind: ClassVar[Callable[..., EntropySource]]

    @pytest.fixture
    def device(self) -> Device:
        return Device()

    @pytest.fixture
    def source(self, device: Device) -> Iterator[EntropySource]:
        source = type(self).kind(device)
        yield source
        with suppress(RuntimeError):
            source.close()

    @pytest.fixture
    def generation_log(self, device: Device) -> Callable[[], int]:
        return lambda: device.generated

    @pytest.fixture
    def fault(self, device: Device) -> Callable[[], None]:
        return lambda: setattr(device, "broken", True)

    @pytest.fixture
    def silence(self, device: Device) -> Callable[[], None]:
        return lambda: setattr(device, "silent", True)


class TestDrawsAtImport(EntropySourceContract):
    caught_by = "test_import_draws_nothing"

    @pytest.fixture
    def source(self) -> EntropySource:
        from noisy_module import DrawsAtImport

        return DrawsAtImport()


class Stream(EntropySource):
    """Reads a pipe as it is."""

    name = "stream"

    def __init__(self, reader: int) -> None:
        self._reader = reader

    def get_random_bytes(self, n: int) -> bytes:
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        data = b""
        while len(data) < n:
            data += os.read(self._reader, n - len(data))
        return data


class FlushedStream(Stream):
    """Drops first what has waited: 64 kilobytes, the capacity of a pipe."""

    def get_random_bytes(self, n: int) -> bytes:
        os.set_blocking(self._reader, False)
        with suppress(BlockingIOError):
            os.read(self._reader, 1 << 16)
        os.set_blocking(self._reader, True)
        return super().get_random_bytes(n)


class ChecksOfStreams(EntropySourceContract):
    __test__ = False
    kind: ClassVar[Callable[..., EntropySource]]

    @pytest.fixture
    def pipe(self) -> Iterator[tuple[int, int]]:
        ends = os.pipe()
        os.set_blocking(ends[1], False)
        yield ends
        for end in ends:
            os.close(end)

    @pytest.fixture
    def stamped_writer(self, pipe: tuple[int, int]) -> Iterator[StampedWriter]:
        writer = StampedWriter(lambda piece: os.write(pipe[1], piece), piece_bytes=256)
        yield writer
        writer.stop()

    @pytest.fixture
    def source(self, pipe: tuple[int, int], stamped_writer: StampedWriter) -> EntropySource:
        return type(self).kind(pipe[0])


class TestStaleStream(ChecksOfStreams):
    __test__ = True
    kind = Stream
    caught_by = "test_no_byte_is_older_than_its_draw"


class TestFlushedStream(ChecksOfStreams):
    __test__ = True
    kind = FlushedStream
    caught_by = ""
    not_applicable: ClassVar[dict[str, str]] = {
        "test_threads_share_no_bytes": "its mode of reading is common to all threads"
    }


PLANTED: dict[Callable[..., EntropySource], str] = {
    Sound: "",
    SoundWithLimit: "",
    Nameless: "test_identity_is_stated",
    NeverAnswers: "test_an_answer_comes_in_time",
    ShortAnswers: "test_length_is_exact",
    SharedBuffer: "test_answers_share_no_buffer",
    ChangedLater: "test_answers_share_no_buffer",
    SharedFloats: "test_answers_share_no_buffer",
    NegativeAccepted: "test_negative_length_is_refused",
    NegativeUnavailable: "test_negative_length_is_refused",
    ClosedInterval: "test_floats_are_uniform_lattice_points",
    CoarseLattice: "test_floats_are_uniform_lattice_points",
    OutIgnored: "test_floats_fill_the_array_given",
    OutUnchecked: "test_unusable_float_arrays_are_refused",
    StuckBit: "test_output_is_not_grossly_defective",
    StuckValue: "test_output_is_not_grossly_defective",
    NumPyScalars: "test_draws_hold_plain_values",
    NumPyLimits: "test_draws_hold_plain_values",
    TellsItsKey: "test_recorded_settings_are_plain_and_not_secret",
    SettingsNoJsonHolds: "test_recorded_settings_are_plain_and_not_secret",
    StatusIsText: "test_status_is_plain",
    RequestedTooEarly: "test_draw_carries_its_provenance",
    AnonymousDraw: "test_draw_carries_its_provenance",
    OriginLost: "test_draw_carries_the_origin",
    OneBlockForAllRows: "test_rows_are_served_in_one_draw",
    LimitIgnored: "test_draw_respects_the_limits",
    ThreadAtConstruction: "test_construction_starts_no_thread",
    DrawsAtConstruction: "test_construction_generates_nothing",
    DrawsOnStatus: "test_passive_questions_generate_nothing",
    Cache: "test_nothing_is_delivered_twice",
    PrefetchInBackground: "test_nothing_is_generated_between_calls",
    Pool: "test_every_answer_is_generated_after_its_request",
    ReadsAhead: "test_a_silent_device_delivers_nothing",
    Substitute: "test_a_silent_device_delivers_nothing",
    NoDeadline: "test_a_silent_device_ends_in_time",
    LeakyFault: "test_fault_means_unavailable",
    LeakyAfterUse: "test_fault_after_use_means_unavailable",
    ProbeFromMemory: "test_fault_is_reported_not_raised_by_passive_calls",
    BrokenProbe: "test_probe_draws_and_reports",
    AvailableOnlyAtFirst: "test_availability_is_true",
    RacingThreads: "test_threads_share_no_bytes",
    KeystreamOfTwins: "test_a_fork_gets_bytes_of_its_own",
    DeafAfterFork: "test_a_fork_gets_bytes_of_its_own",
    ClosesOnce: "test_close_is_idempotent",
    BrittleAfterClose: "test_use_after_close_works_or_says_unavailable",
}

HANG = {NeverAnswers, NoDeadline, DeafAfterFork}
"""What is waited for in vain need not be waited for long."""

for kind, clause in PLANTED.items():
    members = {"__test__": True, "kind": kind, "caught_by": clause, "__module__": __name__}
    if kind in HANG:
        members["patience_s"] = 1.0
    globals()[f"Test{kind.__name__}"] = type(f"Test{kind.__name__}", (Checks,), members)
