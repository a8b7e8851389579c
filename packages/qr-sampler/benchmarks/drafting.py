# SPDX-License-Identifier: Apache-2.0
"""Generates text with and without drafts: one sequence, a key-value cache, plain PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qr_sampler_cli.tsd.teacher import Teacher
from qr_sampler_tsd import HeadTailLaw, Role, UniformSource
from qr_sampler_tsd._typing import FloatArray
from qr_sampler_tsd.proposers import Proposer
from qr_sampler_tsd.residual import token_at
from qr_sampler_tsd.verification import Verdict

__all__ = ["CachedTarget", "Run", "Verifier", "generate"]

Verifier = Callable[
    [FloatArray, Sequence[HeadTailLaw], Sequence[int], UniformSource, FloatArray], Verdict
]


class CachedTarget:
    """A model that remembers one sequence and can take tokens back."""

    def __init__(self, teacher: Teacher) -> None:
        """Starts with nothing remembered."""
        self._torch: Any = teacher.torch
        self._model = teacher.model
        self._cache: Any = None
        self.passes = 0
        self.seconds = 0.0

    def rows(self, tokens: Sequence[int]) -> FloatArray:
        """Returns the laws after each of *tokens*, which are remembered: one pass."""
        torch, started = self._torch, time.perf_counter()
        with torch.inference_mode():
            output = self._model(
                input_ids=torch.tensor([tokens]), past_key_values=self._cache, use_cache=True
            )
            laws: FloatArray = torch.softmax(output.logits[0].double(), dim=-1).numpy()
        self._cache = output.past_key_values
        self.passes += 1
        self.seconds += time.perf_counter() - started
        return laws

    def forget(self, count: int) -> None:
        """Takes the last *count* tokens back."""
        if not count:
            return
        wanted = self._cache.get_seq_length() - count
        self._cache.crop(-count)
        if self._cache.get_seq_length() != wanted:
            raise RuntimeError("this version of transformers crops its cache in another way")


@dataclass
class Run:
    """One text and what it took."""

    tokens: list[int]
    """Prompt and continuation."""
    passes: int
    """Passes of the target, without that of the prompt."""
    new_tokens: int
    """Tokens that they gave."""
    seconds: float
    """Wall time of all but the prompt."""
    cpu_seconds: float
    """Processor time of the same, which other programs on the machine disturb less."""
    target_seconds: float
    """Wall time in the target."""
    laws: list[FloatArray] = field(default_factory=list)
    """The target's law of every new token, when asked for."""


def generate(
    teacher: Teacher,
    prompt: Sequence[int],
    count: int,
    uniforms: UniformSource,
    *,
    proposer: Proposer[Any] | None = None,
    length: int = 0,
    verify: Verifier | None = None,
    keep_laws: bool = False,
) -> Run:
    """Returns a text of at least *count* new tokens; without *proposer*, one token per pass.

    Both ways share this loop, its softmax in float64 and the choice by inverse CDF.
    """
    target, buffer = CachedTarget(teacher), np.empty(teacher.vocab_size)
    text, laws = list(prompt), []
    if len(text) > 1:
        target.rows(text[:-1])
    passes, spent = target.passes, target.seconds
    started, cpu_started = time.perf_counter(), time.process_time()
    state = None if proposer is None else proposer.start(text)
    while len(text) < len(prompt) + count:
        if proposer is None or verify is None:
            row = target.rows(text[-1:])[0]
            if keep_laws:
                laws.append(row.copy())
            np.copyto(buffer, row)
            text.append(token_at(buffer, uniforms.draw_one(Role.BONUS)))
            continue
        drafts, offered = _drafts(proposer, state, length, uniforms)
        rows = target.rows([text[-1], *drafts])
        verdict = verify(rows, offered, drafts, uniforms, buffer)
        if keep_laws:
            laws.extend(rows[: verdict.accepted + 1])
        target.forget(length - verdict.accepted)
        for token in verdict.tokens:
            state = proposer.advance(state, token)
        text += verdict.tokens
    return Run(
        tokens=text,
        passes=target.passes - passes,
        new_tokens=len(text) - len(prompt),
        seconds=time.perf_counter() - started,
        cpu_seconds=time.process_time() - cpu_started,
        target_seconds=target.seconds - spent,
        laws=laws,
    )


def _drafts(
    proposer: Proposer[Any], state: Any, length: int, uniforms: UniformSource
) -> tuple[list[int], list[HeadTailLaw]]:
    drafts: list[int] = []
    offered: list[HeadTailLaw] = []
    for u in uniforms.draw(length, Role.PROPOSAL).tolist():
        law = proposer.psi(state).law()
        offered.append(law)
        drafts.append(law.select_one(u))
        # The state after the last draft is of no use.
        if len(drafts) < length:
            state = proposer.advance(state, drafts[-1])
    return drafts, offered
