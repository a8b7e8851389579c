# SPDX-License-Identifier: Apache-2.0
"""Rows share a draw, but not each other's fate."""

from __future__ import annotations

from collections.abc import Sequence

from qr_sampler import (
    ComponentError,
    EntropyUnavailableError,
    QRSamplerError,
    RequestOptions,
    SamplingParameters,
)
from qr_sampler.host import RowGroups, StepRows, StopConditions, TokenSequence, serve_or_split

LATE = EntropyUnavailableError("device", "too late")
DEFECT = ComponentError("signal amplifier", "theirs", "u is not inside (0, 1)")
PATIENCE_S = 60.0


class Step:
    """Serves a whole that fails, then its parts, by a clock of its own.

    Args:
        whole_s: How long it takes for the whole to fail.
        parts: What becomes of each part, and how long that takes.
    """

    def __init__(self, whole_s: float, *parts: tuple[QRSamplerError | None, float]) -> None:
        self.tried: list[int] = []
        self.given_up: list[tuple[int, str]] = []
        self._parts = parts
        self._whole_s = whole_s
        self._now_s = 0.0
        serve_or_split(-1, self._split, self._attempt, self._give_up, lambda: self._now_s)

    def _split(self, whole: int) -> Sequence[int]:
        return range(len(self._parts)) or [whole]

    def _attempt(self, part: int) -> QRSamplerError | None:
        if part < 0:
            self._now_s += self._whole_s
            return EntropyUnavailableError("device", "together too late")
        self.tried.append(part)
        outcome, took_s = self._parts[part]
        self._now_s += took_s
        return outcome

    def _give_up(self, part: int, error: QRSamplerError) -> None:
        self.given_up.append((part, str(error)))


def test_what_cannot_be_split_has_had_its_chance() -> None:
    step = Step(1.0)
    assert step.tried == []
    assert [part for part, _ in step.given_up] == [-1]


def test_only_the_parts_that_fail_are_given_up() -> None:
    step = Step(5.0, (None, 4.0), (LATE, 2.0), (None, 4.0), (LATE, 2.0), (None, 4.0))
    assert step.tried == [0, 1, 2, 3, 4]
    assert step.given_up == [(1, str(LATE)), (3, str(LATE))]


def test_a_source_that_takes_its_time_to_fail_again_is_down() -> None:
    step = Step(5.0, (None, 1.0), (LATE, 5.0), (None, 1.0), (None, 1.0))
    assert step.tried == [0, 1]
    assert step.given_up == [(part, str(LATE)) for part in (1, 2, 3)]


def test_refusals_that_come_at_once_leave_every_part_its_chance() -> None:
    refusals = [(LATE, 0.0001)] * 50
    step = Step(0.0001, *refusals, (None, 1.0))
    assert len(step.tried) == 51
    assert [part for part, _ in step.given_up] == list(range(50))


def test_a_component_that_fails_says_nothing_of_the_source() -> None:
    step = Step(1.0, (DEFECT, 9.0), (DEFECT, 9.0), (LATE, 0.5), (DEFECT, 9.0), (None, 1.0))
    assert step.tried == [0, 1, 2, 3, 4]
    assert [part for part, _ in step.given_up] == [0, 1, 2, 3]


def sequence(size: int = 64, source: str = "device") -> TokenSequence:
    options = RequestOptions(parameters=SamplingParameters(sample_count=size), source=source)
    return TokenSequence(options, StopConditions(frozenset()))


def step(*sequences: TokenSequence) -> StepRows:
    return StepRows(list(range(len(sequences))), list(sequences), [0] * len(sequences))


def indices(groups: RowGroups, *sequences: TokenSequence) -> list[list[int]]:
    return [group.indices for group in groups.of(step(*sequences))]


def test_a_step_without_rows_has_no_groups_after_one_that_was_given_up() -> None:
    groups, row = RowGroups(), sequence()
    assert indices(groups, row) == [[0]]
    row.failure = "unplugged"
    groups.forget()
    assert indices(groups) == []
    assert indices(groups, row) == []


def test_sizes_within_a_factor_share_a_draw() -> None:
    rows = [sequence(size) for size in (64, 1024, 1025, 63, 16 * 1025 + 1)]
    assert indices(RowGroups(), *rows) == [[0, 3], [1, 2], [4]]
    assert indices(RowGroups(by_size=False), *rows) == [[0, 1, 2, 3, 4]]
    assert indices(RowGroups(), *rows[:2], sequence(8, "other")) == [[0, 1], [2]]


def test_a_group_falls_apart_into_sequences_with_all_their_rows() -> None:
    large, small = sequence(70), sequence(60)
    rows = step(large, large, small, small)
    rows.follows = [-1, 0, -1, 2]
    (group,) = RowGroups().of(rows)
    parts = group.apart(rows.sequences)
    assert [part.indices for part in parts] == [[2, 3], [0, 1]]
    assert all(part.rows.follow_each_other for part in parts)
    assert [part.apart(rows.sequences) for part in parts] == [[part] for part in parts]
