# SPDX-License-Identifier: Apache-2.0
"""From the outcome of a step to the records of its rows."""

from __future__ import annotations

import math
import time

from qr_sampler.admission.overrides import RequestOptions
from qr_sampler.entropy.draw import DroppedBytes
from qr_sampler.records import BypassRecord, DiscardRecord, TokenSamplingRecord
from qr_sampler.sampling.pipeline import StepResult

__all__ = ["bypass_record", "discard_record", "dropped_record", "token_record"]


def bypass_record(options: RequestOptions) -> BypassRecord:
    """Returns the record of a sequence that is left to the host engine.

    Args:
        options: What its request asked for.
    """
    return BypassRecord(
        request_key=options.request_key,
        wall_time_ns=time.time_ns(),
        trial=options.trial,
        condition=options.condition,
    )


def token_record(
    step: StepResult,
    index: int,
    *,
    request_key: str,
    sequence: str,
    position: int,
    options: RequestOptions,
    outcome: str | None = None,
    emitted: bool | None = True,
) -> TokenSamplingRecord:
    """Returns the record of a token.

    Args:
        step: The step that selected it.
        index: Which of the step's decided rows it is.
        request_key: Name of its request.
        sequence: Name of its sequence.
        position: Its index in its sequence.
        options: What the request asked for.
        outcome: What has become of the draft in its place, where drafts are verified.
        emitted: Whether it was emitted; ``None`` when that is not known yet.
    """
    draw, selection, plan = step.draw, step.selection, step.plan
    return TokenSamplingRecord(
        request_key=request_key,
        sequence=sequence,
        position=position,
        token_id=int(selection.token_ids[index]),
        u=float(step.amplification.u[index]),
        statistic=float(step.amplification.statistic[index]),
        lattice_step=_known(float(step.amplification.lattice_step[index])),
        temperature=float(plan.temperature.temperature[index]),
        entropy_nats=float(plan.temperature.entropy_nats[index]),
        varentropy_nats2=float(plan.temperature.varentropy_nats2[index]),
        running_entropy_nats=_known(float(plan.rows.running_entropy[index])),
        rank=int(selection.rank[index]),
        probability=float(selection.probability[index]),
        candidates=int(selection.candidates[index]),
        amplifier=options.parameters.signal_amplifier_type,
        baseline=str(step.amplification.baseline[index]),
        temperature_strategy=options.parameters.temperature_strategy,
        source=draw.source,
        source_distribution=draw.origin.distribution,
        source_version=draw.origin.version,
        fallback=draw.fallback,
        fallback_reason=draw.fallback_reason,
        device_id=draw.device_id,
        device_timestamp_ns=draw.device_timestamp_ns,
        block_bytes=int(step.block_bytes[index]),
        block_sum=int(step.block_sum[index]),
        block_ones=int(step.block_ones[index]),
        draw_bytes=step.draw_bytes,
        draw_requests=draw.requests,
        t_logits_ns=plan.logits_ready_ns,
        t_request_ns=draw.requested_ns,
        t_received_ns=draw.received_ns,
        wall_time_ns=draw.wall_time_ns,
        trial=options.trial,
        condition=options.condition,
        commitment=step.commitment.hex(),
        row_digest=_row_digest(step, index),
        echo_verified=draw.commitment_echoed,
        signature_verified=draw.signature_verified,
        outcome=outcome,
        emitted=emitted,
    )


def discard_record(
    step: StepResult, index: int, *, request_key: str, sequence: str, position: int, reason: str
) -> DiscardRecord:
    """Returns the record of bytes that were drawn for a token that was not emitted.

    Args:
        step: The step that spent them.
        index: Which of the step's decided rows they belong to.
        request_key: Name of the request.
        sequence: Name of the sequence.
        position: Index that the token would have had.
        reason: Why it was not emitted.
    """
    return DiscardRecord(
        request_key=request_key,
        sequence=sequence,
        position=position,
        reason=reason,
        source=step.draw.source,
        fallback=step.draw.fallback,
        block_bytes=int(step.block_bytes[index]),
        u=float(step.amplification.u[index]),
        t_logits_ns=step.plan.logits_ready_ns,
        t_request_ns=step.draw.requested_ns,
        t_received_ns=step.draw.received_ns,
        wall_time_ns=step.draw.wall_time_ns,
        commitment=step.commitment.hex(),
        row_digest=_row_digest(step, index),
    )


def dropped_record(dropped: DroppedBytes) -> DiscardRecord:
    """Returns the record of bytes that were drawn but not used."""
    return DiscardRecord(
        request_key="",
        sequence="",
        position=None,
        reason=dropped.reason,
        source=dropped.source,
        fallback=False,
        block_bytes=dropped.count,
        u=None,
        t_logits_ns=None,
        t_request_ns=None,
        t_received_ns=None,
        wall_time_ns=dropped.wall_time_ns,
    )


def _row_digest(step: StepResult, index: int) -> str:
    return step.row_digests[index].hex() if step.row_digests else ""


def _known(value: float) -> float | None:
    """Returns *value*, or ``None`` for the NaN that stands for an unknown one."""
    return None if math.isnan(value) else value
