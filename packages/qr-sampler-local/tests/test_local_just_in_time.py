# SPDX-License-Identifier: Apache-2.0
"""No byte is asked for before the logits are complete, in whatever memory they are."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest

from qr_sampler import EntropySource
from qr_sampler.testing import records_in
from qr_sampler_local import LocalSampler

VOCAB_SIZE = 64


class Stamping(EntropySource):
    """A source that notes when it is asked, and asks back what is the case then."""

    name = "numbers"
    blocks = False

    def __init__(self, question: Callable[[], object] = lambda: None) -> None:
        self.asked_ns: list[int] = []
        self.answers: list[object] = []
        self.question = question

    def get_random_bytes(self, n: int) -> bytes:
        self.asked_ns.append(time.monotonic_ns())
        self.answers.append(self.question())
        return Random(n).randbytes(n)


def times(loop: Any) -> list[tuple[int, int]]:
    """When the logits of each token were complete and its entropy was asked for."""
    tokens = [line for line in records_in(loop.folder) if line["kind"] == "token"]
    return [(line["t_logits_ns"], line["t_request_ns"]) for line in tokens]


def check_order(loop: Any, source: Stamping, complete_ns: list[int]) -> None:
    assert len(source.asked_ns) == len(complete_ns) == 5
    stamps = zip(complete_ns, times(loop), source.asked_ns, strict=True)
    for complete, (recorded, requested), asked in stamps:
        assert complete <= recorded <= requested <= asked
    # The bytes of a token are asked for after the logits of that one, not of an earlier one.
    assert all(asked < later for asked, later in zip(source.asked_ns, complete_ns[1:]))  # noqa: B905


def test_arrays_of_the_host(loop: Any) -> None:
    source, complete_ns = Stamping(), []
    with LocalSampler("made up", loop.settings, sources=[source]) as sampler:
        sequence = sampler.sequence()
        for _ in range(5):
            logits = loop.logits(1)
            complete_ns.append(time.monotonic_ns())
            sampler.step(logits, [sequence])
    check_order(loop, source, complete_ns)


def test_arrays_of_mlx_are_complete_when_they_have_been_evaluated(
    loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mx = pytest.importorskip("mlx.core", reason="needs MLX")
    evaluated, evaluate = [], mx.eval

    def stamped(*arrays: Any) -> None:
        evaluate(*arrays)
        evaluated.append(time.monotonic_ns())

    monkeypatch.setattr(mx, "eval", stamped)
    source = Stamping()
    with LocalSampler("made up", loop.settings, sources=[source]) as sampler:
        sequence = sampler.sequence()
        weights = mx.random.normal((VOCAB_SIZE, VOCAB_SIZE))
        for step in range(5):
            # Computed when somebody asks for it.
            logits = mx.full((1, VOCAB_SIZE), 0.1 * step) @ weights
            sampler.step(logits, [sequence])
    check_order(loop, source, evaluated)


def test_tensors_on_cuda_are_complete_when_their_event_has_happened(loop: Any) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    event = torch.cuda.Event()
    source = Stamping(event.query)
    with LocalSampler("made up", loop.settings, sources=[source]) as sampler:
        sequence = sampler.sequence()
        weights = torch.randn((4096, 4096), device="cuda")
        for _ in range(5):
            hidden = torch.randn((1, 4096), device="cuda")
            for _ in range(200):
                hidden = torch.tanh(hidden @ weights)
            event.record()
            assert not event.query(), "the model is too fast for this test to show anything"
            sampler.step(hidden, [sequence])
    assert source.answers == [True] * 5


def test_a_source_that_is_asked_too_early_would_be_noticed(loop: Any) -> None:
    """The check can fail: a source whose bytes are fetched before the logits exist."""
    source, complete_ns = Stamping(), []
    with LocalSampler("made up", loop.settings, sources=[source]) as sampler:
        sequence = sampler.sequence()
        for _ in range(5):
            source.get_random_bytes(64)
            logits = np.zeros((1, VOCAB_SIZE), np.float32)
            complete_ns.append(time.monotonic_ns())
            sampler.step(logits, [sequence])
    source.asked_ns = source.asked_ns[::2]
    with pytest.raises(AssertionError):
        check_order(loop, source, complete_ns)
