# SPDX-License-Identifier: Apache-2.0
"""From single entries and draws to the fields of their lines."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import msgspec

from qr_sampler.records import EmissionRecord, ForcedRecord, Record, UnchosenRecord
from qr_sampler.records.entries import DrawnNumber, NamedSequence, RecordedDraw
from qr_sampler.records.line_kinds import (
    DrawLine,
    EmissionLine,
    ForcedLine,
    SequenceLine,
    UndecidedLine,
)

__all__ = [
    "draw_line",
    "fields_of",
    "line_of_record",
    "sequence_line",
    "with_places",
]


def line_of_record(made: UnchosenRecord | EmissionRecord) -> msgspec.Struct:
    """Returns the line of a record that belongs to a sequence and has no bytes."""
    if isinstance(made, ForcedRecord):
        return ForcedLine(
            made.sequence,
            made.position,
            made.token_id,
            made.reason,
            made.source,
            made.wall_time_ns,
            made.emitted,
        )
    if isinstance(made, EmissionRecord):
        return EmissionLine(
            made.sequence,
            made.position,
            made.token_id,
            made.emitted,
            made.reason,
            made.wall_time_ns,
        )
    return UndecidedLine(
        made.sequence,
        made.position,
        made.token_id,
        made.reason,
        made.wall_time_ns,
        made.emitted,
    )


def draw_line(number: int, recorded: RecordedDraw) -> DrawLine:
    """Returns the line of a draw with the number *number*."""
    draw = recorded.draw
    return DrawLine(
        draw=number,
        source=draw.source,
        source_distribution=draw.origin.distribution,
        source_version=draw.origin.version,
        fallback=draw.fallback,
        fallback_reason=draw.fallback_reason,
        bytes=recorded.draw_bytes,
        requests=draw.requests,
        data_sha256=recorded.data_sha256,
        device_id=draw.device_id,
        device_timestamp_ns=draw.device_timestamp_ns,
        commitment=recorded.commitment,
        echo_verified=draw.commitment_echoed,
        signature=base64.b64encode(draw.signature).decode(),
        signature_verified=draw.signature_verified,
        t_logits_ns=recorded.logits_ready_ns,
        t_request_ns=draw.requested_ns,
        t_received_ns=draw.received_ns,
        wall_time_ns=draw.wall_time_ns,
        sequence_id=draw.sequence_id,
        health=draw.health.value,
        # Before Python 3.11 not every empty tuple is the default, and no other one is left out.
        rows=tuple(recorded.rows_told) or (),
    )


def with_places(
    uniforms: list[dict[str, Any]] | None, draws: Sequence[int], numbers: Sequence[DrawnNumber]
) -> list[dict[str, Any]] | None:
    """Returns *uniforms*, each with its draw and its place in it, as far as they are known."""
    if uniforms is None or not numbers:
        return uniforms
    places = zip(uniforms, draws, numbers, strict=True)
    return [{**own, "draw": draw, "offset": number.offset} for own, draw, number in places]


def fields_of(record: Record) -> dict[str, Any]:
    """Returns the fields of a record that has no shorter line."""
    fields = record.as_dict()
    del fields["kind"]
    return fields


def sequence_line(sequence: NamedSequence) -> SequenceLine:
    """Returns the line of a sequence."""
    options, request = sequence.options, sequence.request
    return SequenceLine(
        sequence=sequence.name,
        request_key=sequence.request_key,
        trial=options.trial,
        condition=options.condition,
        prompt_tokens=request.prompt_tokens,
        prompt_digest=request.prompt_digest or request.prompt.digest,
        options={"source": options.source, **options.parameters.model_dump(mode="json")},
        fields=dict(request.fields),
        stop=sequence.stop_facts,
        wall_time_ns=request.wall_time_ns,
    )
