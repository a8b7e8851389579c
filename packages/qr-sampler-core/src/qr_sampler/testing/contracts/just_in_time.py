# SPDX-License-Identifier: Apache-2.0
"""Clauses about when bytes come to be: after they were asked for, and never again."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType
from typing import Final

import numpy as np
import pytest

from qr_sampler.entropy.source import EntropySource
from qr_sampler.testing.contracts.calls import THREAD_PREFIX
from qr_sampler.testing.contracts.clauses import clause
from qr_sampler.testing.contracts.quiet_import import noises_of_import
from qr_sampler.testing.contracts.source_clauses import (
    EXACT,
    OWN,
    PLAIN_STATUS,
    TIMELY,
    UNREPEATED,
    UNUSABLE,
    SourceClauses,
    assert_disjoint,
    required,
)
from qr_sampler.testing.stamped_writer import StampedWriter

__all__ = ["RESTING", "THREADLESS", "UNAGED", "JustInTimeClauses"]

RESTING: Final = "test_nothing_is_generated_between_calls"
UNAGED: Final = "test_no_byte_is_older_than_its_draw"
THREADLESS: Final = "test_construction_starts_no_thread"

_OF_PYTHON: Final = {"abc", "builtins", "typing"}

_ENDING_S: Final = 1.0

_PILE_BYTES: Final = 9_000
"""Made between two draws: more than twice what a terminal queues."""


class JustInTimeClauses(SourceClauses):
    """No byte that a draw returns existed before it."""

    @clause()
    def test_import_draws_nothing(self, source: EntropySource) -> None:
        """Importing the module of the source opens no device, connects nowhere, starts no thread.

        What it measures without any of these is for :meth:`generation_log` to tell.
        """
        module = type(source).__module__
        noises = noises_of_import(module)
        if noises is None:
            pytest.skip(f"{module} has no name that another process could import it by")
        assert noises == (), f"import {module} {', '.join(noises)}"

    @clause()
    def test_construction_starts_no_thread(self, source: EntropySource) -> None:
        """Nothing of the source's module runs before it is asked: a fork would lose it."""
        due_s = time.monotonic() + _ENDING_S
        # Those of earlier tests may be about to end.
        while (running := list(_threads_of(source))) and time.monotonic() < due_s:
            time.sleep(0.01)
        assert running == [], f"threads run code of {type(source).__module__}: {running}"

    @clause(THREADLESS)
    def test_construction_generates_nothing(
        self, source: EntropySource, generation_log: Callable[[], int] | None
    ) -> None:
        """Just in time: constructing a source measures nothing."""
        assert required(generation_log, "generation_log")() == 0, f"{source.name} drew too early"

    @clause(PLAIN_STATUS, UNUSABLE, THREADLESS)
    def test_passive_questions_generate_nothing(
        self, source: EntropySource, generation_log: Callable[[], int] | None
    ) -> None:
        """Status, availability, limits and refused calls leave the device alone."""
        log = required(generation_log, "generation_log")
        before = log()
        assert source.status() == source.status()
        assert source.is_available in (True, False)
        assert source.limits == source.limits
        with suppress(ValueError):
            source.get_random_float64(4, out=np.empty(5))
        assert log() == before

    @clause(TIMELY, EXACT, OWN)
    def test_nothing_is_delivered_twice(self, source: EntropySource) -> None:
        """No stretch of one answer returns in a later one."""
        if self.constant:
            pytest.skip("the answers of this source repeat by design")
        assert_disjoint([source.get_random_bytes(64) for _ in range(16)])

    @clause(TIMELY, EXACT, THREADLESS)
    def test_nothing_is_generated_between_calls(
        self, source: EntropySource, generation_log: Callable[[], int] | None
    ) -> None:
        """No prefetch: once a call has returned, the device rests."""
        log = required(generation_log, "generation_log")
        source.get_random_bytes(64)
        at_rest = log()
        time.sleep(0.05)
        assert log() == at_rest

    @clause(TIMELY, EXACT, UNREPEATED, THREADLESS, RESTING)
    def test_every_answer_is_generated_after_its_request(
        self, source: EntropySource, generation_log: Callable[[], int] | None
    ) -> None:
        """Just in time: each call finds at least its own number of bytes freshly generated."""
        log = required(generation_log, "generation_log")
        for n in (64, 1, 64):
            before = log()
            source.get_random_bytes(n)
            assert log() - before >= n, "bytes came from an earlier measurement"

    @clause(TIMELY, EXACT, OWN)
    def test_no_byte_is_older_than_its_draw(
        self, source: EntropySource, stamped_writer: StampedWriter | None
    ) -> None:
        """What waited in a driver, a pipe or a socket is dropped before the answer is read."""
        if stamped_writer is None:
            pytest.skip("override the fixture 'stamped_writer' to enable this check")
        for _ in range(3):
            stamped_writer.await_bytes(_PILE_BYTES)
            draw = source.draw(64)
            stale = stamped_writer.stale_bytes(draw.data, draw.requested_ns)
            assert stale == 0, f"{stale} of 64 bytes had waited since before the draw"


def _threads_of(source: EntropySource) -> Iterator[str]:
    """Yields the names of other threads that run code of the modules that define *source*."""
    modules = {kind.__module__ for kind in type(source).__mro__} - _OF_PYTHON
    files = {getattr(sys.modules.get(module), "__file__", None) for module in modules}
    own = threading.get_ident()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 - the documented way
        name = names.get(ident, "")
        if ident != own and not name.startswith(THREAD_PREFIX) and files & set(_files_of(frame)):
            yield name


def _files_of(frame: FrameType | None) -> Iterator[str | None]:
    while frame is not None:
        yield frame.f_code.co_filename
        frame = frame.f_back
