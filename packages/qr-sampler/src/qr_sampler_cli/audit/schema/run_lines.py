# SPDX-License-Identifier: Apache-2.0
"""Lines that tell of the run and of the file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from qr_sampler_cli.audit.schema.fields import Blind, Count, Digest, Nanoseconds

__all__ = [
    "Anchor",
    "ChainedLine",
    "Clock",
    "Close",
    "Continued",
    "Gap",
    "Genesis",
    "Model",
    "NamedSource",
    "Redacted",
]


class ChainedLine(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What every line begins with, behind its kind."""

    n: Count
    """Number of the line in its file, from 0."""
    prev: Digest
    """Digest of the line before it."""
    blind: Blind = ""
    """Random, so that nobody can guess the bytes of the line from its digest."""


class NamedSource(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A source that the run can draw from."""

    name: str
    kind: str = ""
    """Name of its kind; older lines have none, which means that it is the name."""
    distribution: str | None
    version: str | None
    jit_class: str
    conditioning: str
    tested: Literal["raw", "output", "nothing"] | None = None
    """What health tests look at; older lines do not say."""
    limits: dict[str, Any]
    settings: dict[str, Any]


class NamedComponent(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An amplifier or a temperature strategy of another project that requests may choose."""

    component: Literal["signal_amplifier", "temperature_strategy"]
    name: str
    distribution: str
    version: str
    settings: dict[str, Any] | None
    """Those of one that the deployment has chosen."""


class Continued(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The file that a file continues."""

    file: str
    lines: Count
    head: Digest


class Genesis(ChainedLine, kw_only=True, tag="genesis"):
    """The first line: what the lines after it were made with."""

    run_id: str
    engine: str
    model: str
    versions: dict[str, str]
    settings: dict[str, Any]
    pid: Count
    monotonic_ns: Nanoseconds
    wall_time_ns: Nanoseconds
    schema_version: int
    sources: list[NamedSource]
    components: list[NamedComponent] = []
    host: dict[str, Any]
    files: dict[str, Any]
    commits: dict[str, str] = {}
    boot_id: str | None
    continues: Continued | None = None
    seal: Digest | None = None
    public_key: str | None = None


class Model(ChainedLine, kw_only=True, tag="model"):
    """The digests of the files of the model."""

    name: str
    manifest_sha256: Digest
    files: Any


class Redacted(ChainedLine, kw_only=True, tag="redacted"):
    """What is published of a line that tells of tokens."""

    sha256: Digest
    """Digest of the original line, which the line after it names."""
    of: str
    """Kind of the original line."""
    fields: dict[str, Any]
    """What is left of its fields."""


class Gap(ChainedLine, kw_only=True, tag="gap"):
    """Lines of the run that belong before this one and are not in this file."""

    reason: str
    missing: dict[str, Count]
    since_wall_ns: Nanoseconds | None
    torn_bytes: Count
    wall_time_ns: Nanoseconds


class Clock(ChainedLine, kw_only=True, tag="clock"):
    """What the clocks of the machine showed at one moment."""

    monotonic_ns: Nanoseconds
    boottime_ns: Nanoseconds | None
    wall_time_ns: Nanoseconds
    synchronized: bool | None


class Anchor(ChainedLine, kw_only=True, tag="anchor"):
    """A round of a public beacon: this line and those after it were written after its time."""

    chain: Digest
    round: Count
    signature: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]*$", max_length=1024)]
    wall_time_ns: Nanoseconds


class Close(ChainedLine, kw_only=True, tag="close"):
    """The last line of a file that was ended in order."""

    totals: dict[str, Count]
    lost: Count
    head: Digest
    wall_time_ns: Nanoseconds
    continued_in: str | None = None
