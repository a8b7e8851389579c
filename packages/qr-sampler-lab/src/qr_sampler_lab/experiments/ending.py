# SPDX-License-Identifier: Apache-2.0
"""How a study ends: in its journal first, then in the register."""

from __future__ import annotations

from qr_sampler_lab.experiments.files.chained_record import Entry
from qr_sampler_lab.experiments.files.errors import StudyError
from qr_sampler_lab.experiments.study import Study

__all__ = ["abort_study", "enter_end", "finish_study"]


def abort_study(study: Study, reason: str, **facts: object) -> Entry:
    """Ends a study before its end, for ever.

    Raises:
        StudyError: When it has ended already.
    """
    _refuse_unregistered(study)
    study.journal.aborted(reason, **facts)
    return enter_end(study)


def finish_study(study: Study, **facts: object) -> Entry:
    """Ends a study that ran to its end by its own rule.

    Raises:
        StudyError: When it has ended already, or has not begun.
    """
    _refuse_unregistered(study)
    study.journal.finished(**facts)
    return enter_end(study)


def enter_end(study: Study) -> Entry:
    """Enters in the register how a study has ended by its journal.

    Also completes what a crash between the two has left.

    Raises:
        StudyError: When it is open, or the register knows its end already.
    """
    sealed = study.sealed
    ends = [entry for entry in study.journal.entries() if entry.kind in ("finished", "aborted")]
    if not ends:
        raise StudyError("the study is open; it has no end that the register could have")
    end = ends[-1]
    return study.register.end(sealed.digest, end.kind, end.values.get("reason", ""), end)


def _refuse_unregistered(study: Study) -> None:
    """Refuses to end a study that the register could not take the end of."""
    # The seal comes first: without it there is nothing to end.
    _ = study.sealed
    standing = study.journal.standing()
    faults = study.register.faults(standing.seal, standing.receipt)
    if faults:
        raise StudyError(f"{'; '.join(faults)}. Bring back the register, then repeat this")
