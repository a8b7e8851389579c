# SPDX-License-Identifier: Apache-2.0
"""Clauses about sources that fail and requests that cannot be served."""

from __future__ import annotations

from typing import ClassVar, Final

import pytest

from qr_sampler.errors import EntropyUnavailableError
from qr_sampler.testing.contracts.clauses import clause
from qr_sampler.testing.hosts.clauses import COMPLETE, ENDED, IDLE, OPTIONS, HostClauses, RunHost
from qr_sampler.testing.hosts.driver import HostRequest
from qr_sampler.testing.hosts.watched_run import WatchedRun, WatchedText
from qr_sampler.testing.hosts.witness import WitnessSource

__all__ = ["FailureClauses"]

_KEY: Final = "qr_sample_count"
_FORCED: Final = "test_end_request_ends_texts_with_a_forced_token"


class FailureClauses(HostClauses):
    """A source that fails never corrupts a text silently, and the operator's policy is followed."""

    error_raised: ClassVar[type[BaseException]] = EntropyUnavailableError
    """What :meth:`HostDriver.generate` raises where the source fails and the settings say
    ``error``."""

    @clause(COMPLETE, ENDED)
    def test_end_request_ends_texts_with_a_forced_token(self, run_host: RunHost) -> None:
        """They end there and then, and the record of their last token says that it was forced."""
        witness = WitnessSource(fail_after=3)
        run = run_host({"witness": witness}, fallback_mode="end_request")
        texts = run.generate(*[HostRequest(max_tokens=12)] * 2)
        for text in texts:
            _check_forced(run, text)
            assert len(text.handed_over) < 12, f"{text.key} went on without entropy"
        reasons = sorted(line["reason"] for line in run.kind("end"))
        assert reasons == ["forced"] * 2, f"the ends say {reasons}"
        run.check(bytes_drawn=witness.bytes_drawn)

    @clause(COMPLETE, ENDED, OPTIONS, _FORCED)
    def test_only_texts_without_entropy_end(self, run_host: RunHost) -> None:
        """What draws from a source that works goes on beside what does not."""
        sources = {"witness": WitnessSource(), "other": WitnessSource("other", fail_after=2)}
        run = run_host(sources, fallback_mode="end_request", request_entropy_sources="other")
        going_on, ended = run.generate(
            HostRequest(max_tokens=8),
            HostRequest(max_tokens=8, options={"qr_entropy_source": "other"}),
        )
        kinds = {record["kind"] for record in run.records(going_on)}
        assert (kinds, len(going_on.handed_over)) == ({"token"}, 8)
        assert [record["kind"] for record in run.records(ended)] == ["token", "token", "forced"]
        run.check(bytes_drawn=sum(source.bytes_drawn for source in sources.values()))

    @clause(COMPLETE)
    def test_error_is_raised_to_the_caller(self, run_host: RunHost) -> None:
        """The generation stops, and what had been emitted has its records."""
        witness = WitnessSource(fail_after=3)
        run = run_host({"witness": witness}, fallback_mode="error")
        with pytest.raises(self.error_raised):
            run.generate(*[HostRequest(max_tokens=12)] * 2)
        assert run.kind("forced", "undecided") == []
        run.check(bytes_drawn=witness.bytes_drawn)

    @clause(COMPLETE)
    def test_fallback_is_flagged_on_its_tokens(self, run_host: RunHost) -> None:
        """Another source takes over, and the record of each of its tokens names it and says why."""
        witness, spare = WitnessSource(fail_after=2), WitnessSource("spare")
        run = run_host({"witness": witness, "spare": spare}, fallback_mode="spare")
        (text,) = run.generate(HostRequest(max_tokens=6))
        found = [(record["source"], record["fallback"]) for record in run.records(text)]
        assert found == [("witness", False)] * 2 + [("spare", True)] * 4, f"sources {found}"
        reasons = [record["fallback_reason"] for record in run.records(text)[2:]]
        assert all("told to fail" in reason for reason in reasons), f"reasons {reasons}"
        run.check(bytes_drawn=witness.bytes_drawn + spare.bytes_drawn)

    @clause(IDLE)
    def test_options_that_cannot_be_served_are_refused(self, run_host: RunHost) -> None:
        """Before anything is drawn, with the name of the key."""
        run = run_host()
        # Which error it is and what wraps it is the engine's matter.
        with pytest.raises(Exception, match=_KEY):
            run.generate(HostRequest(max_tokens=3, options={_KEY: "many"}))
        assert run.texts.pop().handed_over == []
        assert run.witness.draws == []
        assert run.kind("token", "forced", "undecided") == []


def _check_forced(run: WatchedRun, text: WatchedText) -> None:
    *before, last = run.records(text)
    kinds = [record["kind"] for record in before]
    assert kinds == ["token"] * len(before), f"{text.key} was forced {kinds} before its end"
    assert last["kind"] == "forced", f"{text.key} ends with a {last['kind']}"
    assert last["token_id"] == text.handed_over[-1], f"{text.key} ends with another token"
    assert "told to fail" in last["reason"], f"{text.key}: {last['reason']!r}"
