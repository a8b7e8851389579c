# SPDX-License-Identifier: Apache-2.0
"""What a test will spend and what it has found, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qr_sampler_cli.component_test.plan import PROBE_BYTES
from qr_sampler_cli.component_test.trial import Trial
from qr_sampler_cli.terminal.durations import duration

__all__ = ["announcement", "findings"]

SETTINGS: Final = {
    "source": "QR_ENTROPY_SOURCE_TYPE",
    "amplifier": "QR_SIGNAL_AMPLIFIER_TYPE",
    "strategy": "QR_TEMPERATURE_STRATEGY",
}


def announcement(trial: Trial) -> Iterator[str]:
    """Yields what is going to be tested, and what that will spend."""
    about = trial.about
    if trial.kind != "source":
        yield f"{trial.name}: {trial.kind}; its contract draws nothing"
        return
    yield (
        f"{trial.name}: from {about['distribution'] or 'an unknown package'}, just-in-time class "
        f"{about['jit_class']}, conditioning {about['conditioning']}"
    )
    running = trial.plan.running
    spent = PROBE_BYTES + sum(stage.count_bytes for stage in running)
    requests = 1 + sum(stage.requests for stage in running)
    wait_s = sum(stage.wait_s for stage in running)
    waits = f", spread over {duration(wait_s)} for its quota" if wait_s else ""
    yield f"draws at most {spent:,} bytes in {requests} requests{waits}"
    for stage in trial.plan.stages:
        if stage.left_out:
            yield f"leaves out {stage.name}: {stage.left_out}"
    for clause in trial.plan.skipped_clauses:
        yield f"leaves out {clause}: it asks faster than the quota of requests allows"


def findings(trial: Trial) -> Iterator[str]:
    """Yields what was found, the verdict and what to do next."""
    if trial.clauses:
        yield f"contract  {_clauses(trial)}"
    if trial.health:
        tested = trial.health["untested"] or f"{trial.health['tested']} tested, 1,024 samples"
        yield f"health    {trial.health['health']}: {trial.health['alarm'] or tested}"
    for size, (median, slowest) in trial.latencies_ms.items():
        yield f"latency   {size:,} bytes: {median:.3g} ms (median), {slowest:.3g} ms (slowest)"
    for fault in trial.faults:
        yield f"fault     {fault}"
    yield f"verdict   {trial.verdict}: {_next(trial)}"


def _clauses(trial: Trial) -> str:
    outcomes = trial.outcomes
    text = f"{outcomes['passed']} checks passed, {outcomes['failed']} failed"
    unseen = outcomes["skipped"]
    return f"{text}, {unseen} not made (a running device does not show them)" if unseen else text


def _next(trial: Trial) -> str:
    if trial.faults:
        return "repair what the faults name; docs/plugins.md says what is expected"
    if trial.unavailable:
        return f"{trial.unavailable}; make it available and test it again"
    if not trial.plan.has("contract"):
        return "its quotas leave out the contract; raise them, or test a stand-in of the device"
    chosen = f"choose it with {SETTINGS[trial.kind]}={trial.name}"
    left = [stage.name for stage in trial.plan.stages if stage.left_out]
    left += trial.plan.skipped_clauses
    return f"{chosen}; not tested: {', '.join(left)}" if left else chosen
