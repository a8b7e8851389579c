# SPDX-License-Identifier: Apache-2.0
"""Clauses about the life of a source: threads, forks and its end."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

import pytest

from qr_sampler.entropy.source import EntropySource
from qr_sampler.errors import EntropyUnavailableError
from qr_sampler.testing.contracts.clauses import clause
from qr_sampler.testing.contracts.forks import answer_of_a_fork
from qr_sampler.testing.contracts.just_in_time import THREADLESS
from qr_sampler.testing.contracts.source_clauses import (
    AVAILABLE,
    EXACT,
    FRESH,
    OWN,
    SILENT,
    TIMELY,
    UNREPEATED,
    SourceClauses,
    assert_disjoint,
)

__all__ = ["LifetimeClauses"]

_CLOSABLE: Final = "test_close_is_idempotent"
_THREADS: Final = "test_threads_share_no_bytes"


class LifetimeClauses(SourceClauses):
    """An instance is shared by threads, outlives forks and may be closed at any time."""

    @clause(TIMELY, EXACT, OWN, UNREPEATED)
    def test_threads_share_no_bytes(self, source: EntropySource) -> None:
        """Concurrent calls get exact lengths and nothing twice."""
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(source.get_random_bytes, [64] * 64))
        assert [len(answer) for answer in answers] == [64] * 64
        if not self.constant:
            assert_disjoint(answers)

    @clause(TIMELY, EXACT, OWN, UNREPEATED, FRESH, SILENT, _THREADS, THREADLESS)
    def test_a_fork_gets_bytes_of_its_own(self, source: EntropySource) -> None:
        """A child serves what was constructed before, and nothing that its parent serves, too.

        A child of a process that has used the source before may find it unavailable.
        """
        if not hasattr(os, "fork"):
            pytest.skip("this system does not fork")
        early = answer_of_a_fork(lambda: source.get_random_bytes(64), self.patience_s)
        assert early is not None, "constructed before the fork, it is unavailable in the child"
        answers = [early, source.get_random_bytes(64)]
        late = answer_of_a_fork(lambda: source.get_random_bytes(64), self.patience_s)
        answers += [source.get_random_bytes(64)] + ([] if late is None else [late])
        assert [len(answer) for answer in answers] == [64] * len(answers)
        if not self.constant:
            assert_disjoint(answers)

    @clause(TIMELY, AVAILABLE)
    def test_probe_draws_and_reports(self, source: EntropySource) -> None:
        """A probe of a working source says available."""
        assert source.probe().available

    @clause()
    def test_close_is_idempotent(self, source: EntropySource) -> None:
        """Closing twice, used or unused, is no error."""
        source.close()
        source.close()

    @clause(TIMELY, EXACT, _CLOSABLE)
    def test_use_after_close_works_or_says_unavailable(self, source: EntropySource) -> None:
        """After close a source either reopens or is unavailable; it never misbehaves otherwise."""
        source.get_random_bytes(8)
        source.close()
        with suppress(EntropyUnavailableError):
            assert len(source.get_random_bytes(8)) == 8
        source.close()
