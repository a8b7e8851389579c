# SPDX-License-Identifier: Apache-2.0
"""What every host engine needs: sequences, what becomes of their tokens, and a session.

A host is whatever computes logits. It meets a :class:`SamplingSession` in four ways:

* **Rows in**: :meth:`SamplingSession.begin` takes a request in, :class:`StepRows` says which rows
  of a step get a token of which sequence.
* **Decided tokens out**: :meth:`SamplingSession.decide` chooses and forces them in the logits, and
  returns an :class:`Outcome` for each.
* **What was emitted**: :meth:`TokenSequence.sampled` when the host has taken a token, then
  :meth:`TokenSequence.go_on` or :meth:`TokenSequence.confirm` when it has continued from it, or
  :meth:`TokenSequence.settle` when it has handed it over.
* **What was dropped**: :meth:`TokenSequence.wasted` when it has not taken a token,
  :meth:`TokenSequence.drop` or :meth:`TokenSequence.resume` when it has taken some back, and
  :meth:`TokenSequence.record_unsettled` when that is unknown.

The latter two return entries, which :meth:`SamplingSession.record` takes: a step says what has
become of each of its rows, and the writer makes records of that. A :class:`RecordKeeper`
writes while no step waits for it. Nothing here knows torch or any engine.
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
from qr_sampler.records.entries import (
    DiscardEntry,
    DrawnNumber,
    Entry,
    RecordedDiscard,
    RecordedToken,
    RequestFacts,
    SequenceEnd,
    SequenceRecord,
    TokenEntry,
    records_of,
)
from qr_sampler.sampling.columns import Remembered

__all__ = [
    "UNKNOWN_TOKEN",
    "ChosenToken",
    "DepartedSequences",
    "DiscardEntry",
    "DrawnNumber",
    "EngineFacts",
    "EngineStatus",
    "Entry",
    "ForcedEnd",
    "LogitsAccess",
    "NumpyLogits",
    "Outcome",
    "RecordKeeper",
    "RecordedDiscard",
    "RecordedToken",
    "Remembered",
    "RequestFacts",
    "RowGroup",
    "RowGroups",
    "SamplingSession",
    "SequenceEnd",
    "SequenceRecord",
    "StepRows",
    "StopConditions",
    "StopStrings",
    "TokenEntry",
    "TokenSequence",
    "UnchosenToken",
    "UndecidedToken",
    "records_of",
    "serve_or_split",
]
