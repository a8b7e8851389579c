# SPDX-License-Identifier: Apache-2.0
"""What a participant is told before a session."""

from __future__ import annotations

from collections.abc import Callable

from qr_sampler_lab.experiments.blinding import aliases_of
from qr_sampler_lab.experiments.plan import PlannedSession
from qr_sampler_lab.experiments.study import Study

__all__ = ["instructions_of"]


def instructions_of(study: Study) -> Callable[[PlannedSession], str]:
    """Returns what gives the instructions of a session: those of its arm, if it has only one.

    A participant learns the intention that way, and nothing else: not the source.
    """
    aliases = aliases_of(study.protocol, study.key.alias_key) if study.is_sealed else {}
    told = {alias: study.protocol.arm(arm).instructions for (_, arm), alias in aliases.items()}

    def instructions(session: PlannedSession) -> str:
        arms = {request.alias for request in session.requests}
        return told.get(arms.pop(), "") if len(arms) == 1 else ""

    return instructions
