# SPDX-License-Identifier: Apache-2.0
"""A loop of one's own fulfils what every host has to, also one whose steps overlap."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest

from qr_sampler import EntropySource, Settings
from qr_sampler.testing import HostContract, HostDriver, HostRequest
from qr_sampler_local import LocalSampler, LocalSequence

END = 0
VOCAB_SIZE = 40


class LoopDriver(HostDriver):
    """A loop whose logits are made up."""

    def __init__(
        self, settings: Settings, sources: Mapping[str, EntropySource], *, steps_in_flight: int
    ) -> None:
        self._sampler = LocalSampler("made up", settings, engine="loop 1.0", sources=sources)
        self._in_flight = steps_in_flight
        self._random = np.random.default_rng(8)
        self._times: list[int] = []

    @property
    def logits_times_ns(self) -> Sequence[int]:
        return self._times

    def generate(
        self, requests: Sequence[HostRequest], on_token: Callable[[int, int], object]
    ) -> list[list[int]]:
        sequences = [self._begun(request) for request in requests]
        handed_over = [0] * len(sequences)
        thrown: set[int] = set()
        try:
            while any(not sequence.closed for sequence in sequences):
                # Rows of texts that have ended stay in the batch.
                self._sampler.step(self._logits(len(sequences)), sequences)
                for index, (request, sequence) in enumerate(zip(requests, sequences, strict=True)):
                    if request.throw_away_after == len(sequence.tokens) - 1 and index not in thrown:
                        thrown.add(index)
                        self._sampler.dropped(sequence, 1, "thrown_away")
                    for token_id in self._due(sequence, handed_over[index]):
                        handed_over[index] += 1
                        on_token(index, token_id)
                        self._sampler.emitted(sequence, handed_over[index])
                    if request.abort_after == handed_over[index]:
                        self._give_up(sequence, handed_over[index])
        finally:
            for sequence, count in zip(sequences, handed_over, strict=True):
                self._give_up(sequence, count)
        return [sequence.tokens for sequence in sequences]

    def _due(self, sequence: LocalSequence, handed_over: int) -> list[int]:
        """The tokens to hand over; with two steps in flight the latest waits for the next step."""
        end = len(sequence.tokens) - (0 if sequence.ended else self._in_flight - 1)
        return [] if sequence.closed else sequence.tokens[handed_over:end]

    def _begun(self, request: HostRequest) -> LocalSequence:
        return self._sampler.sequence(
            range(request.prompt_tokens),
            end_tokens=[END],
            max_tokens=request.max_tokens,
            steps_in_flight=self._in_flight,
            **request.options,
        )

    def _logits(self, rows: int) -> Any:
        logits = self._random.normal(size=(rows, VOCAB_SIZE)).astype(np.float32)
        logits[:, END] -= 40.0
        self._times.append(time.monotonic_ns())
        return logits

    def _give_up(self, sequence: LocalSequence, arrived: int) -> None:
        if not sequence.closed:
            self._sampler.emitted(sequence, arrived)
        if not sequence.closed:
            self._sampler.dropped(sequence, len(sequence.tokens) - arrived, "not_handed_over")
            self._sampler.close(sequence)

    def close(self) -> None:
        self._sampler.close()


class TestLoop(HostContract):
    engine = "loop"
    model = "made up"
    steps_in_flight: ClassVar[int] = 1

    @pytest.fixture
    def start(self) -> Callable[..., LoopDriver]:
        return partial(LoopDriver, steps_in_flight=self.steps_in_flight)


class TestLoopWithTwoStepsInFlight(TestLoop):
    steps_in_flight = 2
