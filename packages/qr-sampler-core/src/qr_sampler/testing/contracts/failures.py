# SPDX-License-Identifier: Apache-2.0
"""Clauses about devices that break, fall silent or are said to be what they are not."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import pytest

from qr_sampler.entropy.draw import SourceStatus
from qr_sampler.entropy.row_context import RowContext
from qr_sampler.entropy.source import EntropySource
from qr_sampler.errors import EntropyUnavailableError
from qr_sampler.testing.contracts.calls import in_time
from qr_sampler.testing.contracts.clauses import clause
from qr_sampler.testing.contracts.just_in_time import RESTING, THREADLESS, UNAGED
from qr_sampler.testing.contracts.source_clauses import (
    AVAILABLE,
    EXACT,
    FLOATS,
    FRESH,
    PLAIN_STATUS,
    SILENT,
    TIMELY,
    UNREPEATED,
    SourceClauses,
    required,
)

__all__ = ["FailureClauses"]

_ENDS: Final = "test_a_silent_device_ends_in_time"
_UNAVAILABLE: Final = "test_fault_means_unavailable"


class FailureClauses(SourceClauses):
    """A source that cannot deliver says so, in time and on every route."""

    @clause(TIMELY, EXACT, PLAIN_STATUS)
    def test_availability_is_true(self, source: EntropySource) -> None:
        """A working source calls itself available, before and after a draw."""
        for _ in range(2):
            assert source.status().available, source.status().reason
            assert source.is_available is True
            source.get_random_bytes(8)

    @clause(TIMELY)
    def test_a_silent_device_ends_in_time(
        self,
        source: EntropySource,
        silence: Callable[[], None] | None,
        fault: Callable[[], None] | None,
    ) -> None:
        """A device that sends nothing is given up by a deadline of the source's own."""
        required(silence or fault, "silence", "fault")()
        # What it raises is another clause's matter; that it ends is this one's.
        with suppress(Exception):
            in_time(lambda: source.get_random_bytes(64), self.patience_s, "get_random_bytes(64)")

    @clause(TIMELY, EXACT, UNREPEATED, THREADLESS, FRESH, RESTING, UNAGED, _ENDS)
    def test_a_silent_device_delivers_nothing(
        self,
        source: EntropySource,
        silence: Callable[[], None] | None,
        fault: Callable[[], None] | None,
    ) -> None:
        """No prefetch, no cache, no substitute: what did not come now was made before."""
        quieten = required(silence or fault, "silence", "fault")
        for n in (64, 7, 64):
            source.get_random_bytes(n)
        quieten()
        for n in (1, 64):
            # As above.
            with suppress(Exception):
                answer = source.get_random_bytes(n)
                pytest.fail(f"the device was silent and {len(answer)} bytes came")

    @clause(TIMELY, EXACT, FLOATS, _ENDS, SILENT)
    def test_fault_means_unavailable(
        self, source: EntropySource, fault: Callable[[], None] | None
    ) -> None:
        """A broken device is EntropyUnavailableError on every route, again and again."""
        required(fault, "fault")()
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

    @clause(TIMELY, EXACT, _ENDS, SILENT, _UNAVAILABLE)
    def test_fault_after_use_means_unavailable(
        self, source: EntropySource, fault: Callable[[], None] | None
    ) -> None:
        """A device that breaks between two draws spoils the second one."""
        break_it = required(fault, "fault")
        source.get_random_bytes(8)
        break_it()
        with pytest.raises(EntropyUnavailableError):
            source.get_random_bytes(8)

    @clause(TIMELY, AVAILABLE, _ENDS, SILENT, _UNAVAILABLE)
    def test_fault_is_reported_not_raised_by_passive_calls(
        self, source: EntropySource, fault: Callable[[], None] | None
    ) -> None:
        """With a broken device, probe says why, and status and close do not raise."""
        required(fault, "fault")()
        probe = source.probe()
        assert not probe.available, "the device is broken and probe() says available"
        assert probe.reason
        assert isinstance(source.status(), SourceStatus)
        source.close()
