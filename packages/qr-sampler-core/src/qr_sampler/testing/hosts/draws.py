# SPDX-License-Identifier: Apache-2.0
"""Clauses about when a host draws, and for whom."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from qr_sampler.testing.contracts.clauses import clause
from qr_sampler.testing.hosts.clauses import (
    BATCHED,
    ECONOMICAL,
    IDLE,
    RECORDED,
    SETTLED,
    TIMED,
    HostClauses,
    RunHost,
)
from qr_sampler.testing.hosts.driver import HostRequest
from qr_sampler.testing.hosts.watched_run import BLOCK_BYTES

__all__ = ["DrawClauses"]


class DrawClauses(HostClauses):
    """A draw follows the logits that it decides, and there is none without such logits."""

    @clause()
    def test_nothing_is_drawn_without_a_request(self, run_host: RunHost) -> None:
        """To start a host and to end it costs no bytes."""
        run = run_host()
        run.end()
        assert run.witness.draws == []

    @clause(RECORDED, BATCHED, IDLE)
    def test_nothing_is_drawn_for_rows_that_emit_nothing(self, run_host: RunHost) -> None:
        """Not for padding, an unfinished prefill, or the rows of texts that have ended."""
        self.check_wasted_blocks(run_host, prompt_tokens=(3, 40, 9))

    def check_wasted_blocks(self, run_host: RunHost, prompt_tokens: Sequence[int]) -> None:
        """Checks that texts of different lengths cost their tokens and those of late steps.

        Args:
            run_host: Starts a run.
            prompt_tokens: Number of tokens of each of three prompts.
        """
        run = run_host()
        texts = run.generate(
            *(
                HostRequest(max_tokens=count, prompt_tokens=length)
                for count, length in zip((1, 6, 3), prompt_tokens, strict=True)
            )
        )
        emitted = sum(len(text.handed_over) for text in texts)
        wasted = run.witness.bytes_drawn // BLOCK_BYTES - emitted
        most = self.late_steps * len(texts)
        assert wasted <= most, f"{wasted} blocks more than the {emitted} tokens; expected {most}"

    @clause(RECORDED, SETTLED, BATCHED, ECONOMICAL)
    def test_every_byte_is_in_a_record_or_a_discard(self, run_host: RunHost) -> None:
        """What the source delivered is what the ledger tells of."""
        run = run_host()
        run.generate(*(HostRequest(max_tokens=count) for count in (2, 5, 3)))
        run.check()

    @clause(RECORDED, BATCHED, ECONOMICAL)
    def test_rows_of_a_step_share_a_draw(self, run_host: RunHost) -> None:
        """A batch asks its source once a step, however many rows it has."""
        run = run_host()
        run.generate(*[HostRequest(max_tokens=5)] * 3)
        draws, most = len(run.witness.draws), 5 + self.late_steps
        assert draws <= most, f"{draws} draws for the steps of texts of 5 tokens"

    @clause(RECORDED, IDLE)
    def test_records_give_the_times_of_their_draws(self, run_host: RunHost) -> None:
        """Logits, request, bytes and token follow each other, by the clock of the source."""
        run = run_host()
        (text,) = run.generate(HostRequest(max_tokens=5))
        for record, handed_over_ns in zip(run.records(text), text.times_ns, strict=True):
            asked, answered = record["t_request_ns"], record["t_received_ns"]
            inside = [
                draw
                for draw in run.witness.draws
                if asked <= draw.began_ns <= draw.ended_ns <= answered
            ]
            where = f"token {record['position']}"
            assert record["t_logits_ns"] is not None, f"{where}: no time of its logits"
            assert record["t_logits_ns"] <= asked, f"{where}: asked before its logits were complete"
            assert inside, f"{where}: no draw between its request and its answer"
            assert answered <= handed_over_ns, f"{where}: handed over before its bytes were here"

    @clause(RECORDED, BATCHED, TIMED)
    def test_tokens_are_decided_by_bytes_of_their_own_draws(self, run_host: RunHost) -> None:
        """None by bytes that had been delivered before they were asked for, or to another row."""
        run = run_host()
        for text in run.generate(*(HostRequest(max_tokens=count) for count in (6, 2, 4))):
            for record in run.records(text):
                asked, answered = record["t_request_ns"], record["t_received_ns"]
                first = record["offset"] or 0
                blocks = [
                    draw.data[first : first + record["block_bytes"]]
                    for draw in run.witness.draws
                    if asked <= draw.began_ns <= draw.ended_ns <= answered
                ]
                recorded = (record["block_sum"], record["block_ones"])
                assert recorded in map(_summary, blocks), (
                    f"{text.key}, token {record['position']}: its bytes are not those that the "
                    "source delivered between its request and its answer"
                )

    @clause(RECORDED, TIMED)
    def test_nothing_is_drawn_before_logits_are_complete(self, run_host: RunHost) -> None:
        """By the engine's own account of its steps, not by what the records say."""
        run = run_host()
        (text,) = run.generate(HostRequest(max_tokens=6))
        complete = list(run.driver.logits_times_ns)
        assert complete, "the driver has to tell when logits are complete: logits_times_ns"
        draws = run.witness.draws
        for number, draw in enumerate(draws):
            steps = bisect_right(complete, draw.began_ns)
            assert steps > number, f"draw {number} was made after the logits of {steps} steps"
        # Where the driver counts a step too many, as that of a prompt, nothing else is too early.
        left = len(complete) - bisect_right(complete, draws[-1].ended_ns)
        most = self.late_steps
        assert left <= most, f"logits of {left} steps were complete after the last draw, not {most}"
        for record in run.records(text):
            known = bisect_right(complete, record["t_request_ns"])
            latest = complete[known - 1]
            assert record["t_logits_ns"] >= latest, (
                f"token {record['position']}: its record has the logits complete "
                f"{latest - record['t_logits_ns']} ns before they were"
            )


def _summary(block: bytes) -> tuple[int, int]:
    """Returns what a record says of the bytes that decided its token: their sum, and their ones."""
    return sum(block), int.from_bytes(block, "big").bit_count()
