# SPDX-License-Identifier: Apache-2.0
"""Clauses about texts that do not end by themselves, and about callers in several threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from qr_sampler.testing.contracts.clauses import clause
from qr_sampler.testing.hosts.clauses import COMPLETE, ENDED, HostClauses, RunHost
from qr_sampler.testing.hosts.driver import HostRequest
from qr_sampler.testing.hosts.watched_run import ReaderError, WatchedText

__all__ = ["InterruptionClauses"]

_SURVIVES: Final = "test_an_error_in_the_reader_loses_no_record"

_MOMENT_S: Final = 0.5


class InterruptionClauses(HostClauses):
    """Whatever becomes of a text, its tokens have their records and its other bytes discards."""

    @clause(COMPLETE)
    def test_what_is_thrown_away_has_a_discard(self, run_host: RunHost) -> None:
        """A token that was sampled and not taken leaves a discard that says why, and no record."""
        run = run_host()
        thrown, other = run.generate(
            HostRequest(max_tokens=5, throw_away_after=2), HostRequest(max_tokens=5)
        )
        assert [len(text.handed_over) for text in (thrown, other)] == [5, 5]
        sequence = run.records(thrown)[0]["sequence"]
        discards = [line for line in run.kind("discard") if line["sequence"] == sequence]
        assert discards, "a token was thrown away and no discard tells of it"
        assert all(line["reason"] for line in discards), "a discard gives no reason"
        run.check()

    @clause(COMPLETE, ENDED)
    def test_an_aborted_text_keeps_its_records(self, run_host: RunHost) -> None:
        """Its tokens so far have records, its end says that it departed; the others go on."""
        run = run_host()
        aborted, other = run.generate(
            HostRequest(max_tokens=9, abort_after=3), HostRequest(max_tokens=6)
        )
        assert 3 <= len(aborted.handed_over) < 9, "the driver has to abort after 3 tokens"
        assert len(other.handed_over) == 6
        sequences = {line["sequence"]: line["request_key"] for line in run.kind("sequence")}
        reasons = {sequences[line["sequence"]]: line["reason"] for line in run.kind("end")}
        assert reasons == {aborted.key: "departed", other.key: "stop"}, f"ends {reasons}"
        run.check()

    @clause(COMPLETE)
    @pytest.mark.parametrize("error", [ReaderError, KeyboardInterrupt])
    def test_an_error_in_the_reader_loses_no_record(
        self, run_host: RunHost, error: type[BaseException]
    ) -> None:
        """What was handed over has records, the token at which the reader raised included.

        Of tokens that were on the way no record says that they arrived.
        """
        run = run_host()
        with pytest.raises(error):
            run.generate(*[HostRequest(max_tokens=8)] * 3, raise_at=8, error=error())
        run.check()

    @clause(COMPLETE, _SURVIVES)
    def test_an_end_on_its_way_is_not_recorded_as_emitted(self, run_host: RunHost) -> None:
        """The last token of a text is like the others: emitted when it has been handed over."""
        run = run_host()
        with pytest.raises(ReaderError):
            run.generate(*[HostRequest(max_tokens=2)] * 3, raise_at=5, error=ReaderError("full"))
        run.check()

    @clause(COMPLETE, _SURVIVES)
    def test_the_host_goes_on_after_an_error(self, run_host: RunHost) -> None:
        """What comes after an interrupted generation is recorded as if nothing had been."""
        run = run_host()
        with pytest.raises(ReaderError):
            run.generate(HostRequest(max_tokens=8), raise_at=3, error=ReaderError("full"))
        run.generate(HostRequest(max_tokens=4), HostRequest(max_tokens=2))
        run.check()

    @clause(COMPLETE)
    def test_two_threads_keep_their_texts_apart(self, run_host: RunHost) -> None:
        """Both generate at once, as far as the engine lets them."""
        run = run_host()
        begun = [threading.Event(), threading.Event()]

        def meet(number: int) -> None:
            begun[number].set()
            # An engine that serves one after the other is served.
            begun[1 - number].wait(_MOMENT_S)

        def generate(number: int) -> list[WatchedText]:
            requests = [
                HostRequest(max_tokens=count, options={"qr_request_key": f"{number}.{count}"})
                for count in (2, 5)
            ]
            return run.generate(*requests, on_first=lambda: meet(number))

        with ThreadPoolExecutor(2) as pool:
            for texts in pool.map(generate, range(2)):
                assert [len(text.handed_over) for text in texts] == [2, 5]
        run.check()
