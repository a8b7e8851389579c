# SPDX-License-Identifier: Apache-2.0
"""What becomes of a loop whose source fails, or whose logits have no distribution."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qr_sampler import EntropyUnavailableError
from qr_sampler.testing import ConstantEntropySource, records_in
from qr_sampler_local import LocalSampler

END = 9


def test_an_operator_may_stop_then(make_loop: Callable[..., Any]) -> None:
    loop = make_loop(fallback_mode="error")
    with loop.sampler:
        sequences = [loop.sequence(end_tokens=[]) for _ in range(2)]
        loop.step(*sequences)
        loop.source.fails = True
        with pytest.raises(EntropyUnavailableError, match="unplugged"):
            loop.step(*sequences)
        # The loop may try again.
        loop.source.fails = False
        loop.step(*sequences)
    assert [len(sequence.tokens) for sequence in sequences] == [2, 2]
    loop.check(sequences)


def test_the_bytes_of_a_step_that_fails_are_accounted_for(make_loop: Callable[..., Any]) -> None:
    loop = make_loop("near", "far", fallback_mode="error")
    with loop.sampler:
        sequences = [loop.sequence(end_tokens=[], entropy_source=name) for name in ("near", "far")]
        loop.sources[1].fails = True
        with pytest.raises(EntropyUnavailableError, match="'far'"):
            loop.step(*sequences)
    assert [sequence.tokens for sequence in sequences] == [[], []]
    (discard,) = loop.lines("discard")
    assert (discard["reason"], loop.sources[0].requests) == ("step_failed", [64])
    loop.check(sequences)


@pytest.mark.parametrize("end_tokens", [[END, 3], []])
def test_an_operator_may_end_texts_then(
    make_loop: Callable[..., Any], end_tokens: list[int]
) -> None:
    loop = make_loop("near", "far", fallback_mode="end_request")
    with loop.sampler:
        lost = loop.sequence(end_tokens=end_tokens, entropy_source="far")
        kept = loop.sequence(end_tokens=[])
        loop.step(lost, kept)
        loop.sources[1].fails = True
        tokens = loop.step(lost, kept)
        assert tokens[0] == (END if end_tokens else 0)
        assert (lost.ended, lost.finish_reason, kept.ended) == (True, "forced", False)
        loop.sources[1].fails = False
        loop.step(lost, kept)
        assert loop.sources[1].requests == [64]
    (forced,) = loop.lines("forced")
    assert (forced["sequence"], forced["source"]) == (lost.name, "far")
    assert "unplugged" in forced["reason"]
    assert {line["sequence"]: line["reason"] for line in loop.lines("end")} == {
        lost.name: "forced",
        kept.name: "closed",
    }
    loop.check([lost, kept])


def test_a_fallback_is_flagged(make_loop: Callable[..., Any]) -> None:
    loop = make_loop("near", "spare", fallback_mode="spare")
    with loop.sampler:
        sequence = loop.sequence(end_tokens=[])
        loop.step(sequence)
        loop.source.fails = True
        loop.step(sequence)
    tokens = [line for line in records_in(loop.folder) if line["kind"] == "token"]
    assert [(line["source"], line["fallback"]) for line in tokens] == [
        ("near", False),
        ("spare", True),
    ]
    assert tokens[1]["fallback_reason"] == "near: unplugged"
    loop.check([sequence])


def test_sources_of_the_caller_are_tested_like_others(make_loop: Callable[..., Any]) -> None:
    loop = make_loop()
    loop.sampler.close()
    settings = loop.settings.model_copy(update={"health": True, "fallback_mode": "error"})

    class Stuck(ConstantEntropySource):
        min_entropy_per_byte = None  # type: ignore[assignment]

    with LocalSampler("made up", settings, sources=[Stuck(name="numbers")]) as sampler:
        sequence = sampler.sequence()
        with pytest.raises(EntropyUnavailableError, match="health"):
            sampler.step(loop.logits(1), [sequence])


@pytest.mark.parametrize(
    ("value", "reason", "token"),
    [(math.nan, "nan", 5), (math.inf, "infinite", 5), (-math.inf, "masked", 0)],
)
def test_rows_without_a_distribution_stop_nobody(
    loop: Any, value: float, reason: str, token: int
) -> None:
    with loop.sampler as sampler:
        sequences = [loop.sequence(end_tokens=[]) for _ in range(3)]
        logits = loop.logits(3)
        if reason == "masked":
            logits[1] = value
        else:
            logits[1, 5] = value
        tokens = sampler.step(logits, sequences)
        assert (tokens[1], loop.source.requests) == (token, [128])
        loop.step(*sequences)
    (undecided,) = loop.lines("undecided")
    assert (undecided["sequence"], undecided["reason"]) == (sequences[1].name, reason)
    loop.check(sequences)


def test_rows_without_a_distribution_end_where_only_entropy_may_choose(
    make_loop: Callable[..., Any],
) -> None:
    loop = make_loop(fallback_mode="end_request")
    with loop.sampler as sampler:
        sequence = loop.sequence()
        assert sampler.step(np.full((1, 16), np.nan, np.float32), [sequence]) == [END]
        assert sequence.finish_reason == "forced"
    assert loop.source.requests == []
    loop.check([sequence])
