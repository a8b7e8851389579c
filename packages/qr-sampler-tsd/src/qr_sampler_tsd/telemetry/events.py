# SPDX-License-Identifier: Apache-2.0
"""One event per pass of the target: what the telemetry of an experiment is made of."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from dataclasses import dataclass, fields
from pathlib import Path

__all__ = ["TelemetryEvent", "as_json_line", "version_hash"]

Value = int | float | str | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryEvent:
    """What one pass of the target did for one sequence."""

    run_id: str
    """Names the run, and its directory."""
    seed: int
    """Seed of the target, and of the uniforms when no source supplies them."""
    step: int
    """Number of the pass, from 0."""
    row: int
    """Which of the B sequences, from 0."""
    mode: str
    """``M0`` or ``M1``."""
    L: int
    """Drafts per pass."""
    B: int
    """Sequences that run side by side."""
    unit: str
    """The sampling unit that proposed."""
    verifier: str
    """The rule that judged."""
    source: str
    """Where the uniforms come from."""
    psi_bytes: int
    """Length of all payloads of the pass, for this row."""
    tsu_latency_ms: float
    """Time to propose, for all rows of the step together."""
    verifier_latency_ms: float
    """Time to judge and correct, for all rows of the step together."""
    accepted_prefix: int
    """Accepted drafts."""
    first_token_reject: bool
    """Whether even the first draft was rejected."""
    emitted: int
    """Tokens of the pass."""
    overlap_mass: float
    """sum min(p, q) at the first position: its predicted acceptance."""
    ce_gap_nats: float
    """H(p, q) - H(p), the mean over the positions; infinite where q lacks a token of p."""
    q_temp: float
    """tau of the payload at the first position."""
    q_floor: float
    """Weight of one token outside the head, there: epsilon."""
    uniforms_proposal: int
    """Uniforms drawn for proposals, for all rows of the step together."""
    uniforms_accept: int
    """The same for acceptance tests."""
    uniforms_residual: int
    """The same for corrections."""
    uniforms_bonus: int
    """The same for bonus tokens."""
    version_hash: str
    """:func:`version_hash`."""
    psi_semver: str
    """Version of the payload."""
    sampler_semver: str
    """Version of this package."""


_NAMES = tuple(field.name for field in fields(TelemetryEvent))


def as_values(event: TelemetryEvent) -> dict[str, Value]:
    """Returns the fields of *event*, numbers that are not finite as ``None``."""
    return {name: _finite(getattr(event, name)) for name in _NAMES}


def as_json_line(event: TelemetryEvent) -> str:
    """Returns *event* as one line of strict JSON, with its line end.

    What is not finite becomes ``null``: JSON has no NaN and no Infinity.
    """
    return json.dumps(as_values(event), allow_nan=False) + "\n"


def _finite(value: Value) -> Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value


@functools.cache
def version_hash() -> str:
    """Returns 16 hexadecimal digits of the SHA-256 of the package's sources.

    Two runs with the same digits ran the same code, whatever version it calls itself.
    """
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
