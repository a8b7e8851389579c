# SPDX-License-Identifier: Apache-2.0
"""Probes a server: every mode, its limits, what it reports about its bytes, and the bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import grpc

from qr_sampler.entropy import EntropyDraw
from qr_sampler.errors import EntropyUnavailableError
from qr_sampler_grpc.conformance import Caller, CaseResult, run_cases
from qr_sampler_grpc.link.quota_pacer import QuotaPacer, QuotaUsedUpError
from qr_sampler_grpc.probe.configuration import configuration_lines
from qr_sampler_grpc.probe.contact import is_reachable, open_channel, repeats_sequence_ids
from qr_sampler_grpc.probe.draws import ModeReport, fastest_mode, measure_mode, paced_draw
from qr_sampler_grpc.probe.plan import (
    CONTRACT,
    SEQUENCE_BYTES,
    SIGNED_BYTES,
    Plan,
    cases_for,
    offered_modes,
)
from qr_sampler_grpc.probe.provenance import Provenance, provenance_of
from qr_sampler_grpc.probe.report import ProbeReport
from qr_sampler_grpc.probe.sanity import SanityCheck, check_bytes, check_numbers
from qr_sampler_grpc.probe.size_limit import SizeLimit, find_size_limit
from qr_sampler_grpc.probe.target import GrpcTarget, ProbeTarget
from qr_sampler_grpc.protocol.attestation import VerificationKey
from qr_sampler_grpc.protocol.profiles import PROFILES
from qr_sampler_grpc.protocol.wire import INTEGRATED_BYTES

__all__ = ["Watch", "examine"]

Watch = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Called with what begins; what it yields is called with the steps done and to be done."""


def examine(
    target: ProbeTarget, plan: Plan, watch: Watch, pacer: QuotaPacer | None = None
) -> ProbeReport:
    """Returns a report on *target*, which includes its faults.

    Args:
        target: The server.
        plan: What to do, see :meth:`Plan.checked`.
        watch: Receives the progress.
        pacer: Keeps the quotas of the settings, and waits for the server's.

    Raises:
        ConfigError: When a file that is configured cannot be used.
    """
    key = None if target.public_key is None else VerificationKey(target.public_key)
    pacer = pacer or QuotaPacer(target.limits)
    modes, draws = _modes(target, plan, watch, pacer)
    best = fastest_mode(modes)
    limit = _limit(target, plan, best, watch, pacer) if best else None
    cases, echoed = _conversation(target, plan, key, watch, pacer, works=bool(best))
    provenance = _provenance(target, best, draws, cases, echoed, pacer) if draws else None
    verified = provenance is not None and bool(provenance.signature_verified)
    spent = _spent(target, draws, cases, limit, verified=verified, named=echoed is not None)
    return ProbeReport(
        address=target.address,
        profile=target.profile,
        modes=tuple(modes),
        size_limit=limit,
        provenance=provenance,
        sanity=_sanity(target, draws),
        cases=cases,
        thorough=plan.thorough,
        spent_bytes=spent,
        configuration=_configuration(target, plan, best, limit, verified=verified) if best else {},
    )


def _spent(
    target: ProbeTarget,
    draws: Sequence[EntropyDraw],
    cases: Sequence[CaseResult],
    limit: SizeLimit | None,
    *,
    verified: bool,
    named: bool,
) -> int:
    """Returns how many bytes the whole examination has taken."""
    spent = sum(len(draw.data) for draw in draws) + sum(case.spent_bytes for case in cases)
    if limit:
        spent += limit.spent_bytes
    if verified:
        spent += INTEGRATED_BYTES if target.integrates else SIGNED_BYTES
    return spent + (SEQUENCE_BYTES if named else 0)


def _configuration(
    target: ProbeTarget, plan: Plan, mode: str, limit: SizeLimit | None, *, verified: bool
) -> dict[str, str]:
    largest = None
    if not target.integrates:
        largest = target.largest_bytes or (limit.accepted_bytes if limit else plan.draw_bytes)
    return configuration_lines(target, mode=mode, largest_bytes=largest, verified=verified)


def _modes(
    target: ProbeTarget, plan: Plan, watch: Watch, pacer: QuotaPacer
) -> tuple[list[ModeReport], list[EntropyDraw]]:
    reports: list[ModeReport] = []
    draws: list[EntropyDraw] = []
    for mode, missing in target.modes():
        if missing:
            reports.append(ModeReport(mode=mode, works=False, reason=missing, offered=False))
            continue
        with watch(f"drawing, {mode}") as progress:
            report, made = measure_mode(
                target,
                mode,
                draws=plan.draws,
                draw_bytes=plan.draw_bytes,
                pacer=pacer,
                progress=progress,
            )
        reports.append(report)
        draws += made
    return reports, draws


def _limit(
    target: ProbeTarget, plan: Plan, mode: str, watch: Watch, pacer: QuotaPacer
) -> SizeLimit | None:
    if not plan.search_bytes:
        return None
    with watch("looking for the largest request"):
        return find_size_limit(
            target,
            mode,
            known_bytes=plan.draw_bytes,
            budget_bytes=plan.search_bytes,
            pacer=pacer,
        )


def _conversation(
    target: ProbeTarget,
    plan: Plan,
    key: VerificationKey | None,
    watch: Watch,
    pacer: QuotaPacer,
    *,
    works: bool,
) -> tuple[tuple[CaseResult, ...], bool | None]:
    """Returns the results of the cases, and whether sequence ids come back."""
    # A server from which nothing can be drawn fails nearly all of them, for the same reason.
    if not isinstance(target, GrpcTarget) or not (works or plan.thorough):
        return (), None
    options = target.options
    with open_channel(options) as channel:
        if not works and not is_reachable(channel, options):
            return (), None
        caller = Caller(
            channel=channel,
            key=options.credentials,
            verification_key=key,
            paths=_paths(target),
            timeout_s=options.timeout_ms / 1000,
            pacer=pacer,
        )
        cases = cases_for(target, thorough=plan.thorough)
        with watch("running conformance cases") as progress:
            results = []
            for result in run_cases(caller, cases):
                results.append(result)
                progress(len(results), len(cases))
        return tuple(results), _repeats_sequence_ids(target, channel, pacer)


def _repeats_sequence_ids(
    target: GrpcTarget, channel: grpc.Channel, pacer: QuotaPacer
) -> bool | None:
    try:
        pacer.admit(1, SEQUENCE_BYTES)
    except QuotaUsedUpError:
        return None
    return repeats_sequence_ids(channel, target.options)


def _paths(target: GrpcTarget) -> dict[str, str]:
    """Returns where the methods of the contract are found on this server."""
    contract = PROFILES[CONTRACT]
    paths = {contract.method_path: target.options.contract.method_path}
    if "server_streaming" in offered_modes(target):
        streaming = target.with_options(mode="server_streaming").contract.method_path
        paths[contract.stream_method_path] = streaming
    return paths


def _provenance(
    target: ProbeTarget,
    mode: str,
    draws: Sequence[EntropyDraw],
    cases: Sequence[CaseResult],
    echoed: bool | None,
    pacer: QuotaPacer,
) -> Provenance:
    verified, words = None, "no public key was given"
    if target.public_key is not None:
        verified, words = _verified(target, mode, pacer) if mode else (None, "no mode works")
    else:
        signature = [case for case in cases if case.case == "signature"]
        words = "".join(f"{case.outcome}; {case.words}" for case in signature) or words
    if not isinstance(target, GrpcTarget):
        # A frame that does not name its request is no answer in that protocol.
        echoed = True
    unknown = "not known: the request that would show it was not answered"
    return provenance_of(
        draws,
        commitment_words=target.without_commitment,
        sequence_id_echoed=echoed,
        sequence_id_words="" if echoed is not None else target.without_sequence_id or unknown,
        signature_verified=verified,
        signature_words=words,
    )


def _verified(target: ProbeTarget, mode: str, pacer: QuotaPacer) -> tuple[bool | None, str]:
    n = INTEGRATED_BYTES if target.integrates else SIGNED_BYTES
    with contextlib.closing(target.source(mode, n, verify=True)) as source:
        try:
            paced_draw(source, n, b"", pacer)
        except QuotaUsedUpError as error:
            return None, f"not judged: {error}"
        except EntropyUnavailableError as error:
            return False, error.reason
    return True, "verified with the public key"


def _sanity(target: ProbeTarget, draws: Sequence[EntropyDraw]) -> tuple[SanityCheck, ...]:
    if not draws:
        return ()
    check = check_numbers if target.integrates else check_bytes
    return tuple(check([draw.data for draw in draws]))
