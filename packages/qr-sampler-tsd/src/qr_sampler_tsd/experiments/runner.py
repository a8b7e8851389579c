# SPDX-License-Identifier: Apache-2.0
"""One experiment from its target to its figures."""

from __future__ import annotations

from typing import NamedTuple

from qr_sampler_tsd.experiments.contexts import ContextTable, prepare_all
from qr_sampler_tsd.experiments.dense import DenseClock
from qr_sampler_tsd.experiments.drafting import Drafter, SamplingUnit
from qr_sampler_tsd.experiments.loop import INTERRUPTIONS, Progress, Step, run_passes
from qr_sampler_tsd.experiments.results import ExperimentResult, result_of
from qr_sampler_tsd.experiments.settings import ExperimentSettings
from qr_sampler_tsd.targets.base import Target
from qr_sampler_tsd.telemetry import (
    RunWriter,
    TelemetryEvent,
    sampler_version,
    version_hash,
)
from qr_sampler_tsd.uniforms import Role, SeededUniforms, UniformSource

__all__ = ["Equipment", "run_experiment"]


class Equipment(NamedTuple):
    """What an experiment works with, beside its target and its settings."""

    uniforms: UniformSource
    """Where randomness comes from."""
    source: str = "pcg64"
    """What :attr:`uniforms` are called in events."""
    unit: SamplingUnit | None = None
    """The sampling unit; ``None`` for the direct route."""
    writer: RunWriter | None = None
    """Gets the events."""
    progress: Progress | None = None
    """Told about the steps."""


def run_experiment(
    mode: str, target: Target, settings: ExperimentSettings, equipment: Equipment
) -> ExperimentResult:
    """Runs the loop, times the dense sampler, and returns the figures of both.

    Args:
        mode: ``M0`` or ``M1``.
        target: What the text is to follow.
        settings: Of the run.
        equipment: Uniforms, unit and where reports go.

    Raises:
        PsiError: When the settings make no payload.
    """
    table = ContextTable(target, settings)
    prepare_all(table)
    drafter = Drafter(table, equipment.unit, equipment.uniforms)
    dense = _dense_clock(table)

    def observe(step: Step) -> None:
        if equipment.writer is not None:
            _write(equipment.writer, mode, table, step, drafter.unit_name, equipment.source)

    recording = run_passes(
        table, drafter, equipment.uniforms, observe, equipment.progress, aside=dense
    )
    return result_of(
        mode, drafter.unit_name, table, recording, equipment.uniforms, dense.passes_per_second
    )


def _dense_clock(table: ContextTable) -> DenseClock:
    """Returns the clock of the dense sampler, which has seeded uniforms of its own."""
    settings = table.settings
    length = 1 if settings.verifier == "k_seq" else settings.length
    uniforms = SeededUniforms(settings.seed)
    return DenseClock(table, length, uniforms, settings.dense_seconds / INTERRUPTIONS)


def _write(
    writer: RunWriter, mode: str, table: ContextTable, step: Step, unit: str, source: str
) -> None:
    """Writes one event per sequence."""
    settings, after = table.settings, table.target.context_after
    for row in range(settings.batch):
        context, drafts, verdict = step.row(row)
        first = table[context]
        places = [context, *map(after, drafts[:-1])]
        if settings.verifier == "k_seq":
            places = [context]
        known = [table[place] for place in places]
        writer.write(
            TelemetryEvent(
                run_id=writer.run_id,
                seed=settings.seed,
                step=step.number,
                row=row,
                mode=mode,
                vocab_size=table.target.vocab_size,
                K=settings.k,
                L=settings.length,
                B=settings.batch,
                unit=unit,
                verifier=settings.verifier,
                source=source,
                psi_bytes=sum(place.psi.size_bytes for place in known),
                tsu_latency_ms=step.unit_ns / 1e6,
                verifier_latency_ms=step.verifier_ns / 1e6,
                accepted_prefix=verdict.accepted,
                first_token_reject=verdict.accepted == 0,
                emitted=len(verdict.tokens),
                overlap_mass=first.overlap,
                predicted_acceptance=first.predicted,
                ce_gap_nats=sum(place.ce_gap_nats for place in known) / len(known),
                q_temp=first.psi.tau,
                q_floor=first.floor,
                uniforms_proposal=step.drawn[Role.PROPOSAL],
                uniforms_accept=step.drawn[Role.ACCEPT],
                uniforms_residual=step.drawn[Role.RESIDUAL],
                uniforms_bonus=step.drawn[Role.BONUS],
                version_hash=version_hash(),
                psi_semver=first.psi.VERSION,
                sampler_semver=sampler_version(),
            )
        )
