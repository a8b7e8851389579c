# SPDX-License-Identifier: Apache-2.0
"""Commitments: what a source is told can be recomputed from the records, and from nothing else."""

from __future__ import annotations

import hashlib
import os
import struct
from typing import Any

import numpy as np
import pytest

from qr_sampler import (
    EntropyDraw,
    EntropySource,
    EntropyUnavailableError,
    FallbackEntropySource,
    GuardedSource,
    RowContext,
    Rows,
    SamplingParameters,
    SamplingPipeline,
    Settings,
    link_digest,
    row_digest,
    step_commitment,
)
from qr_sampler.admission.overrides import RequestOptions
from qr_sampler.records.accounting import discard_record, token_record
from qr_sampler.testing import ConstantEntropySource


class Told(EntropySource):
    """Remembers what it is told, and says so in its draws."""

    blocks = False
    commits = True

    def __init__(self) -> None:
        self.commitments: list[bytes] = []
        self.fails = False

    @property
    def name(self) -> str:
        return "told"

    def get_random_bytes(self, n: int) -> bytes:
        if self.fails:
            raise EntropyUnavailableError(self.name, "told to fail")
        return os.urandom(n)

    def committed_draw(self, n: int, commitment: bytes) -> EntropyDraw:
        self.commitments.append(commitment)
        draw = self.draw(n)
        return EntropyDraw(
            data=draw.data,
            source=self.name,
            requested_ns=draw.requested_ns,
            received_ns=draw.received_ns,
            wall_time_ns=draw.wall_time_ns,
            commitment_echoed=True,
        )


CONTEXTS = [
    RowContext("run", "first", 0, b""),
    RowContext("run", "second", 7, b"\1" * 32),
    RowContext("run", "third", 2, b""),
]


def sampled(source: EntropySource, contexts: list[RowContext] | None = CONTEXTS) -> Any:
    rows = Rows([SamplingParameters()] * 3)
    logits = np.random.default_rng(5).normal(size=(3, 50)).astype(np.float32)
    # Of the middle row nothing can be decided, so it is in no digest.
    logits[1] = -np.inf
    pipeline = SamplingPipeline(Settings(), source)
    return pipeline.complete(pipeline.prepare(logits, rows), contexts)


def test_digests_are_what_their_description_says() -> None:
    context = RowContext("rún", "séquence", 3, b"\7" * 32)
    numbers = {"temperature": 0.7, "entropy_nats": 2.5, "varentropy_nats2": 1.25}
    described = (
        b"qr-sampler row 1\n"
        + struct.pack(">I", 4)
        + "rún".encode()
        + struct.pack(">I", 9)
        + "séquence".encode()
        + struct.pack(">q", 3)
        + bytes([32])
        + b"\7" * 32
        + struct.pack(">ddd", 0.7, 2.5, 1.25)
    )
    row = row_digest(context, **numbers)
    assert row == hashlib.sha256(described).digest()
    linked = b"qr-sampler link 1\n" + row + struct.pack(">q", 42) + struct.pack(">d", 0.125)
    assert link_digest(row, 42, 0.125) == hashlib.sha256(linked).digest()
    stepped = hashlib.sha256(b"qr-sampler step 1\n" + b"a" * 32 + b"b" * 32)
    assert step_commitment([b"b" * 32, b"a" * 32]) == stepped.digest()


def test_the_source_is_told_what_the_records_say() -> None:
    source = Told()
    step = sampled(source)
    options = RequestOptions(parameters=SamplingParameters(), source="told")
    token = token_record(
        step, 0, request_key="k", sequence="first", position=0, options=options
    ).as_dict()
    discard = discard_record(
        step, 1, request_key="k", sequence="third", position=2, reason="test"
    ).as_dict()
    (told,) = source.commitments
    assert token["commitment"] == discard["commitment"] == told.hex()
    assert token["echo_verified"] is True
    assert token["signature_verified"] is None
    rows = [bytes.fromhex(record["row_digest"]) for record in (discard, token)]
    assert step_commitment(rows) == told
    names = ("temperature", "entropy_nats", "varentropy_nats2")
    numbers = {name: token[name] for name in names}
    assert rows[1] == row_digest(RowContext("run", "first", 0, b""), **numbers)


@pytest.mark.parametrize(
    "change", ["run_id", "sequence", "position", "previous", "temperature", "entropy_nats"]
)
def test_another_choice_has_another_digest(change: str) -> None:
    context = {"run_id": "r", "sequence": "s", "position": 0, "previous": b""}
    numbers = {"temperature": 1.0, "entropy_nats": 2.0, "varentropy_nats2": 3.0}
    before = row_digest(RowContext(**context), **numbers)  # type: ignore[arg-type]
    other: dict[str, Any] = {
        "run_id": "rs",
        "sequence": "",
        "position": 1,
        "previous": b"\0",
        "temperature": np.nextafter(1.0, 2.0),
        "entropy_nats": np.nextafter(2.0, 3.0),
    }
    (context if change in context else numbers)[change] = other[change]
    assert row_digest(RowContext(**context), **numbers) != before  # type: ignore[arg-type]


def test_nothing_is_told_without_a_context_or_to_those_who_do_not_listen() -> None:
    source = Told()
    step = sampled(source, None)
    assert (step.row_digests, step.commitment, source.commitments) == ((), b"", [])
    step = sampled(ConstantEntropySource())
    assert (step.row_digests, step.commitment) == ((), b"")
    assert ConstantEntropySource(3).committed_draw(2, b"digest").data == b"\3\3"


def test_wrappers_pass_the_commitment_on_to_the_primary_alone() -> None:
    primary = Told()
    guarded = GuardedSource(primary, timeout_ms=1000)
    source = FallbackEntropySource(guarded, ConstantEntropySource(9))
    assert guarded.commits
    assert source.commits
    assert source.committed_draw(4, b"digest").commitment_echoed is True
    primary.fails = True
    draw = source.committed_draw(4, b"digest")
    assert draw.fallback
    assert draw.data == b"\t" * 4
    assert draw.commitment_echoed is None
    assert primary.commitments == [b"digest"] * 2
