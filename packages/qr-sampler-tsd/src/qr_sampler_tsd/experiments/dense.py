# SPDX-License-Identifier: Apache-2.0
"""The straightforward sampler of size V, which the speed of the others is compared with.

It does what a direct reading of the definitions does, in vectorised NumPy and without a Python loop
over the vocabulary: log q for all tokens, softmax, running sum and search for every draft; then the
dense residual p - min(p, q), normalised, running sum and search, or the running sum of p for a
bonus token.
"""

from __future__ import annotations

from time import perf_counter_ns

import numpy as np

from qr_sampler_tsd._typing import FloatArray
from qr_sampler_tsd.experiments.contexts import Context, ContextTable
from qr_sampler_tsd.uniforms import Role, UniformSource

__all__ = ["DenseClock", "dense_law", "dense_pass"]


class DenseClock:
    """Measures dense passes a little at a time, so that both samplers see the same load.

    Args:
        table: Targets and payloads.
        length: Drafts per pass.
        uniforms: Not those of the run, whose account they would spoil.
        seconds: How long each call measures.
    """

    def __init__(
        self, table: ContextTable, length: int, uniforms: UniformSource, seconds: float
    ) -> None:
        self._table = table
        self._length = length
        self._uniforms = uniforms
        self._nanoseconds = int(seconds * 1e9)
        self._passes = 0
        self._elapsed_ns = 0
        self._context = 0

    def __call__(self) -> None:
        """Runs dense passes, the first of which only warms up."""
        if not self._nanoseconds:
            return
        self._advance()
        start = now = perf_counter_ns()
        while now - start < self._nanoseconds:
            self._advance()
            self._passes += 1
            now = perf_counter_ns()
        self._elapsed_ns += now - start

    @property
    def passes_per_second(self) -> float | None:
        """Passes per second so far, ``None`` before any."""
        return self._passes / (self._elapsed_ns / 1e9) if self._passes else None

    def _advance(self) -> None:
        tokens = dense_pass(self._table, self._context, self._length, self._uniforms)
        for token in tokens:
            self._context = self._table.target.context_after(token)


def dense_pass(
    table: ContextTable, context: int, length: int, uniforms: UniformSource
) -> list[int]:
    """Returns the tokens of one pass with *length* drafts, judged token by token."""
    after = table.target.context_after
    drafts, laws, places = [], [], [context]
    for _ in range(length):
        laws.append(dense_law(table[places[-1]]))
        drafts.append(_search(laws[-1], uniforms.draw_one(Role.PROPOSAL)))
        places.append(after(drafts[-1]))
    for position, draft in enumerate(drafts):
        p, q = table[places[position]].p, laws[position]
        if uniforms.draw_one(Role.ACCEPT) < min(1.0, p[draft] / q[draft]):
            continue
        rest = p - np.minimum(p, q)
        last = _search(rest / rest.sum(), uniforms.draw_one(Role.RESIDUAL))
        return [*drafts[:position], last]
    if length == 1:
        return drafts
    return [*drafts, _search(table[places[-1]].p, uniforms.draw_one(Role.BONUS))]


def dense_law(context: Context) -> FloatArray:
    """Returns F(psi) as a softmax over the vocabulary, shape ``(V,)``."""
    psi = context.psi
    with np.errstate(divide="ignore"):
        log_q = np.full(psi.vocab_size, np.log(context.floor))
    log_q[psi.ids] = psi.scores / psi.tau
    q = np.exp(log_q - log_q.max())
    law: FloatArray = q / q.sum()
    return law


def _search(masses: FloatArray, u: float) -> int:
    running = np.cumsum(masses)
    return int(np.searchsorted(running, u * running[-1], side="right"))
