# SPDX-License-Identifier: Apache-2.0
"""Draft, judge, repeat: the loop that all experiments share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from qr_sampler_tsd.experiments.contexts import ContextTable
from qr_sampler_tsd.experiments.drafting import Drafter
from qr_sampler_tsd.uniforms import Role, UniformSource
from qr_sampler_tsd.verification import (
    Verdict,
    accept_correct_by_thinning,
    joint_ratios,
    verify_block,
    verify_k_seq,
    verify_tokens_by_thinning,
)

__all__ = ["INTERRUPTIONS", "Progress", "Recording", "Step", "run_passes"]

Progress: TypeAlias = Callable[[int, int], None]
"""Called as ``progress(done, total)``."""

INTERRUPTIONS: Final = 10
"""How often something else is done between steps."""

Judge: TypeAlias = Callable[[int, list[int]], Verdict]


class Step(NamedTuple):
    """One step: a pass for each of the B sequences."""

    number: int
    """From 0."""
    contexts: list[int]
    """B contexts, before the step."""
    drafts: list[list[int]]
    """B blocks of drafts."""
    verdicts: list[Verdict]
    """B verdicts."""
    unit_ns: int
    """Time to propose, nanoseconds."""
    verifier_ns: int
    """Time to judge, nanoseconds."""
    drawn: Counter[Role]
    """Uniforms by role."""

    def row(self, row: int) -> tuple[int, list[int], Verdict]:
        """Returns context, drafts and verdict of one sequence."""
        return self.contexts[row], self.drafts[row], self.verdicts[row]


@dataclass(slots=True)
class Recording:
    """What a run leaves to be judged."""

    contexts: list[int] = field(default_factory=list)
    """Context of every emitted token."""
    tokens: list[int] = field(default_factory=list)
    """Every emitted token."""
    overlaps: list[float] = field(default_factory=list)
    """sum min(p, q) in the context of every acceptance test: of every draft that was looked at
    token by token, else of the first draft of each pass."""
    predictions: list[float] = field(default_factory=list)
    """Predicted probability of every acceptance test: that the draft stands, or for K-SEQ that one
    of the drafts does."""
    accepted_tests: int = 0
    """How many of them accepted."""
    prefixes: list[list[float]] = field(default_factory=list)
    """For blocks judged as a whole, of every pass the probability that at least 1, 2 ... L drafts
    stand, given the drafts so far: :func:`~qr_sampler_tsd.verification.joint_ratios`."""
    stood: list[int] = field(default_factory=list)
    """How many stood in each of these passes."""
    accepted_drafts: int = 0
    """Drafts that stood."""
    passes: int = 0
    """Passes of the target."""
    unit_ns: int = 0
    """Time to propose, nanoseconds."""
    verifier_ns: int = 0
    """Time to judge, nanoseconds."""


def run_passes(
    table: ContextTable,
    drafter: Drafter,
    uniforms: UniformSource,
    observe: Callable[[Step], None],
    progress: Progress | None = None,
    aside: Callable[[], None] | None = None,
) -> Recording:
    """Runs the steps that the settings of *table* ask for; all sequences begin in context 0.

    Only proposing and judging are timed.

    Args:
        table: Targets and payloads.
        drafter: Draws from the same *table*.
        uniforms: Where randomness comes from.
        observe: Gets every step that is to be logged.
        progress: Told about the steps.
        aside: Called about :data:`INTERRUPTIONS` times between steps.
    """
    settings, recording = table.settings, Recording()
    step = _stepper(table, drafter, uniforms, recording)
    contexts = [0] * settings.batch
    told = max(1, settings.steps // 100)
    interrupted = max(1, settings.steps // INTERRUPTIONS)
    for done in range(1, settings.steps + 1):
        taken = step(done - 1, contexts)
        contexts = [_record(recording, table, *taken.row(row)) for row in range(settings.batch)]
        if (done - 1) % settings.log_every == 0:
            observe(taken)
        if aside is not None and done % interrupted == 0:
            aside()
        if progress is not None and (done % told == 0 or done == settings.steps):
            progress(done, settings.steps)
    return recording


def _stepper(
    table: ContextTable, drafter: Drafter, uniforms: UniformSource, recording: Recording
) -> Callable[[int, list[int]], Step]:
    """Returns what proposes and judges once for each of the given contexts, and takes the time."""
    settings = table.settings
    judge = _judge(table, uniforms)
    propose = drafter.alternatives if settings.verifier == "k_seq" else drafter.chains

    def step(number: int, contexts: list[int]) -> Step:
        before = uniforms.drawn.copy()
        start = perf_counter_ns()
        blocks = propose(contexts, settings.length)
        proposed = perf_counter_ns()
        verdicts = [judge(*pair) for pair in zip(contexts, blocks, strict=True)]
        judged = perf_counter_ns()
        recording.unit_ns += proposed - start
        recording.verifier_ns += judged - proposed
        drawn = uniforms.drawn - before
        return Step(number, contexts, blocks, verdicts, proposed - start, judged - proposed, drawn)

    return step


def _judge(table: ContextTable, uniforms: UniformSource) -> Judge:
    """Returns the rule, in its fastest form where the same row is met often."""
    settings, after = table.settings, table.target.context_after
    buffer = np.empty(table.target.vocab_size)

    def one(context: int, drafts: list[int]) -> Verdict:
        known = table[context]
        return accept_correct_by_thinning(known.p, known.cumulative, known.law, drafts[0], uniforms)

    def by_token(context: int, drafts: list[int]) -> Verdict:
        rows = [table[place] for place in (context, *map(after, drafts))]
        return verify_tokens_by_thinning(
            [row.p for row in rows],
            [row.cumulative for row in rows],
            [row.law for row in rows[:-1]],
            drafts,
            uniforms,
        )

    def as_block(context: int, drafts: list[int]) -> Verdict:
        rows = [table[place] for place in (context, *map(after, drafts))]
        laws = [row.law for row in rows[:-1]]
        return verify_block([row.p for row in rows], laws, drafts, uniforms, buffer)

    def k_seq(context: int, drafts: list[int]) -> Verdict:
        known = table[context]
        return verify_k_seq(known.p, known.law, drafts, uniforms, buffer, known.rho)

    if settings.verifier == "k_seq":
        return k_seq
    if settings.verifier == "block":
        return as_block
    return one if settings.length == 1 else by_token


def _record(
    recording: Recording,
    table: ContextTable,
    context: int,
    drafts: Sequence[int],
    verdict: Verdict,
) -> int:
    """Takes one pass in and returns the context that it leads to."""
    settings, after = table.settings, table.target.context_after
    recording.passes += 1
    recording.accepted_drafts += verdict.accepted
    # Only token by token is every draft tested by itself.
    tested = len(drafts) if settings.verifier == "token" else 1
    place = context
    for position in range(min(verdict.accepted + 1, tested)):
        recording.predictions.append(table[place].predicted)
        recording.overlaps.append(table[place].overlap)
        place = after(drafts[position])
    recording.accepted_tests += min(verdict.accepted, tested)
    if settings.verifier == "block":
        recording.prefixes.append(_prefixes(table, context, drafts))
        recording.stood.append(verdict.accepted)
    for token in verdict.tokens:
        recording.contexts.append(context)
        recording.tokens.append(token)
        context = after(token)
    return context


def _prefixes(table: ContextTable, context: int, drafts: Sequence[int]) -> list[float]:
    """Returns P_1 .. P_L of a block of drafts."""
    targets, proposals, place = [], [], context
    for draft in drafts:
        known = table[place]
        targets.append(float(known.p[draft]))
        proposals.append(known.law.prob_of(draft))
        place = table.target.context_after(draft)
    return joint_ratios(targets, proposals)[1:]
