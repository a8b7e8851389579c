# SPDX-License-Identifier: Apache-2.0
"""What every host engine needs: sequences, what becomes of their tokens, and a session.

A host is whatever computes logits. It meets a :class:`SamplingSession` in four ways:

* **Rows in**: :meth:`SamplingSession.begin` takes a request in, :class:`StepRows` says which rows
  of a step get a token of which sequence.
* **Decided tokens out**: :meth:`SamplingSession.decide` chooses and forces them in the logits, and
  returns an :class:`Outcome` for each.
* **What was emitted**: :meth:`TokenSequence.sampled` when the host has taken a token, then
  :meth:`TokenSequence.go_on` or :meth:`TokenSequence.confirm` when it has gone on from it.
* **What was dropped**: :meth:`TokenSequence.wasted` when it has not taken a token,
  :meth:`TokenSequence.drop` or :meth:`TokenSequence.resume` when it has taken some back, and
  :meth:`TokenSequence.record_unsettled` when nobody can say.

The latter two return records, which :meth:`SamplingSession.record` keeps. A :class:`RecordKeeper`
writes them while no step does. Nothing here knows torch or any engine.
"""

from __future__ import annotations

from qr_sampler.host.departed import DepartedSequences
from qr_sampler.host.logits import LogitsAccess, NumpyLogits
from qr_sampler.host.outcomes import (
    ChosenToken,
    ForcedEnd,
    Outcome,
    UnchosenToken,
    UndecidedToken,
)
from qr_sampler.host.record_keeper import RecordKeeper
from qr_sampler.host.row_groups import RowGroup, RowGroups, StepRows
from qr_sampler.host.sequence import UNKNOWN_TOKEN, TokenSequence
from qr_sampler.host.session import EngineFacts, SamplingSession
from qr_sampler.host.shared_draws import serve_or_split
from qr_sampler.host.status import EngineStatus
from qr_sampler.host.stop_conditions import StopConditions, StopStrings

__all__ = [
    "UNKNOWN_TOKEN",
    "ChosenToken",
    "DepartedSequences",
    "EngineFacts",
    "EngineStatus",
    "ForcedEnd",
    "LogitsAccess",
    "NumpyLogits",
    "Outcome",
    "RecordKeeper",
    "RowGroup",
    "RowGroups",
    "SamplingSession",
    "StepRows",
    "StopConditions",
    "StopStrings",
    "TokenSequence",
    "UnchosenToken",
    "UndecidedToken",
    "serve_or_split",
]
