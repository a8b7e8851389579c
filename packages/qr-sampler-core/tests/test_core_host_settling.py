# SPDX-License-Identifier: Apache-2.0
"""Tokens of hosts that hand them over themselves are emitted when they have arrived."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qr_sampler import Settings
from qr_sampler.errors import ConfigError
from qr_sampler.host import (
    EngineFacts,
    SamplingSession,
    StepRows,
    StopConditions,
    TokenSequence,
    records_of,
)
from qr_sampler.testing import ConstantEntropySource


@pytest.fixture
def session(tmp_path: Path) -> Iterator[SamplingSession]:
    settings = Settings.load(
        entropy_source_type="constant",
        request_entropy_sources="spare",
        fallback_mode="error",
        sample_count=8,
        max_ks_distance=1,
        ledger_dir=tmp_path,
    )
    sources = {name: ConstantEntropySource(name=name) for name in ("constant", "spare")}
    made = SamplingSession(EngineFacts(engine="test", model="none"), settings, sources=sources)
    yield made
    made.close()


def begun(session: SamplingSession, max_tokens: int = 3) -> TokenSequence:
    sequence = session.begin({}, StopConditions(max_tokens=max_tokens))
    assert sequence is not None
    return sequence


def sampled(session: SamplingSession, sequence: TokenSequence, **how: Any) -> list[Any]:
    """What is settled when the next token has been sampled."""
    step = StepRows([0], [sequence], [len(sequence.tokens)])
    (outcome,) = session.decide(np.zeros((1, 5), np.float32), step)
    return kinds(sequence.sampled(outcome, **how))


def kinds(entries: Any) -> list[Any]:
    found = [record.as_dict() for record in records_of(entries)]
    return [(line["kind"], line.get("position"), line.get("emitted")) for line in found]


def test_an_end_counts_at_once_unless_it_is_held(session: SamplingSession) -> None:
    sequence = begun(session, 1)
    assert sampled(session, sequence) == [("token", 0, True)]
    assert sequence.end("closed") == []
    held = begun(session, 1)
    assert sampled(session, held, hold_end=True) == []
    assert held.ended
    assert kinds(held.settle()) == [("token", 0, True)]
    assert held.end("closed") == []


def test_an_end_that_is_held_can_be_dropped(session: SamplingSession) -> None:
    sequence = begun(session, 2)
    sampled(session, sequence, hold_end=True)
    sampled(session, sequence, hold_end=True)
    assert sequence.ended
    assert kinds(sequence.drop("not_handed_over", keep=1)) == [("discard", 1, None)]
    assert not sequence.ended
    assert sampled(session, sequence, hold_end=True) == []
    assert kinds(sequence.settle()) == [("token", 0, True), ("token", 1, True)]


def test_what_has_not_arrived_is_not_settled(session: SamplingSession) -> None:
    sequence = begun(session, 3)
    for _ in range(3):
        sampled(session, sequence, hold_end=True)
    assert kinds(sequence.settle(1)) == [("token", 0, True)]
    assert kinds(sequence.settle(1)) == []
    assert kinds(sequence.settle(2)) == [("token", 1, True)]
    assert kinds(sequence.end("closed")) == [("token", 2, None)]


def test_a_session_knows_the_sources_that_it_was_given(session: SamplingSession) -> None:
    """No registry has them."""
    session.check_request({"qr_entropy_source": "spare", "qr_sample_count": 16})
    sequence = session.begin({"qr_entropy_source": "spare"}, StopConditions(max_tokens=1))
    assert sequence is not None
    assert sequence.failure == ""
    assert sampled(session, sequence) == [("token", 0, True)]
    with pytest.raises(ConfigError, match="the source delivers bytes"):
        session.check_request({"qr_entropy_source": "spare", "qr_signal_amplifier_type": "server"})


def test_what_cannot_be_served_is_refused_by_its_key(session: SamplingSession) -> None:
    with pytest.raises(ConfigError, match="qr_sample_count='many'"):
        session.check_request({"qr_sample_count": "many"})
    sequence = session.begin({"qr_sample_count": "many"}, StopConditions(max_tokens=1))
    assert sequence is not None
    assert "qr_sample_count='many'" in sequence.failure
