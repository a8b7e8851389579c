# SPDX-License-Identifier: Apache-2.0
"""Turns the report of a probe into findings, each with its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from qr_sampler_cli.findings.finding import Finding, ReportSection

if TYPE_CHECKING:
    from qr_sampler_grpc.conformance import CaseResult
    from qr_sampler_grpc.probe import ProbeReport
    from qr_sampler_grpc.probe.provenance import Provenance

__all__ = ["findings_of"]

MODES: Final = ReportSection("modes")
LIMITS: Final = ReportSection("limits")
PROVENANCE: Final = ReportSection("provenance")
BYTES: Final = ReportSection("sanity")
CONFORMANCE: Final = ReportSection("conformance")

OPERATOR: Final = "tell the operator of the server"


def findings_of(report: ProbeReport) -> list[Finding]:
    """Returns the findings of *report*, section by section."""
    findings = list(_modes(report))
    if report.size_limit is not None:
        findings.append(_size_limit(report))
    if report.provenance is not None:
        findings += _provenance(report.provenance)
    findings += _sanity(report)
    findings += _cases(report)
    return findings


def _modes(report: ProbeReport) -> Iterator[Finding]:
    for mode in report.modes:
        if mode.exhausted and not mode.works:
            yield MODES.skipped(mode.mode, f"not judged: {mode.reason}")
        elif mode.works:
            yield MODES.ok(
                mode.mode,
                f"p50 {mode.p50_ms:.3f} ms, p99 {mode.p99_ms:.3f} ms, {mode.draws} draws of "
                f"{mode.draw_bytes:,} bytes",
            )
        elif not mode.offered:
            yield MODES.skipped(mode.mode, mode.reason)
        elif report.fastest_mode:
            yield MODES.warning(
                mode.mode, f"draw {mode.draws + 1} failed: {mode.reason}", "use another mode"
            )
        else:
            yield MODES.problem(
                mode.mode,
                f"draw {mode.draws + 1} failed: {mode.reason}",
                "repair what the message names, then probe again",
            )


def _size_limit(report: ProbeReport) -> Finding:
    limit = report.size_limit
    if limit is None:
        return LIMITS.skipped("largest request", "not looked for")
    accepted = f"{limit.accepted_bytes:,} bytes are accepted"
    if limit.refused_bytes is None:
        return LIMITS.ok("largest request", f"{accepted}, and more was not tried")
    return LIMITS.ok(
        "largest request", f"{accepted}, {limit.refused_bytes:,} are not: {limit.reason}"
    )


def _provenance(provenance: Provenance) -> Iterator[Finding]:
    devices = ", ".join(provenance.device_ids)
    yield (
        PROVENANCE.ok("device", devices)
        if devices
        else PROVENANCE.skipped("device", "the server does not say")
    )
    yield _echo("sequence id", provenance.sequence_id_echoed, provenance.sequence_id_words)
    yield _echo("commitment", provenance.commitment_echoed, provenance.commitment_words)
    yield _signature(provenance)
    yield _clock(provenance)


def _echo(what: str, echoed: bool | None, unknown: str) -> Finding:
    if echoed is None:
        return PROVENANCE.skipped(what, unknown)
    if echoed:
        return PROVENANCE.ok(what, "comes back unchanged")
    return PROVENANCE.skipped(what, "does not come back")


def _signature(provenance: Provenance) -> Finding:
    if provenance.signature_verified is None:
        return PROVENANCE.skipped("signature", provenance.signature_words)
    if provenance.signature_verified:
        return PROVENANCE.ok("signature", provenance.signature_words)
    return PROVENANCE.problem(
        "signature", provenance.signature_words, "find out whose server this is, or correct the key"
    )


def _clock(provenance: Provenance) -> Finding:
    clock = provenance.clock
    if clock is None:
        return PROVENANCE.skipped("time of measurement", "the server does not say")
    between = f"{clock.at_least_ms:+.1f} and {clock.at_most_ms:+.1f} ms"
    if clock.is_consistent:
        return PROVENANCE.ok(
            "time of measurement", f"its clock is between {between} ahead of this one"
        )
    return PROVENANCE.warning(
        "time of measurement",
        f"some stamps lie outside of request and answer, whatever the clocks say ({between})",
        f"{OPERATOR}: bytes may have been measured ahead of their request",
    )


def _sanity(report: ProbeReport) -> Iterator[Finding]:
    for check in report.sanity:
        if check.passed is None:
            yield BYTES.skipped(check.name, check.words)
        elif check.passed:
            yield BYTES.ok(check.name, check.words)
        else:
            yield BYTES.problem(
                check.name,
                f"{check.words}; uniform bytes do this less than once in 1e9 probes",
                f"{OPERATOR}, and draw from another source until it is repaired",
            )


def _cases(report: ProbeReport) -> Iterator[Finding]:
    for case in report.cases:
        yield _case(case, counts=report.thorough)


def _case(case: CaseResult, *, counts: bool) -> Finding:
    if case.outcome == "passed":
        return CONFORMANCE.ok(case.case, case.words or case.checks)
    if case.outcome in ("not offered", "not judged"):
        return CONFORMANCE.skipped(case.case, f"{case.outcome}: {case.words}")
    message = f"{case.checks} {case.words[:1].upper()}{case.words[1:]}"
    if case.level == "must" and counts:
        return CONFORMANCE.problem(case.case, message, OPERATOR)
    return CONFORMANCE.warning(case.case, message, OPERATOR)
