# SPDX-License-Identifier: Apache-2.0
"""What an experiment found out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qr_sampler_tsd.experiments.contexts import ContextTable
from qr_sampler_tsd.experiments.evidence import (
    ChiSquare,
    acceptance_interval,
    acceptance_z,
    context_chi_square,
    prefix_z,
)
from qr_sampler_tsd.experiments.loop import Recording
from qr_sampler_tsd.uniforms import UniformSource

__all__ = ["ExperimentResult", "result_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentResult:
    """Figures of one run."""

    mode: str
    """``M0`` or ``M1``."""
    unit: str
    """The sampling unit."""
    verifier: str
    """The rule that judged."""
    vocab_size: int
    """V."""
    k: int
    """Tokens of the head."""
    tau: float
    """Temperature of the scores."""
    length: int
    """Drafts per pass, L."""
    seed: int
    """Seed of the target."""
    passes: int
    """Passes of the target."""
    tokens: int
    """Emitted tokens."""
    tokens_per_pass: float
    """Their ratio."""
    accept_rate: float
    """Share of the acceptance tests that accepted. Token by token, each draft that was looked at is
    a test; for the other rules it is each pass, which accepts when any draft is accepted."""
    accept_interval: tuple[float, float]
    """Its Wilson interval, at :data:`~qr_sampler_tsd.experiments.evidence.CONFIDENCE`."""
    overlap_mass: float
    """The mean of sum min(p, q) in the contexts of the same tests."""
    predicted_acceptance: float
    """The mean predicted probability of the same tests: the overlap mass, for K-SEQ
    1 - (1 - beta)^k."""
    accept_z: float
    """Standard deviations between share and prediction, given the contexts."""
    prefix_z: tuple[float, ...]
    """For blocks judged as a whole, the same for at least 1, 2 ... L accepted drafts, see
    :func:`~qr_sampler_tsd.experiments.evidence.prefix_z`; else empty."""
    chi_square: ChiSquare
    """The text against the target, per context."""
    ce_gap_nats: float
    """H(p, q) - H(p), mean over the emitted tokens' contexts; infinite if q lacks a token of p."""
    psi_bytes: float
    """Mean length of a payload."""
    contexts: int
    """Contexts that were met."""
    steps_per_second: float
    """Passes per second of proposing and judging; preparing contexts and telemetry do not count."""
    dense_steps_per_second: float | None
    """The same for the dense sampler, in the same run."""
    uniforms: dict[str, int]
    """Uniforms drawn, by role, without those of the dense sampler."""

    @property
    def speed_ratio(self) -> float | None:
        """How many times as fast as the dense sampler."""
        if self.dense_steps_per_second is None:
            return None
        return self.steps_per_second / self.dense_steps_per_second

    @property
    def acceptance_agrees(self) -> bool:
        """Whether the prediction is in the interval."""
        low, high = self.accept_interval
        # The interval's ends and the prediction are both rounded.
        return low - 1e-12 <= self.predicted_acceptance <= high + 1e-12


def result_of(
    mode: str,
    unit: str,
    table: ContextTable,
    recording: Recording,
    uniforms: UniformSource,
    dense_steps_per_second: float | None,
) -> ExperimentResult:
    """Returns the figures of a *recording*.

    Args:
        mode: ``M0`` or ``M1``.
        unit: Name of the sampling unit.
        table: What the run worked with.
        recording: The run.
        uniforms: Its uniforms.
        dense_steps_per_second: Of the dense sampler, if it ran.
    """
    settings = table.settings
    predictions = np.array(recording.predictions)
    visited, visits = np.unique(recording.contexts, return_counts=True)
    gaps = np.array([table[context].ce_gap_nats for context in visited.tolist()])
    sizes = np.array([table[context].psi.size_bytes for context in visited.tolist()])
    seconds = (recording.unit_ns + recording.verifier_ns) / 1e9
    return ExperimentResult(
        mode=mode,
        unit=unit,
        verifier=settings.verifier,
        vocab_size=table.target.vocab_size,
        k=settings.k,
        tau=settings.tau,
        length=settings.length,
        seed=settings.seed,
        passes=recording.passes,
        tokens=len(recording.tokens),
        tokens_per_pass=len(recording.tokens) / recording.passes,
        accept_rate=recording.accepted_tests / predictions.size,
        accept_interval=acceptance_interval(recording.accepted_tests, predictions.size),
        overlap_mass=float(np.mean(recording.overlaps)),
        predicted_acceptance=float(predictions.mean()),
        accept_z=acceptance_z(recording.accepted_tests, predictions),
        prefix_z=prefix_z(recording.stood, recording.prefixes) if recording.stood else (),
        chi_square=context_chi_square(
            lambda context: table[context].p, recording.contexts, recording.tokens
        ),
        ce_gap_nats=float(np.average(gaps, weights=visits)),
        psi_bytes=float(np.average(sizes, weights=visits)),
        contexts=len(table),
        steps_per_second=recording.passes / seconds,
        dense_steps_per_second=dense_steps_per_second,
        uniforms={role.value: count for role, count in uniforms.drawn.items()},
    )
