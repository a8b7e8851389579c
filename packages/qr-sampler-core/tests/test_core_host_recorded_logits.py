# SPDX-License-Identifier: Apache-2.0
"""Recorded logits and played bytes: a host that is right passes, and one that is wrong does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qr_sampler import TEMPERATURE_STRATEGIES, SamplingParameters, Settings
from qr_sampler.host import (
    EngineFacts,
    LogitsAccess,
    NumpyLogits,
    SamplingSession,
    StepRows,
    StopConditions,
)
from qr_sampler.testing.hosts.recorded_logits import (
    FILTERS,
    TEMPERATURES,
    PlayedBytes,
    Recording,
    check_recorded,
    recording_of,
)

Change = Callable[[Any], Any]


def player(change: Change, access: LogitsAccess | None = None, batch: int = 7) -> Any:
    """A host that decodes some texts at a time, and changes the logits before it samples."""

    def play(
        recording: Recording, settings: Settings, source: PlayedBytes
    ) -> Sequence[Sequence[int]]:
        facts = EngineFacts(engine="player", model="recording")
        session = SamplingSession(facts, settings, access=access, own_sources={"played": source})
        texts: list[list[int]] = []
        for first in range(0, recording.rows, batch):
            stop = StopConditions(max_tokens=recording.steps)
            sequences: list[Any] = [
                session.begin(options, stop) for options in recording.options[first : first + batch]
            ]
            lines = list(range(len(sequences)))
            for position, logits in enumerate(recording.logits[:, first : first + batch]):
                step = StepRows(lines, sequences, [position] * len(lines))
                for sequence, outcome in zip(
                    sequences, session.decide(change(logits.copy()), step), strict=True
                ):
                    session.record(sequence.sampled(outcome) + sequence.confirm())
            texts += [sequence.tokens for sequence in sequences]
        session.close()
        return texts

    return play


def test_a_host_passes_however_it_batches(tmp_path: Path) -> None:
    check_recorded(player(lambda logits: logits, NumpyLogits()), tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda logits: logits * np.float32(1.001),
        lambda logits: logits[:, ::-1],
        lambda logits: np.where(logits < -9, -np.inf, logits).astype(np.float32),
        lambda logits: logits.astype(np.float16).astype(np.float32),
    ],
    ids=["scaled", "reversed", "cut", "rounded"],
)
def test_a_host_that_changes_its_logits_does_not_pass(tmp_path: Path, change: Change) -> None:
    with pytest.raises(AssertionError):
        check_recorded(player(change), tmp_path)


def test_a_host_that_forgets_a_record_does_not_pass(tmp_path: Path) -> None:
    complete = player(lambda logits: logits)

    def forgetful(recording: Recording, settings: Settings, source: PlayedBytes) -> Any:
        part = Recording(recording.logits[:, :-1], recording.options[:-1])
        return [*complete(part, settings, source), [0] * recording.steps]

    with pytest.raises(AssertionError, match="records of"):
        check_recorded(forgetful, tmp_path)


def test_a_host_that_returns_other_tokens_does_not_pass(tmp_path: Path) -> None:
    complete = player(lambda logits: logits)

    def shuffled(recording: Recording, settings: Settings, source: PlayedBytes) -> Any:
        return complete(recording, settings, source)[::-1]

    with pytest.raises(AssertionError, match="expected"):
        check_recorded(shuffled, tmp_path)


def test_every_filter_and_every_strategy_is_played() -> None:
    played = {key for part in (FILTERS, TEMPERATURES) for keys in part.values() for key in keys}
    temperature = SamplingParameters.__mro__[1]
    filters = SamplingParameters.model_fields.keys() - temperature.model_fields.keys()  # type: ignore[attr-defined]
    filters -= {"sample_count", "signal_amplifier_type"}
    assert {f"qr_{name}" for name in filters} <= played
    strategies = {keys.get("qr_temperature_strategy", "fixed") for keys in TEMPERATURES.values()}
    assert strategies == set(TEMPERATURE_STRATEGIES.names())


def test_a_recording_is_the_same_everywhere_and_has_what_is_difficult() -> None:
    recording, again = recording_of(steps=2), recording_of(steps=2)
    assert np.array_equal(recording.logits, again.logits)
    assert len({options["qr_request_key"] for options in recording.options}) == recording.rows
    assert np.isneginf(recording.logits[..., 0]).all()
    ties = [len(np.unique(row)) < row.size // 4 for row in recording.logits.reshape(-1, 2048)]
    assert any(ties)
    assert not all(ties)
