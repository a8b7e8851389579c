# SPDX-License-Identifier: Apache-2.0
"""From the outcome of a step to the records of its rows."""

from __future__ import annotations

import time

from qr_sampler.admission.overrides import RequestOptions
from qr_sampler.entropy.draw import DroppedBytes
from qr_sampler.records import BypassRecord, DiscardRecord, TokenSamplingRecord
from qr_sampler.sampling.columns import StepColumns
from qr_sampler.sampling.pipeline import StepResult

__all__ = ["bypass_record", "discard_record", "dropped_record", "token_record"]


def bypass_record(options: RequestOptions) -> BypassRecord:
    """Returns the record of a sequence that is left to the host engine.

    Args:
        options: The options of its request.
    """
    return BypassRecord(
        request_key=options.request_key,
        wall_time_ns=time.time_ns(),
        trial=options.trial,
        condition=options.condition,
    )


def token_record(
    step: StepResult | StepColumns,
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
        step: The step that selected it; its columns where several rows are recorded.
        index: Which of the step's decided rows it is.
        request_key: Name of its request.
        sequence: Name of its sequence.
        position: Its index in its sequence.
        options: The options of the request.
        outcome: What has become of the draft in its place, where drafts are verified.
        emitted: Whether it was emitted; ``None`` when that is not known yet.
    """
    columns = step if isinstance(step, StepColumns) else StepColumns(step)
    draw = columns.draw
    return TokenSamplingRecord(
        request_key=request_key,
        sequence=sequence,
        position=position,
        token_id=columns.token_ids[index],
        u=columns.u[index],
        statistic=columns.statistic[index],
        lattice_step=columns.lattice_step[index],
        temperature=columns.temperature[index],
        entropy_nats=columns.entropy_nats[index],
        varentropy_nats2=columns.varentropy_nats2[index],
        running_entropy_nats=columns.running_entropy_nats[index],
        rank=columns.rank[index],
        probability=columns.probability[index],
        candidates=columns.candidates[index],
        amplifier=options.parameters.signal_amplifier_type,
        baseline=columns.baseline[index],
        temperature_strategy=options.parameters.temperature_strategy,
        source=draw.source,
        source_distribution=draw.origin.distribution,
        source_version=draw.origin.version,
        fallback=draw.fallback,
        fallback_reason=draw.fallback_reason,
        device_id=draw.device_id,
        device_timestamp_ns=draw.device_timestamp_ns,
        block_bytes=columns.block_bytes[index],
        block_sum=columns.block_sum[index],
        block_ones=columns.block_ones[index],
        draw_bytes=columns.draw_bytes,
        draw_requests=draw.requests,
        t_logits_ns=columns.logits_ready_ns,
        t_request_ns=draw.requested_ns,
        t_received_ns=draw.received_ns,
        wall_time_ns=draw.wall_time_ns,
        trial=options.trial,
        condition=options.condition,
        commitment=columns.commitment,
        row_digest=columns.row_digests[index],
        echo_verified=draw.commitment_echoed,
        signature_verified=draw.signature_verified,
        health=draw.health.value,
        outcome=outcome,
        emitted=emitted,
    )


def discard_record(
    step: StepResult | StepColumns,
    index: int,
    *,
    request_key: str,
    sequence: str,
    position: int,
    reason: str,
) -> DiscardRecord:
    """Returns the record of bytes that were drawn for a token that was not emitted.

    Args:
        step: The step that spent them; its columns where several rows are recorded.
        index: Which of the step's decided rows they belong to.
        request_key: Name of the request.
        sequence: Name of the sequence.
        position: Index that the token would have had.
        reason: Why it was not emitted.
    """
    columns = step if isinstance(step, StepColumns) else StepColumns(step)
    draw = columns.draw
    return DiscardRecord(
        request_key=request_key,
        sequence=sequence,
        position=position,
        reason=reason,
        source=draw.source,
        fallback=draw.fallback,
        block_bytes=columns.block_bytes[index],
        u=columns.u[index],
        t_logits_ns=columns.logits_ready_ns,
        t_request_ns=draw.requested_ns,
        t_received_ns=draw.received_ns,
        wall_time_ns=draw.wall_time_ns,
        commitment=columns.commitment,
        row_digest=columns.row_digests[index],
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
