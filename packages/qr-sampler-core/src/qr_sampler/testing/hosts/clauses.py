# SPDX-License-Identifier: Apache-2.0
"""What the clauses about hosts share: what their author provides, and the names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest

from qr_sampler.testing.contracts.clauses import Contract
from qr_sampler.testing.hosts.watched_run import WatchedRun

__all__ = [
    "BATCHED",
    "COMPLETE",
    "ECONOMICAL",
    "ENDED",
    "IDLE",
    "OPTIONS",
    "RECORDED",
    "SETTLED",
    "TIMED",
    "HostClauses",
    "RunHost",
]

RECORDED: Final = "test_each_token_handed_over_has_one_record"
SETTLED: Final = "test_records_say_what_was_emitted"
BATCHED: Final = "test_texts_of_a_batch_have_their_own_records"
ENDED: Final = "test_a_text_ends_once_in_the_ledger"
OPTIONS: Final = "test_options_reach_their_row"
IDLE: Final = "test_nothing_is_drawn_without_a_request"
ECONOMICAL: Final = "test_nothing_is_drawn_for_rows_that_emit_nothing"
TIMED: Final = "test_records_give_the_times_of_their_draws"
COMPLETE: Final = "test_every_byte_is_in_a_record_or_a_discard"

RunHost = Callable[..., WatchedRun]
"""Starts a :class:`WatchedRun`; takes its sources and further settings."""


class HostClauses(Contract):
    """What the author of a host provides for its tests."""

    engine: ClassVar[str]
    """What the genesis record has to call the engine: the name, or the beginning of the name that
    comes before its version."""

    model: ClassVar[str]
    """What it has to call the model."""

    late_steps: ClassVar[int] = 0
    """Most steps that the engine makes of a text before it learns that the text has ended. Their
    tokens are drawn, thrown away and have discards."""

    @pytest.fixture
    def start(self) -> Any:
        """A callable that starts a host. To be overridden.

        It takes the settings of the deployment and the sources that these name, by name, for the
        session (``own_sources``), and returns a :class:`~qr_sampler.testing.HostDriver`.

        Engines that take long to start are started once, by a fixture of a wider scope; what has to
        be new each time is the session.
        """
        raise NotImplementedError("override the fixture 'start' to return what starts a host")

    @pytest.fixture
    def run_host(self, start: Any, tmp_path: Path) -> Iterator[RunHost]:
        """Starts runs of the host, and ends those that a clause has left open."""
        begun: list[WatchedRun] = []

        def run(sources: Any = None, **settings: Any) -> WatchedRun:
            folder = tmp_path / f"run-{len(begun)}"
            folder.mkdir()
            begun.append(WatchedRun(start, folder, sources, **settings))
            return begun[-1]

        yield run
        for each in begun:
            each.end()
