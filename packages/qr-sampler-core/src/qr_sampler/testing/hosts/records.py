# SPDX-License-Identifier: Apache-2.0
"""Clauses about what a host records of what it emits."""

from __future__ import annotations

from qr_sampler.testing.chain_checks import check_files
from qr_sampler.testing.contracts.clauses import clause
from qr_sampler.testing.hosts.clauses import (
    BATCHED,
    RECORDED,
    SETTLED,
    HostClauses,
    RunHost,
)
from qr_sampler.testing.hosts.driver import HostRequest
from qr_sampler.testing.hosts.watched_run import BLOCK_BYTES

__all__ = ["RecordClauses"]


class RecordClauses(HostClauses):
    """One record per emitted token, and none for others."""

    @clause()
    def test_each_token_handed_over_has_one_record(self, run_host: RunHost) -> None:
        """What a reader was given, what the host returns and what the ledger holds is the same."""
        run = run_host()
        (text,) = run.generate(HostRequest(max_tokens=6))
        tokens = [record["token_id"] for record in run.records(text)]
        assert text.returned == text.handed_over, "the driver returns other tokens than it hands on"
        assert len(text.handed_over) == 6, "the driver has to make the end token improbable"
        assert tokens == text.handed_over, f"recorded {tokens}, handed over {text.handed_over}"
        assert [record["position"] for record in run.records(text)] == list(range(6))

    @clause()
    def test_the_ledger_names_the_engine_and_the_model(self, run_host: RunHost) -> None:
        """It begins with both, so that nobody has to guess what its tokens are of."""
        run = run_host()
        run.generate(HostRequest(max_tokens=1))
        genesis = run.lines()[0]
        assert genesis["kind"] == "genesis"
        assert genesis["engine"].startswith(self.engine), f"engine {genesis['engine']!r}"
        assert genesis["model"] == self.model, f"model {genesis['model']!r}"

    @clause()
    def test_the_ledger_is_closed_and_chained(self, run_host: RunHost) -> None:
        """At the end of a run nothing waits to be written, and every line follows from the last."""
        run = run_host()
        run.generate(HostRequest(max_tokens=2))
        run.end()
        assert check_files(run.files())[-1]["kind"] == "close", "the run has ended and no ledger"

    @clause(RECORDED)
    def test_records_say_what_was_emitted(self, run_host: RunHost) -> None:
        """Of the tokens of a text that has ended it is known that they were emitted."""
        run = run_host()
        (text,) = run.generate(HostRequest(max_tokens=5))
        emitted = [record["emitted"] for record in run.records(text)]
        assert emitted == [True] * 5, f"emitted: {emitted}"

    @clause(RECORDED)
    def test_texts_of_a_batch_have_their_own_records(self, run_host: RunHost) -> None:
        """Texts that begin and end at different times keep their rows apart."""
        run = run_host()
        texts = run.generate(
            *(
                HostRequest(max_tokens=count, prompt_tokens=length)
                for count, length in ((7, 3), (2, 40), (3, 9))
            )
        )
        assert [len(text.handed_over) for text in texts] == [7, 2, 3]
        for text in texts:
            records = run.records(text)
            recorded = [record["token_id"] for record in records]
            assert recorded == text.returned == text.handed_over, text.key
            positions = [record["position"] for record in records]
            assert positions == list(range(len(records))), f"{text.key}: positions {positions}"

    @clause(RECORDED, SETTLED, BATCHED)
    def test_a_text_ends_once_in_the_ledger(self, run_host: RunHost) -> None:
        """When it ends, not when the run does: its end counts its tokens and gives the reason."""
        run = run_host()
        texts = run.generate(*(HostRequest(max_tokens=count) for count in (2, 4)))
        texts += run.generate(HostRequest(max_tokens=1))
        sequences = {line["sequence"]: line["request_key"] for line in run.kind("sequence")}
        ends = [
            (sequences[line["sequence"]], line["tokens"], line["reason"])
            for line in run.kind("end")
        ]
        expected = [(text.key, len(text.handed_over), "stop") for text in texts]
        assert sorted(ends) == sorted(expected), f"ends {ends}"
        kinds = [line["kind"] for line in run.kind("sequence", "end")]
        assert kinds[-2:] == ["sequence", "end"], "a text begins and those before it have no end"

    @clause(RECORDED, BATCHED)
    def test_options_reach_their_row(self, run_host: RunHost) -> None:
        """Each request is sampled, labelled and described as it asks, whoever is beside it."""
        run = run_host()
        requests = [
            HostRequest(
                max_tokens=2 + 2 * number,
                prompt_tokens=3 + number,
                options={
                    "qr_sample_count": BLOCK_BYTES * (1 + number),
                    "qr_fixed_temperature": 0.5 + 0.25 * number,
                    "qr_temperature_strategy": "fixed",
                    "qr_trial": f"trial {number}",
                    "qr_condition": f"condition {number}",
                },
            )
            for number in range(3)
        ]
        texts = run.generate(*requests)
        sequences = {line["request_key"]: line for line in run.kind("sequence")}
        for text in texts:
            options, line = text.request.options, sequences[text.key]
            assert line["prompt_tokens"] in (None, text.request.prompt_tokens), text.key
            assert line["stop"]["max_tokens"] == text.request.max_tokens, text.key
            for record in run.records(text):
                assert record["block_bytes"] == options["qr_sample_count"], text.key
                assert record["temperature"] == options["qr_fixed_temperature"], text.key
                assert record["trial"] == options["qr_trial"], text.key
                assert record["condition"] == options["qr_condition"], text.key
