# SPDX-License-Identifier: Apache-2.0
"""Whether the rounds of drand that a study names are genuine, and came when they had to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qr_sampler_cli.audit.anchors.drand import InvalidRoundError, Round, verify_round
from qr_sampler_cli.failures import MissingPackageError
from qr_sampler_lab.experiments.bundle.checks import Checks
from qr_sampler_lab.experiments.files.chained_record import Entry
from qr_sampler_lab.experiments.seal import Seal

__all__ = ["check_rounds"]


def check_rounds(checks: Checks, seal: Seal, entries: Sequence[Entry]) -> None:
    """Checks the round that the seal contains and the one that decided the order.

    The first makes the seal no older than its time; the second must have been unknown when the
    study was sealed.

    Args:
        checks: Takes the findings.
        seal: The seal.
        entries: The journal.
    """
    if seal.witness is None:
        checks.cannot_say("seal", "since when it exists: it contains no round of drand")
    else:
        _verify(checks, "seal", seal.witness)
    if seal.order.method == "secret":
        checks.cannot_say(
            "plan",
            "whether secrets were tried until an order suited: `order: drand` leaves no choice",
        )
    for entry in entries:
        if entry.kind == "order" and entry.values.get("method") == "drand":
            settled = _verify(checks, "plan", entry.values)
            if settled is not None:
                _check_unknown(checks, seal, settled)


def _check_unknown(checks: Checks, seal: Seal, settled: Round) -> None:
    """Checks that a round came after everything that the seal says of its own time."""
    witnessed = seal.witness is not None and settled.round <= seal.witness["round"]
    if settled.time_ns <= seal.clocks["wall_time_ns"] or witnessed:
        checks.fail("plan", f"round {settled.round} was known when the study was sealed")
    checks.cannot_say(
        "plan",
        f"whether round {settled.round} was unknown when the study was sealed: only the clock of "
        "whoever sealed it says so, unless somebody else had the digest of the seal before",
    )


def _verify(checks: Checks, claim: str, told: Mapping[str, Any]) -> Round | None:
    """Returns the round if it has the form of one; notes whether it is genuine."""
    try:
        found = Round.of(told)
        verify_round(found)
    except InvalidRoundError as error:
        checks.fail(claim, str(error))
        return None
    except MissingPackageError as error:
        checks.cannot_say(claim, f"whether a round of drand is genuine: {error}")
    return found
