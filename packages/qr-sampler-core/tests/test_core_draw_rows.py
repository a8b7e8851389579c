# SPDX-License-Identifier: Apache-2.0
"""A source that serves rows hands each its own block; others are never told of rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_sampler import (
    DroppedBytes,
    EntropyDraw,
    EntropySource,
    EntropyUnavailableError,
    FallbackEntropySource,
    GuardedSource,
    RowContext,
    Settings,
    ZScoreMeanAmplifier,
)
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.testing import (
    ConstantEntropySource,
    EntropySourceContract,
    ToyHost,
    play_script,
    records_in,
)

ROWS = [RowContext("run", "first", 3, b"", "a"), RowContext("run", "second", 0, b"", "b")]


def block_of(request_key: str, position: int, size: int) -> bytes:
    return hashlib.shake_256(f"{request_key}/{position}".encode()).digest(size)


class RowSource(EntropySource):
    """The block of a row follows from its request and its position."""

    name = "device"
    blocks = False
    serves_rows = True
    unknown: frozenset[str] = frozenset()

    def get_random_bytes(self, n: int) -> bytes:
        raise EntropyUnavailableError(self.name, "it serves rows only")

    def draw_rows(self, contexts: Sequence[RowContext], sizes: Sequence[int]) -> EntropyDraw:
        for context in contexts:
            if context.request_key in self.unknown:
                raise EntropyUnavailableError(self.name, f"unknown: {context.request_key}")
        blocks = [
            block_of(row.request_key, row.position, size)
            for row, size in zip(contexts, sizes, strict=True)
        ]
        return EntropyDraw(
            data=b"".join(blocks), source=self.name, requested_ns=1, received_ns=2, wall_time_ns=3
        )


class TestRowsOfAnOrdinarySource(EntropySourceContract):
    constant = True
    uniform = False

    @pytest.fixture
    def source(self) -> EntropySource:
        return ConstantEntropySource(7)


def session_of(source: EntropySource, **settings: Any) -> SamplingSession:
    usual = {"entropy_source_type": "device", "fallback_mode": "end_request", "sample_count": 16}
    return SamplingSession(
        EngineFacts(engine="toy", model="none"),
        Settings.load(**{**usual, **settings}),
        sources={"device": source},
    )


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), overlapping=st.booleans())
def test_every_row_gets_its_own_block(
    seed: int, overlapping: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ledger = tmp_path_factory.mktemp("rows")
    session = session_of(RowSource(), ledger_dir=ledger)
    play_script(ToyHost(session, seed=seed, overlapping=overlapping), seed=seed, steps=30)
    records = [each for each in records_in(ledger) if each["kind"] == "token"]
    records += [
        each for each in records_in(ledger) if each["kind"] == "discard" and each["u"] is not None
    ]
    amplifier = ZScoreMeanAmplifier()
    for record in records:
        block = block_of(record["request_key"], record["position"], record["block_bytes"])
        expected = amplifier.amplify(np.frombuffer(block, np.uint8)[None]).u.item()
        assert record["u"] == expected


def test_rows_that_cannot_be_decided_get_no_block() -> None:
    asked: list[tuple[list[str], list[int]]] = []

    class Listening(RowSource):
        def draw_rows(self, contexts: Sequence[RowContext], sizes: Sequence[int]) -> EntropyDraw:
            asked.append(([row.request_key for row in contexts], list(sizes)))
            return super().draw_rows(contexts, sizes)

    host = ToyHost(session_of(Listening()))
    for key, size in (("a", 16), ("b", 16), ("c", 32)):
        host.add(request_key=key, sample_count=size)
    logits = np.zeros((3, 16), np.float32)
    logits[1] = -np.inf
    host.step(logits)
    host.close()
    assert asked == [(["a", "c"], [16, 32])]


def test_a_row_without_a_block_ends_alone() -> None:
    source = RowSource()
    source.unknown = frozenset({"b"})
    host = ToyHost(session_of(source))
    requests = [host.add(3, request_key=key) for key in "abc"]
    for _ in range(3):
        host.step(np.zeros((len(host.running), 16), np.float32))
    host.close()
    assert [len(request.output) for request in requests] == [3, 1, 3]
    sequence = requests[1].sequence
    assert sequence is not None
    assert "unknown: b" in sequence.failure


def test_an_ordinary_source_is_told_of_no_row(tmp_path: Path) -> None:
    class Deaf(ConstantEntropySource):
        def draw_rows(self, contexts: Sequence[RowContext], sizes: Sequence[int]) -> EntropyDraw:
            raise AssertionError("nobody asks this source for rows")

    host = ToyHost(session_of(Deaf(127, name="device"), ledger_dir=tmp_path))
    host.add(3, request_key="a")
    host.step()
    host.close()
    (token,) = [each for each in records_in(tmp_path) if each["kind"] == "token"]
    assert token["block_bytes"] == 16


def test_the_default_is_one_common_draw() -> None:
    draw = ConstantEntropySource(7).draw_rows(ROWS, [2, 3])
    assert (draw.data, draw.requests) == (bytes([7] * 5), 1)


class TestGuard:
    def guarded(self, source: EntropySource, dropped: list[DroppedBytes]) -> GuardedSource:
        return GuardedSource(source, 1000, dropped.append)

    def test_blocks_pass_as_they_are(self) -> None:
        guarded = self.guarded(RowSource(), [])
        assert guarded.serves_rows
        assert guarded.draw_rows(ROWS, [2, 3]).data == block_of("a", 3, 2) + block_of("b", 0, 3)

    @pytest.mark.parametrize(("length", "reason"), [(4, "short"), (6, "long")])
    def test_wrong_lengths_are_refused(self, length: int, reason: str) -> None:
        class Wrong(RowSource):
            def draw_rows(
                self, contexts: Sequence[RowContext], sizes: Sequence[int]
            ) -> EntropyDraw:
                return super().draw_rows(contexts[:1], [length])

        dropped: list[DroppedBytes] = []
        with pytest.raises(EntropyUnavailableError, match=f"asked for 5 bytes, received {length}"):
            self.guarded(Wrong(), dropped).draw_rows(ROWS, [2, 3])
        assert [(each.count, each.reason) for each in dropped] == [(length, reason)]

    @pytest.mark.parametrize("answer", [None, 7, b"12345", ["a", "b"]])
    def test_other_answers_are_refused(self, answer: Any) -> None:
        class Wrong(RowSource):
            def draw_rows(self, contexts: Sequence[RowContext], sizes: Sequence[int]) -> Any:
                return answer

        with pytest.raises(EntropyUnavailableError, match="instead of bytes"):
            self.guarded(Wrong(), []).draw_rows(ROWS, [2, 3])

    def test_whatever_it_raises_means_unavailable(self) -> None:
        class Broken(RowSource):
            def draw_rows(self, contexts: Sequence[RowContext], sizes: Sequence[int]) -> Any:
                raise KeyError("a")

        with pytest.raises(EntropyUnavailableError, match="KeyError"):
            self.guarded(Broken(), []).draw_rows(ROWS, [2, 3])

    def test_a_negative_size_is_the_callers_mistake(self) -> None:
        with pytest.raises(ValueError, match="negative"):
            self.guarded(RowSource(), []).draw_rows(ROWS[:1], [-1])


class TestFallback:
    def test_the_primary_serves_rows(self) -> None:
        source = FallbackEntropySource(RowSource(), ConstantEntropySource(7))
        assert source.serves_rows
        draw = source.draw_rows(ROWS, [2, 3])
        assert (draw.source, draw.fallback) == ("device", False)

    def test_the_fallback_supplies_all_of_them_and_says_so(self) -> None:
        primary = RowSource()
        primary.unknown = frozenset({"b"})
        draw = FallbackEntropySource(primary, ConstantEntropySource(7)).draw_rows(ROWS, [2, 3])
        assert draw.data == bytes([7] * 5)
        assert (draw.fallback, draw.fallback_from) == (True, "device")
        assert "unknown: b" in draw.fallback_reason
