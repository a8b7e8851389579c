# SPDX-License-Identifier: Apache-2.0
"""The findings of a probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qr_sampler_grpc.conformance.results import CaseResult
from qr_sampler_grpc.probe.draws import ModeReport, fastest_mode
from qr_sampler_grpc.probe.provenance import Provenance
from qr_sampler_grpc.probe.sanity import SanityCheck
from qr_sampler_grpc.probe.size_limit import SizeLimit

__all__ = ["ProbeReport", "Verdict"]

Verdict = Literal["usable", "not usable", "not judged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """The findings about one server."""

    address: str
    """Where it listens."""
    profile: str
    """The protocol or profile that it was probed with."""
    modes: tuple[ModeReport, ...]
    """Every mode."""
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
    def verdict(self) -> Verdict:
        """Whether tokens may be drawn from it; not judged where a quota left too little to tell."""
        if self.usable:
            return "not judged" if self.thorough and self._has_unjudged_cases else "usable"
        exhausted = any(mode.exhausted for mode in self.modes)
        failed = any(mode.offered and mode.reason and not mode.exhausted for mode in self.modes)
        return "not judged" if exhausted and not failed and self._no_fault_seen else "not usable"

    @property
    def _has_unjudged_cases(self) -> bool:
        return any(case.outcome == "not judged" and case.level == "must" for case in self.cases)

    @property
    def conforms(self) -> bool:
        """Whether no case failed that clients rely on."""
        return not any(case.outcome == "failed" and case.level == "must" for case in self.cases)

    @property
    def usable(self) -> bool:
        """Whether tokens may be drawn from it, and it conforms if that was asked for."""
        return bool(self.fastest_mode) and self._no_fault_seen

    @property
    def _no_fault_seen(self) -> bool:
        return (
            all(check.passed is not False for check in self.sanity)
            and (self.provenance is None or self.provenance.signature_verified is not False)
            and (self.conforms or not self.thorough)
        )
