# SPDX-License-Identifier: Apache-2.0
"""One event per pass of the target: what the telemetry of an experiment is made of."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from typing import Final

__all__ = ["MEASURED", "TelemetryEvent", "as_json_line", "sampler_version", "version_hash"]

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
    vocab_size: int
    """Number of tokens, V."""
    K: int
    """Tokens of the payload's head."""
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
    """sum min(p, q) at the first position: with one draft there, the probability that it stands."""
    predicted_acceptance: float
    """The probability that the first position is decided by a draft: the overlap mass, for K-SEQ
    1 - (1 - beta)^k."""
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


MEASURED: Final = (
    "psi_bytes",
    "tsu_latency_ms",
    "verifier_latency_ms",
    "accepted_prefix",
    "first_token_reject",
    "emitted",
    "overlap_mass",
    "predicted_acceptance",
    "ce_gap_nats",
    "q_temp",
    "q_floor",
    "uniforms_proposal",
    "uniforms_accept",
    "uniforms_residual",
    "uniforms_bonus",
)
"""The fields that a mean says something about; the others number events or say what was asked."""

_NAMES = tuple(field.name for field in fields(TelemetryEvent))
_FLOATS = tuple(field.name for field in fields(TelemetryEvent) if field.type == "float")
_values_of = attrgetter(*_NAMES)
_encode = json.JSONEncoder(allow_nan=False, check_circular=False).encode


def as_values(event: TelemetryEvent) -> dict[str, Value]:
    """Returns the fields of *event*, numbers that are not finite as ``None``."""
    values: dict[str, Value] = dict(zip(_NAMES, _values_of(event), strict=True))
    for name in _FLOATS:
        value = values[name]
        if not math.isfinite(value):  # type: ignore[arg-type]
            values[name] = None
    return values


def as_json_line(event: TelemetryEvent) -> str:
    """Returns *event* as one line of strict JSON, with its line end.

    What is not finite becomes ``null``: JSON has no NaN and no Infinity.
    """
    return line_of(as_values(event))


def line_of(values: Mapping[str, Value]) -> str:
    """Returns the line of :func:`as_values`."""
    return _encode(values) + "\n"


@functools.cache
def sampler_version() -> str:
    """Returns the version of this package, which takes a search of the installation."""
    return version("qr-sampler-tsd")


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
