# SPDX-License-Identifier: Apache-2.0
"""Clauses about draws: what they say of themselves, and what a source says of itself."""

from __future__ import annotations

import dataclasses
import json
import time
from enum import Enum
from typing import Any, Final

import pytest

from qr_sampler.entropy.draw import EntropyDraw, Origin, SourceStatus
from qr_sampler.entropy.row_context import RowContext
from qr_sampler.entropy.source import EntropySource
from qr_sampler.testing.contracts.clauses import clause
from qr_sampler.testing.contracts.source_clauses import (
    EXACT,
    SAMPLE_BYTES,
    TIMELY,
    SourceClauses,
)

__all__ = ["DrawClauses"]

_PLAIN: Final = "test_draws_hold_plain_values"
_PROVENANCE: Final = "test_draw_carries_its_provenance"

_PLAIN_TYPES: Final = (str, bytes, int, bool, float, type(None), Origin)


class DrawClauses(SourceClauses):
    """A draw tells the story of its bytes, in values that any record can hold."""

    @clause()
    def test_status_is_plain(self, source: EntropySource) -> None:
        """Whether it works is said in a SourceStatus and in a bool."""
        assert isinstance(source.status(), SourceStatus)
        assert isinstance(source.is_available, bool)

    @clause(TIMELY, EXACT)
    def test_draws_hold_plain_values(self, source: EntropySource) -> None:
        """Texts, whole numbers and so on of Python itself: scalars of NumPy become no JSON."""
        draw = source.draw(64)
        assert isinstance(draw, EntropyDraw)
        for owner in (draw, draw.origin, source.limits):
            for field in dataclasses.fields(owner):
                value = getattr(owner, field.name)
                plain = type(value) in _PLAIN_TYPES or isinstance(value, Enum)
                said = f"{type(owner).__name__}.{field.name}"
                assert plain, f"{said} is of type {type(value).__module__}.{type(value).__name__}"

    @clause()
    def test_recorded_settings_are_plain_and_not_secret(self, source: EntropySource) -> None:
        """What a ledger begins with is JSON, and none of the source's secrets is in it."""
        text = json.dumps(dict(source.recorded_settings), allow_nan=False)
        for secret in source.secrets:
            assert isinstance(secret, str)
            # Where an assertion fails, pytest prints what it compares.
            recorded = json.dumps(secret)[1:-1] in text
            assert not recorded, "recorded_settings hold a secret"

    @clause(TIMELY, EXACT, _PLAIN)
    def test_draw_carries_its_provenance(self, source: EntropySource) -> None:
        """A draw says where its bytes came from and when, in the order in which things happened."""
        before_ns = time.monotonic_ns()
        draw = source.draw(64)
        after_ns = time.monotonic_ns()
        assert len(draw.data) == 64
        assert before_ns <= draw.requested_ns <= draw.received_ns <= after_ns
        assert draw.wall_time_ns > 0
        assert draw.requests >= 1
        assert draw.fallback or draw.source == source.name
        assert bool(draw.fallback_reason) == draw.fallback

    @clause(TIMELY, EXACT, _PLAIN, _PROVENANCE)
    def test_rows_are_served_in_one_draw(
        self, source: EntropySource, rows: tuple[list[RowContext], list[int]]
    ) -> None:
        """The blocks of rows come in a draw, each as long as its row asks for."""
        contexts, sizes = rows
        assert isinstance(source.serves_rows, bool)
        before_ns = time.monotonic_ns()
        draw: Any = source.draw_rows(contexts, sizes)
        assert isinstance(draw, EntropyDraw)
        assert type(draw.data) is bytes
        assert len(draw.data) == sum(sizes)
        assert before_ns <= draw.requested_ns <= draw.received_ns <= time.monotonic_ns()
        assert draw.fallback or draw.source == source.name
        assert source.draw_rows([], []).data == b""

    @clause(TIMELY, EXACT, _PLAIN, _PROVENANCE)
    def test_draw_carries_the_origin(self, source: EntropySource) -> None:
        """The distribution that the registry noted on the source travels in its draws."""
        source.origin = Origin("contract-check", "1.2.3")
        draw = source.draw(1)
        assert draw.fallback or draw.origin == Origin("contract-check", "1.2.3")

    @clause(TIMELY, EXACT)
    def test_draw_of_nothing(self, source: EntropySource) -> None:
        """A draw of no bytes is a draw with no bytes."""
        assert source.draw(0).data == b""

    @clause(TIMELY, EXACT)
    def test_draw_respects_the_limits(self, source: EntropySource) -> None:
        """A draw beyond the largest request is split, one within it is not."""
        largest = source.limits.max_bytes_per_request or 64
        if largest > SAMPLE_BYTES:
            pytest.skip(f"exceeding the limit would spend more than {largest} bytes")
        assert source.draw(largest).requests == 1
        if source.limits.max_bytes_per_request is not None:
            draw = source.draw(largest + 1)
            assert len(draw.data) == largest + 1
            assert draw.requests == 2
