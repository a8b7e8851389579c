# SPDX-License-Identifier: Apache-2.0
"""What is kept of a run as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from qr_sampler.records.kinds.record import SCHEMA_VERSION, Record

__all__ = ["GapRecord", "GenesisRecord"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenesisRecord(Record):
    """The first line of a ledger: what the lines after it were made with."""

    kind: ClassVar[str] = "genesis"

    run_id: str
    """Unique name of the run."""
    engine: str
    """Host engine and its version."""
    model: str
    """Model that the engine serves."""
    versions: dict[str, str]
    """Versions of the distributions that took part."""
    settings: dict[str, Any]
    """The deployment's settings; those of its sources are in :attr:`sources`."""
    pid: int
    """Process that samples."""
    monotonic_ns: int
    """``time.monotonic_ns()`` when the run began, on the clock of the records."""
    wall_time_ns: int
    """``time.time_ns()`` when the run began."""
    schema_version: int = SCHEMA_VERSION
    """Layout of the lines."""
    sources: list[dict[str, Any]] = field(default_factory=list)
    """The sources in use, fallbacks included, each with ``name``, ``kind``, ``distribution``,
    ``version``, ``jit_class``, ``conditioning``, ``tested``, ``limits`` and ``settings``, these
    without secrets. The kind is the name, unless the operator has given the source another one;
    ``tested`` is what health tests look at: ``raw`` bits, ``output`` or ``nothing``."""
    components: list[dict[str, Any]] = field(default_factory=list)
    """Amplifiers and temperature strategies of other projects that requests may choose, each with
    ``component``, ``name``, ``distribution``, ``version`` and ``settings``, these without secrets,
    and null for what the deployment has not chosen."""
    host: dict[str, Any] = field(default_factory=dict)
    """Further facts about the engine."""
    files: dict[str, str] = field(default_factory=dict)
    """Digests of the code that takes part, see :func:`qr_sampler.records.code_digest.code_digest`,
    by distribution."""
    commits: dict[str, str] = field(default_factory=dict)
    """Commits that editable installations are checked out at, by distribution."""
    boot_id: str = ""
    """Names the time since the machine was started, to which the monotonic clock belongs; empty
    where there is no such name."""
    continues: dict[str, Any] | None = None
    """The file that this one continues: its name, its number of lines and its head."""
    seal: str | None = None
    """Digest of the sealed plan that the run belongs to."""
    public_key: str | None = None
    """Key that signatures in this ledger are verified with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GapRecord(Record):
    """Lines of the run that belong before this one and are not in this file."""

    kind: ClassVar[str] = "gap"

    reason: str
    """What has become of them: ``refused`` by the disk; ``removed`` or ``cut`` with the file that
    they were in; or ``moved``, which they are with that file."""
    missing_lines: int
    """Number of these lines; of a file that was cut short, all that had been written to it."""
    wall_time_ns: int
    """When it was noticed, in nanoseconds since the epoch."""
