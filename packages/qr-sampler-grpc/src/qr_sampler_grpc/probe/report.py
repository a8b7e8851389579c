# SPDX-License-Identifier: Apache-2.0
"""What a probe has found."""

from __future__ import annotations

from dataclasses import dataclass

from qr_sampler_grpc.conformance.results import CaseResult
from qr_sampler_grpc.probe.draws import ModeReport, fastest_mode
from qr_sampler_grpc.probe.provenance import Provenance
from qr_sampler_grpc.probe.sanity import SanityCheck
from qr_sampler_grpc.probe.size_limit import SizeLimit

__all__ = ["ProbeReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """A server as it has shown itself."""

    address: str
    """Where it listens."""
    profile: str
    """What it was spoken to in."""
    modes: tuple[ModeReport, ...]
    """Every mode that there is."""
    size_limit: SizeLimit | None
    """The largest request; ``None`` when it was not looked for."""
    provenance: Provenance | None
    """What came along with the bytes; ``None`` when nothing came."""
    sanity: tuple[SanityCheck, ...]
    """Whether the bytes could be uniform."""
    cases: tuple[CaseResult, ...]
    """The conformance cases that were run."""
    thorough: bool
    """Whether all cases were run, so that a failed one counts."""
    spent_bytes: int
    """Random bytes that were drawn in all."""
    configuration: dict[str, str]
    """Variables to paste; empty when there is nothing to draw from."""

    @property
    def fastest_mode(self) -> str:
        """The working mode with the shortest median, empty when none works."""
        return fastest_mode(self.modes)

    @property
    def conforms(self) -> bool:
        """Whether no case failed that clients rely on."""
        return not any(case.outcome == "failed" and case.level == "must" for case in self.cases)

    @property
    def usable(self) -> bool:
        """Whether tokens may be drawn from it, and it conforms if that was asked for."""
        return (
            bool(self.fastest_mode)
            and all(check.passed is not False for check in self.sanity)
            and (self.provenance is None or self.provenance.signature_verified is not False)
            and (self.conforms or not self.thorough)
        )
