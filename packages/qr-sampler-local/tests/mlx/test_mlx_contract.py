# SPDX-License-Identifier: Apache-2.0
"""The contract of hosts holds for every way to generate with MLX-LM."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import pytest

from qr_sampler import EntropySource, Settings
from qr_sampler.testing import HostContract, HostDriver, HostRequest

pytest.importorskip("mlx_lm", reason="MLX-LM is not installed")

import mlx.core as mx
from mlx_lm.generate import BatchGenerator, generate_step, stream_generate

from qr_sampler_local import LocalSequence
from qr_sampler_local.engines import EmittedToken
from qr_sampler_local.mlx import MLXSampler, MLXSequence
from qr_sampler_local.mlx.generation import generated

OnToken = Callable[[int, int], object]

UNLIKELY = -40.0
"""What is added to the logits of end tokens, so that texts have the length that is asked for."""

START: Sequence[int] = (40, 445, 79, 418)


class Observed:
    """A model that keeps the times at which its logits were complete: when they were evaluated.

    It leaves that to others, so that what is drawn before anybody has done it is seen.

    Args:
        model: The model.
        ends: Tokens that are to be improbable.
    """

    def __init__(self, model: Any, ends: Sequence[int]) -> None:
        self._model = model
        self._ends = mx.array(list(ends))
        self._promised = False
        self.times_ns: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, tokens: mx.array, **rest: Any) -> mx.array:
        logits = self._model(tokens, **rest).at[..., self._ends].add(UNLIKELY)
        self._promised = tokens.shape[1] == 1
        return logits

    def evaluated(self) -> None:
        """Notes that what was computed so far is complete."""
        if self._promised:
            self._promised = False
            self.times_ns.append(time.monotonic_ns())


class Driver(HostDriver):
    """What the drivers of the adapter have in common.

    Args:
        loaded: The model and its tokenizer.
        settings: The settings.
        sources: The sources.
    """

    def __init__(
        self, loaded: tuple[Any, Any], settings: Settings, sources: Mapping[str, EntropySource]
    ) -> None:
        self.ends = sorted(loaded[1].eos_token_ids)
        self.model = Observed(loaded[0], self.ends)
        self.tokenizer = loaded[1]
        self.sampler = MLXSampler("tiny", settings, sources=sources)

    @property
    def logits_times_ns(self) -> Sequence[int]:
        return self.model.times_ns

    def sequence(self, request: HostRequest) -> MLXSequence:
        return self.sampler.sequence(
            prompt_of(request),
            end_tokens=self.ends,
            max_tokens=request.max_tokens,
            **request.options,
        )

    def close(self) -> None:
        self.sampler.close()


def prompt_of(request: HostRequest) -> list[int]:
    return [START[index % len(START)] for index in range(request.prompt_tokens)]


class StreamDriver(Driver):
    """Serves one text after the other with ``stream_generate``."""

    def generate(self, requests: Sequence[HostRequest], on_token: OnToken) -> list[list[int]]:
        return [self._one(number, request, on_token) for number, request in enumerate(requests)]

    def _one(self, number: int, request: HostRequest, on_token: OnToken) -> list[int]:
        sequence = self.sequence(request)
        tokens: list[int] = []
        items = stream_generate(
            self.model, self.tokenizer, prompt_of(request), **sequence.arguments()
        )
        followed = sequence.follow(items)
        try:
            for response in followed:
                tokens.append(response.token)
                on_token(number, response.token)
                if len(tokens) == request.abort_after:
                    break
        finally:
            followed.close()
        return tokens


class StepDriver(Driver):
    """Serves one text after the other with ``generate_step``, which says nothing of its end."""

    def generate(self, requests: Sequence[HostRequest], on_token: OnToken) -> list[list[int]]:
        return [self._one(number, request, on_token) for number, request in enumerate(requests)]

    def _one(self, number: int, request: HostRequest, on_token: OnToken) -> list[int]:
        tokens: list[int] = []
        prompt = mx.array(prompt_of(request))
        with self.sequence(request) as sequence:
            for token, _ in generate_step(prompt, self.model, **sequence.arguments()):
                tokens.append(token)
                on_token(number, token)
                if len(tokens) == request.abort_after or token in self.ends:
                    break
        return tokens


class BatchDriver(Driver):
    """Serves all texts together with ``BatchGenerator``."""

    def generate(self, requests: Sequence[HostRequest], on_token: OnToken) -> list[list[int]]:
        sequences = [self.sequence(request) for request in requests]
        try:
            return self._batch(requests, sequences, on_token)
        finally:
            for sequence in sequences:
                sequence.close()

    def _batch(
        self, requests: Sequence[HostRequest], sequences: list[MLXSequence], on_token: OnToken
    ) -> list[list[int]]:
        batch = BatchGenerator(
            self.model, sampler=self.sampler, stop_tokens=[[token] for token in self.ends]
        )
        uids = batch.insert(
            [prompt_of(request) for request in requests],
            [request.max_tokens for request in requests],
            logits_processors=[[sequence.read_logits] for sequence in sequences],
        )
        texts: list[list[int]] = [[] for _ in requests]
        while responses := batch.next_generated():
            for response in responses:
                number = uids.index(response.uid)
                texts[number].append(response.token)
                sequences[number].read()
                on_token(number, response.token)
                if len(texts[number]) == requests[number].abort_after:
                    batch.remove([response.uid])
                    sequences[number].close()
        batch.close()
        return texts


class EngineDriver(Driver):
    """Serves all texts together as the engine of the front door does."""

    def generate(self, requests: Sequence[HostRequest], on_token: OnToken) -> list[list[int]]:
        raised: list[BaseException] = []

        def hand_over(token: EmittedToken) -> None:
            try:
                on_token(token.prompt, token.token_id)
            except KeyboardInterrupt as error:
                raised.append(error)
                raise

        texts = generated(
            self.model,
            [prompt_of(request) for request in requests],
            self.sampler.local,
            [self._local_sequence(request) for request in requests],
            hand_over,
            prefill_step_size=2048,
        )
        for error in raised:
            # An engine returns what there is.
            raise error
        return [list(text.tokens) for text in texts]

    def _local_sequence(self, request: HostRequest) -> LocalSequence:
        return self.sampler.local.sequence(
            prompt_of(request),
            end_tokens=self.ends,
            max_tokens=request.max_tokens,
            **request.options,
        )


class MLXContract(HostContract):
    """What is the same for all drivers."""

    engine = "mlx-lm"
    model = "tiny"
    driver: ClassVar[type[Driver]]

    @pytest.fixture
    def start(
        self, loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., HostDriver]:
        evaluate = mx.eval

        def begun(settings: Settings, sources: Mapping[str, EntropySource]) -> Driver:
            driver = self.driver(loaded, settings, sources)

            def evaluate_and_note(*arrays: Any) -> None:
                evaluate(*arrays)
                driver.model.evaluated()

            monkeypatch.setattr(mx, "eval", evaluate_and_note)
            return driver

        return begun


_NOT_THROWN = {
    "test_what_is_thrown_away_has_a_discard": "MLX-LM takes every token before a text has ended"
}
_NO_BATCH = {
    "test_rows_of_a_step_share_a_draw": "one text after the other, each in steps of its own"
}


class TestStreamGenerate(MLXContract):
    driver = StreamDriver
    late_steps = 1
    not_applicable: ClassVar = {**_NOT_THROWN, **_NO_BATCH}


class TestGenerateStep(MLXContract):
    driver = StepDriver
    late_steps = 1
    not_applicable: ClassVar = {**_NOT_THROWN, **_NO_BATCH}


class TestBatchGenerator(MLXContract):
    driver = BatchDriver
    late_steps = 1
    not_applicable: ClassVar = _NOT_THROWN


class TestEngine(MLXContract):
    driver = EngineDriver
    not_applicable: ClassVar = {
        **_NOT_THROWN,
        "test_an_aborted_text_keeps_its_records": "an engine ends all texts of a call together",
    }
