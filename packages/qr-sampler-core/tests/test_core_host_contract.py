# SPDX-License-Identifier: Apache-2.0
"""The contract of hosts accepts the toy host, whether its steps overlap or not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import ClassVar

import numpy as np
import pytest

from qr_sampler import EntropySource, Settings
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.testing import HostContract, HostDriver, HostRequest, ToyHost, ToyRequest
from qr_sampler.testing.toy_host import END_TOKEN, VOCAB_SIZE


class ToyDriver(HostDriver):
    """Plays requests on the toy host."""

    def __init__(
        self, settings: Settings, sources: Mapping[str, EntropySource], *, overlapping: bool
    ) -> None:
        facts = EngineFacts(engine="toy 1.0", model="none")
        session = SamplingSession(facts, settings, own_sources=sources)
        self._host = ToyHost(session, overlapping=overlapping)
        self._random = np.random.default_rng(5)
        self._times: list[int] = []
        self._one_at_a_time = threading.Lock()

    @property
    def logits_times_ns(self) -> Sequence[int]:
        return self._times

    def generate(
        self, requests: Sequence[HostRequest], on_token: Callable[[int, int], object]
    ) -> list[list[int]]:
        for request in requests:
            self._host.session.check_request(request.options)
        with self._one_at_a_time:
            return self._generate(requests, on_token)

    def _generate(
        self, requests: Sequence[HostRequest], on_token: Callable[[int, int], object]
    ) -> list[list[int]]:
        texts = [self._added(request) for request in requests]
        handed_over = [0] * len(texts)
        thrown: set[int] = set()
        try:
            while any(text in self._host.running for text in texts):
                self._step(requests, texts, thrown)
                for index, text in enumerate(texts):
                    for token_id in text.output[handed_over[index] :]:
                        handed_over[index] += 1
                        on_token(index, token_id)
                    if text in self._host.running and requests[index].abort_after == len(
                        text.output
                    ):
                        self._host.abort(text)
        finally:
            for text in texts:
                if text in self._host.running:
                    self._host.abort(text)
        return [text.output for text in texts]

    def _added(self, request: HostRequest) -> ToyRequest:
        keys = {key.removeprefix("qr_"): value for key, value in request.options.items()}
        return self._host.add(request.max_tokens, range(request.prompt_tokens), **keys)

    def _step(
        self, requests: Sequence[HostRequest], texts: Sequence[ToyRequest], thrown: set[int]
    ) -> None:
        self._host.begin_step()
        unfinished = [
            index
            for index, request in enumerate(requests)
            if request.throw_away_after == len(texts[index].output) and index not in thrown
        ]
        thrown.update(unfinished)
        rows = self._random.normal(size=(len(self._host.running), VOCAB_SIZE)).astype(np.float32)
        rows[:, END_TOKEN] = -40.0
        self._times.append(time.monotonic_ns())
        self._host.step(rows, [texts[index] for index in unfinished])

    def close(self) -> None:
        self._host.close()


class TestToyHost(HostContract):
    engine = "toy"
    model = "none"
    overlapping: ClassVar[bool] = False
    not_applicable: ClassVar[dict[str, str]] = {
        "test_an_end_on_its_way_is_not_recorded_as_emitted": "what it has taken is emitted, as in "
        "engines that serve: whoever reads stands behind them"
    }

    @pytest.fixture
    def start(self) -> Callable[..., ToyDriver]:
        return partial(ToyDriver, overlapping=self.overlapping)


class TestOverlappingToyHost(TestToyHost):
    overlapping = True
    late_steps = 1
