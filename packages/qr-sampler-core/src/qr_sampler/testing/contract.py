# SPDX-License-Identifier: Apache-2.0
"""What every entropy source must do, as a pytest class to inherit from."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import groupby
from typing import Any, ClassVar, Final

import numpy as np
import pytest

from qr_sampler.entropy.draw import EntropyDraw, JitClass, Origin, SourceStatus
from qr_sampler.entropy.row_context import RowContext
from qr_sampler.entropy.source import EntropySource
from qr_sampler.errors import EntropyUnavailableError

__all__ = ["EntropySourceContract"]

_SAMPLE_BYTES: Final = 4096

_MAX_VALUE_COUNT: Final = 60
"""Binomial(4096, 1/256) reaches it, for any of the 256 values, with probability 6.5e-15."""

_MAX_BIT_DEVIATION: Final = 224
"""Seven standard deviations of Binomial(4096, 1/2): 1.7e-11 over eight bit positions, two-sided."""

_MAX_RUN: Final = 7
"""A run of eight equal bytes has probability below 4096 / 256**7 = 5.7e-14."""

_WINDOW_BYTES: Final = 32
"""Independent bytes repeat a window of this length with negligible probability: below 1e-12 in any
test here when each holds 2 bits of min-entropy, and 1e-70 when it holds 8."""


class EntropySourceContract:
    """Inherit, override the fixture :meth:`source`, and pytest checks a source by the contract.

    Two more fixtures are optional, and the checks that need them are skipped without them:
    :meth:`generation_log` and :meth:`fault`. A source that serves rows overrides :meth:`rows` if it
    knows only certain ones. No check draws more than about 8 kilobytes. The
    statistical ones look for gross failure only; a perfect source fails any of them with
    probability below 1e-9 per run.

    Examples:
        >>> import pytest
        >>> from qr_sampler.testing import ConstantEntropySource
        >>> class TestConstantSource(EntropySourceContract):
        ...     constant = True
        ...     uniform = False
        ...
        ...     @pytest.fixture
        ...     def source(self):
        ...         return ConstantEntropySource()
    """

    constant: ClassVar[bool] = False
    """Set for a double whose answers repeat; skips the checks that no byte is delivered twice."""

    uniform: ClassVar[bool] = True
    """Unset for a source that is biased on purpose; skips the statistical checks."""

    @pytest.fixture
    def source(self) -> Any:
        """The source under test, freshly constructed. To be overridden; may yield and clean up."""
        raise NotImplementedError("override the fixture 'source' to return the source under test")

    @pytest.fixture
    def generation_log(self) -> Any:
        """A callable without arguments: how many bytes the device has generated so far.

        It must learn that by a route other than the source's own methods, for example from the far
        end of a connection, and start from 0 when :meth:`source` is constructed. A device that
        oversamples may report more bytes than it delivers, never fewer.
        """
        return None

    @pytest.fixture
    def fault(self) -> Any:
        """A callable without arguments that makes the source of this test unavailable."""
        return None

    @pytest.fixture
    def rows(self) -> Any:
        """Rows that the source serves: their contexts, and the sizes of their blocks."""
        contexts = [RowContext("run", "sequence", row, b"", f"request {row}") for row in range(3)]
        return contexts, [16, 0, 48]

    def test_identity_is_stated(self, source: EntropySource) -> None:
        """The source says what it is called, what it claims and what it does to raw bits."""
        assert isinstance(source.name, str)
        assert source.name
        assert source.name == source.name.strip()
        assert isinstance(source.jit_class, JitClass)
        assert isinstance(source.conditioning, str)
        assert source.conditioning

    @pytest.mark.parametrize("n", [0, 1, 7, 64, _SAMPLE_BYTES])
    def test_length_is_exact(self, source: EntropySource, n: int) -> None:
        """Exactly as many bytes as asked for, as ``bytes``."""
        data = source.get_random_bytes(n)
        assert type(data) is bytes
        assert len(data) == n

    def test_negative_length_is_refused(self, source: EntropySource) -> None:
        """A negative length is a mistake of the caller, not an unavailable source."""
        with pytest.raises(ValueError, match="negative"):
            source.get_random_bytes(-1)
        with pytest.raises(ValueError, match="negative"):
            source.draw(-1)

    @pytest.mark.parametrize("shape", [0, 5, (), (2, 3)])
    def test_floats_are_uniform_lattice_points(
        self, source: EntropySource, shape: int | tuple[int, ...]
    ) -> None:
        """Float64 of the shape asked for, in [0, 1), multiples of 2**-53."""
        numbers = source.get_random_float64(shape)
        assert numbers.dtype == np.float64
        assert numbers.shape == np.empty(shape).shape
        assert np.all((numbers >= 0.0) & (numbers < 1.0))
        assert np.all(np.ldexp(numbers, 53) % 1.0 == 0.0)

    def test_floats_fill_the_array_given(self, source: EntropySource) -> None:
        """``out`` is filled in place and returned."""
        out = np.full((4, 2), -1.0)
        assert source.get_random_float64((4, 2), out=out) is out
        assert np.all((out >= 0.0) & (out < 1.0))

    def test_unusable_float_arrays_are_refused(self, source: EntropySource) -> None:
        """Wrong dtype is a TypeError, wrong shape or layout a ValueError."""
        read_only = np.empty(4)
        read_only.flags.writeable = False
        wrong_dtype: Any = np.empty(4, dtype=np.float32)
        with pytest.raises(TypeError):
            source.get_random_float64(4, out=wrong_dtype)
        for unusable in (np.empty(5), np.empty((4, 1)), np.empty(8)[::2], read_only):
            with pytest.raises(ValueError, match="out"):
                source.get_random_float64(4, out=unusable)

    def test_draw_carries_its_provenance(self, source: EntropySource) -> None:
        """A draw says where its bytes came from and when, in the order in which things happened."""
        before_ns = time.monotonic_ns()
        draw = source.draw(64)
        after_ns = time.monotonic_ns()
        assert isinstance(draw, EntropyDraw)
        assert type(draw.data) is bytes
        assert len(draw.data) == 64
        assert before_ns <= draw.requested_ns <= draw.received_ns <= after_ns
        assert type(draw.wall_time_ns) is int
        assert draw.wall_time_ns > 0
        assert draw.requests >= 1
        assert draw.fallback or draw.source == source.name
        assert bool(draw.fallback_reason) == draw.fallback

    def test_rows_are_served_in_one_draw(
        self, source: EntropySource, rows: tuple[list[RowContext], list[int]]
    ) -> None:
        """The blocks of rows come in a draw, each as long as its row asks for."""
        contexts, sizes = rows
        assert isinstance(source.serves_rows, bool)
        before_ns = time.monotonic_ns()
        draw = source.draw_rows(contexts, sizes)
        assert isinstance(draw, EntropyDraw)
        assert type(draw.data) is bytes
        assert len(draw.data) == sum(sizes)
        assert before_ns <= draw.requested_ns <= draw.received_ns <= time.monotonic_ns()
        assert draw.fallback or draw.source == source.name
        assert source.draw_rows([], []).data == b""

    def test_draw_carries_the_origin(self, source: EntropySource) -> None:
        """The distribution that the registry noted on the source travels in its draws."""
        source.origin = Origin("contract-check", "1.2.3")
        draw = source.draw(1)
        assert draw.fallback or draw.origin == Origin("contract-check", "1.2.3")

    def test_draw_of_nothing(self, source: EntropySource) -> None:
        """A draw of no bytes is a draw with no bytes."""
        assert source.draw(0).data == b""

    def test_draw_respects_the_limits(self, source: EntropySource) -> None:
        """A draw beyond the largest request is split, one within it is not."""
        largest = source.limits.max_bytes_per_request or 64
        if largest > _SAMPLE_BYTES:
            pytest.skip(f"exceeding the limit would spend more than {largest} bytes")
        assert source.draw(largest).requests == 1
        if source.limits.max_bytes_per_request is not None:
            draw = source.draw(largest + 1)
            assert len(draw.data) == largest + 1
            assert draw.requests == 2

    def test_nothing_is_delivered_twice(self, source: EntropySource) -> None:
        """No stretch of one answer returns in a later one."""
        self._skip_if_constant()
        _assert_disjoint([source.get_random_bytes(64) for _ in range(16)])

    def test_threads_share_no_bytes(self, source: EntropySource) -> None:
        """Concurrent calls get exact lengths and nothing twice."""
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(source.get_random_bytes, [64] * 64))
        assert [len(answer) for answer in answers] == [64] * 64
        if not self.constant:
            _assert_disjoint(answers)

    def test_output_is_not_grossly_defective(self, source: EntropySource) -> None:
        """No stuck value, no stuck bit, no long run: false-alarm probability below 2e-11."""
        if self.constant or not self.uniform:
            pytest.skip("the source does not claim uniform bytes")
        sample = np.frombuffer(source.get_random_bytes(_SAMPLE_BYTES), dtype=np.uint8)
        counts = np.bincount(sample, minlength=256)
        ones = np.unpackbits(sample).reshape(-1, 8).sum(axis=0)
        assert counts.max() < _MAX_VALUE_COUNT, f"byte {counts.argmax()} comes {counts.max()} times"
        assert np.abs(ones - _SAMPLE_BYTES / 2).max() <= _MAX_BIT_DEVIATION, f"bit counts {ones}"
        assert max(len(list(run)) for _, run in groupby(sample.tolist())) <= _MAX_RUN

    def test_construction_generates_nothing(
        self, source: EntropySource, generation_log: Callable[[], int] | None
    ) -> None:
        """Just in time: constructing a source measures nothing."""
        assert _required(generation_log, "generation_log")() == 0, f"{source.name} drew too early"

    def test_passive_questions_generate_nothing(
        self, source: EntropySource, generation_log: Callable[[], int] | None
    ) -> None:
        """Status, availability, limits and refused calls leave the device alone."""
        log = _required(generation_log, "generation_log")
        assert source.status() == source.status()
        assert source.is_available == source.status().available
        assert source.limits == source.limits
        with suppress(ValueError):
            source.get_random_float64(4, out=np.empty(5))
        assert log() == 0

    def test_every_answer_is_generated_after_its_request(
        self, source: EntropySource, generation_log: Callable[[], int] | None
    ) -> None:
        """Just in time: each call finds at least its own number of bytes freshly generated."""
        log = _required(generation_log, "generation_log")
        for n in (64, 1, 64):
            before = log()
            source.get_random_bytes(n)
            assert log() - before >= n, "bytes came from an earlier measurement"

    def test_nothing_is_generated_between_calls(
        self, source: EntropySource, generation_log: Callable[[], int] | None
    ) -> None:
        """No prefetch: once a call has returned, the device rests."""
        log = _required(generation_log, "generation_log")
        source.get_random_bytes(64)
        at_rest = log()
        time.sleep(0.05)
        assert log() == at_rest

    def test_status_is_plain(self, source: EntropySource) -> None:
        """A working source calls itself available."""
        assert isinstance(source.status(), SourceStatus)
        assert source.status().available
        assert source.is_available is True

    def test_probe_draws_and_reports(self, source: EntropySource) -> None:
        """A probe of a working source says available."""
        assert source.probe().available

    def test_close_is_idempotent(self, source: EntropySource) -> None:
        """Closing twice, used or unused, is no error."""
        source.close()
        source.close()

    def test_use_after_close_works_or_says_unavailable(self, source: EntropySource) -> None:
        """After close a source either reopens or is unavailable; it never misbehaves otherwise."""
        source.get_random_bytes(8)
        source.close()
        with suppress(EntropyUnavailableError):
            assert len(source.get_random_bytes(8)) == 8
        source.close()

    def test_fault_means_unavailable(
        self, source: EntropySource, fault: Callable[[], None] | None
    ) -> None:
        """A broken device is EntropyUnavailableError on every route, again and again."""
        _required(fault, "fault")()
        attempts: list[Callable[[], object]] = [
            lambda: source.get_random_bytes(8),
            lambda: source.draw(8),
            lambda: source.get_random_float64(2),
            lambda: source.draw_rows([RowContext("run", "sequence", 0, b"")], [8]),
            lambda: source.get_random_bytes(8),
        ]
        for attempt in attempts:
            with pytest.raises(EntropyUnavailableError) as caught:
                attempt()
            assert caught.value.source
            assert caught.value.reason
            assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)

    def test_fault_after_use_means_unavailable(
        self, source: EntropySource, fault: Callable[[], None] | None
    ) -> None:
        """A device that breaks between two draws spoils the second one."""
        source.get_random_bytes(8)
        _required(fault, "fault")()
        with pytest.raises(EntropyUnavailableError):
            source.get_random_bytes(8)

    def test_fault_is_reported_not_raised_by_passive_calls(
        self, source: EntropySource, fault: Callable[[], None] | None
    ) -> None:
        """With a broken device, probe says why, and status and close do not raise."""
        _required(fault, "fault")()
        probe = source.probe()
        assert not probe.available
        assert probe.reason
        assert isinstance(source.status(), SourceStatus)
        source.close()

    def _skip_if_constant(self) -> None:
        if self.constant:
            pytest.skip("the answers of this source repeat by design")


def _required(fixture: Callable[[], Any] | None, name: str) -> Callable[[], Any]:
    if fixture is None:
        pytest.skip(f"override the fixture {name!r} to enable this check")
    return fixture


def _windows(data: bytes) -> Iterator[bytes]:
    for start in range(len(data) - _WINDOW_BYTES + 1):
        yield data[start : start + _WINDOW_BYTES]


def _assert_disjoint(answers: list[bytes]) -> None:
    windows = [window for answer in answers for window in _windows(answer)]
    repeated = len(windows) - len(set(windows))
    assert repeated == 0, f"{repeated} stretches of {_WINDOW_BYTES} bytes were delivered twice"
