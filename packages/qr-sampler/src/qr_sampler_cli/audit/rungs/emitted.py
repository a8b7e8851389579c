# SPDX-License-Identifier: Apache-2.0
"""The tokens that clients say they have received, compared with those of the ledger."""

from __future__ import annotations

from array import array
from pathlib import Path

import msgspec

from qr_sampler.errors import ConfigError
from qr_sampler_cli.audit.findings import Rung
from qr_sampler_cli.audit.reading.redacted import REDACTED_ID
from qr_sampler_cli.audit.rungs.open_items import OpenSequence
from qr_sampler_cli.audit.schema.fields import Count

__all__ = ["ReceivedAnswer", "ReceivedTokens"]


class ReceivedAnswer(msgspec.Struct, kw_only=True):
    """One line of the file: one answer; other keys may stand beside these."""

    request_key: str
    """The name of the request."""
    token_ids: list[Count]
    """The tokens, from the first on."""


class ReceivedTokens:
    """All answers, by request. They are held in memory, eight bytes a token.

    Args:
        path: JSON Lines, each a :class:`ReceivedAnswer`; several of one request are its several
            answers, in any order.

    Raises:
        ConfigError: When the file cannot be read, or holds anything else.
    """

    def __init__(self, path: Path) -> None:
        self._answers: dict[str, list[array[int]]] = {}
        decoder = msgspec.json.Decoder(ReceivedAnswer)
        number = 0
        try:
            with path.open("rb") as file:
                for line in file:
                    number += 1
                    self._add(decoder.decode(line))
        except OSError as error:
            raise ConfigError(f"--emitted={path}: {error.strerror}") from error
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ConfigError(
                f"--emitted={path}, line {number}: {error}; every line is an object with "
                "request_key and token_ids"
            ) from error

    def _add(self, answer: ReceivedAnswer) -> None:
        self._answers.setdefault(answer.request_key, []).append(array("q", answer.token_ids))

    def compare(self, sequence: OpenSequence, place: int, rung: Rung) -> None:
        """Judges a sequence that is over."""
        ids = sequence.ids
        answers = self._answers.get(sequence.request_key, [])
        if ids is None or not ids:
            return
        if sequence.first > 0:
            rung.cannot_say("what clients received of sequences that continue others", place)
        elif REDACTED_ID in ids:
            self._compare_lengths(sequence, ids, place, rung)
        elif ids in answers:
            answers.remove(ids)
        elif sequence.unsettled and any(ids[: len(each)] == each for each in answers):
            answers.remove(next(each for each in answers if ids[: len(each)] == each))
        else:
            rung.fail(place, _difference(sequence, ids, answers))

    def _compare_lengths(
        self, sequence: OpenSequence, ids: array[int], place: int, rung: Rung
    ) -> None:
        """Judges a sequence whose token ids are left out."""
        answers = self._answers.get(sequence.request_key, [])
        lengths = range(len(ids) - len(sequence.unsettled), len(ids) + 1)
        same = next((each for each in answers if len(each) in lengths), None)
        if same is None:
            rung.fail(place, f"no answer received has its {len(ids)} tokens")
        else:
            answers.remove(same)
            rung.cannot_say("whether clients received tokens whose ids are redacted", place)

    def finish(self, rung: Rung) -> None:
        """Judges the answers that no sequence of the ledger has."""
        for key, answers in self._answers.items():
            for answer in answers:
                if answer:
                    rung.fail(
                        0, f"no sequence has the {len(answer)} tokens received for {key[:80]!r}"
                    )


def _difference(sequence: OpenSequence, ids: array[int], answers: list[array[int]]) -> str:
    name = sequence.request_key[:80]
    if not answers:
        return f"no answer was received for {name!r}, of which the ledger has {len(ids)} tokens"
    if len(answers) > 1:
        return f"none of the {len(answers)} answers received for {name!r} has these tokens"
    (answer,) = answers
    same = next(
        (at for at, (a, b) in enumerate(zip(ids, answer, strict=False)) if a != b),
        min(len(ids), len(answer)),
    )
    return (
        f"the answer received for {name!r} has {len(answer)} tokens and the ledger {len(ids)}; "
        f"they differ from position {same} on"
    )
