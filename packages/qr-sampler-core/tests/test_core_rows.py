# SPDX-License-Identifier: Apache-2.0
"""The parameters of a batch as columns, and what its requests remember."""

from __future__ import annotations

import numpy as np
import pytest

from qr_sampler import Rows, RunningMean, SamplingParameters
from qr_sampler.rows import RowParameters

PARAMETERS = [SamplingParameters(top_k=top_k, top_p=0.5) for top_k in (3, 7, 3, 1)]


def test_columns_are_gathered_once() -> None:
    rows = Rows(PARAMETERS)
    column = rows.column("top_k")
    assert column.dtype == np.float64
    assert column.tolist() == [3.0, 7.0, 3.0, 1.0]
    assert rows.column("top_k") is column


def test_rows_are_grouped_in_order_of_appearance() -> None:
    groups = Rows(PARAMETERS).groups("top_k", "top_p")
    assert {key: lines.tolist() for key, lines in groups.items()} == {
        (3, 0.5): [0, 2],
        (7, 0.5): [1],
        (1, 0.5): [3],
    }
    assert list(groups) == [(3, 0.5), (7, 0.5), (1, 0.5)]


def test_requests_remember_nothing_unless_it_is_given() -> None:
    running = Rows(PARAMETERS).running_entropy
    assert running.dtype == np.float64
    assert running.shape == (4,)
    assert np.isnan(running).all()
    assert Rows([]).running_entropy.shape == (0,)


def test_take_keeps_the_memory_with_its_request() -> None:
    rows = Rows(PARAMETERS, [0.5, np.nan, 2.5, 3.5]).take(np.array([3, 1, 0]))
    assert len(rows) == 3
    assert rows.column("top_k").tolist() == [1.0, 7.0, 3.0]
    np.testing.assert_array_equal(rows.running_entropy, [3.5, np.nan, 0.5])
    assert len(rows.take(np.array([], dtype=np.intp))) == 0


def test_new_memory_leaves_the_old_rows_alone_and_shares_their_columns() -> None:
    rows = Rows(PARAMETERS)
    before = rows.column("top_k")
    values = np.array([1.0, 2.0, 3.0, 4.0])
    renewed = rows.with_running_entropy(values)
    values[:] = 0.0
    assert renewed.running_entropy.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert np.isnan(rows.running_entropy).all()
    assert renewed.parameters is rows.parameters
    assert renewed.column("top_k") is before
    assert rows.column("top_p") is renewed.column("top_p")


def test_what_follows_from_the_parameters_is_computed_once() -> None:
    calls = []

    def largest(rows: RowParameters, floor: int) -> int:
        calls.append(len(rows))
        return max(floor, *(row.top_k for row in rows.parameters))

    rows = Rows([SamplingParameters(top_k=5), SamplingParameters(top_k=9)])
    assert [rows.derived(largest, 1), rows.derived(largest, 1)] == [9, 9]
    assert rows.with_running_entropy([1.0, 2.0]).derived(largest, 1) == 9
    assert len(calls) == 1
    assert rows.derived(largest, 20) == 20
    assert rows.take(np.array([0])).derived(largest, 1) == 5
    assert calls == [2, 2, 1]


def test_what_is_computed_once_cannot_depend_on_what_changes_with_every_token() -> None:
    rows = Rows(PARAMETERS, [1.0] * 4)
    with pytest.raises(AttributeError, match="running_entropy"):
        rows.derived(lambda parameters: parameters.running_entropy.sum())


@pytest.mark.parametrize("values", [[1.0], [1.0] * 5, 1.0, [[1.0]] * 4])
def test_memory_of_another_batch_is_refused(values: object) -> None:
    with pytest.raises(ValueError, match="expected one entry for each of 4 rows"):
        Rows(PARAMETERS, values)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected one entry for each of 4 rows"):
        Rows(PARAMETERS).with_running_entropy(values)  # type: ignore[arg-type]


def test_a_row_sees_the_mean_that_sequential_decoding_would_have_shown_it() -> None:
    """Two chains of rows, 0 -> 2 -> 3 and 1 -> 4, and one that stands alone."""
    parameters = [SamplingParameters(varentropy_drift_rate=rate) for rate in (0.25, 0.5)]
    of_chain = [0, 1, 0, 0, 1, 1]
    rows = Rows(
        [parameters[chain] for chain in of_chain],
        [1.5, np.nan, 1.5, 1.5, np.nan, 7.0],
        follows=[-1, -1, 0, 2, 1, -1],
    )
    entropy = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    expected = []
    for chain, start, before in ((0, 1.5, []), (1, np.nan, []), (0, 1.5, [0]), (0, 1.5, [0, 2])):
        mean = RunningMean(parameters[chain].varentropy_drift_rate, start)
        for index in before:
            mean.observe(entropy[index])
        expected.append(mean.value)
    found = rows.after_predecessors(entropy)
    np.testing.assert_array_equal(found.running_entropy, [*expected, 2.0, 7.0])
    assert found.parameters == rows.parameters


def test_rows_that_follow_nothing_are_returned_as_they_are() -> None:
    for follows in (None, [-1, -1]):
        rows = Rows([SamplingParameters()] * 2, follows=follows)
        assert not rows.follow_each_other
        assert rows.after_predecessors(np.ones(2)) is rows


def test_taken_rows_follow_each_other_as_before() -> None:
    rows = Rows([SamplingParameters()] * 4, [1.0, 1.0, 1.0, 1.0], follows=[-1, 0, 1, 0])
    taken = rows.take(np.array([0, 3]))
    np.testing.assert_array_equal(
        taken.after_predecessors(np.array([2.0, 9.0])).running_entropy,
        [1.0, rows.after_predecessors(np.full(4, 2.0)).running_entropy[3]],
    )
    alone = rows.take(np.array([2, 3]))
    assert not alone.follow_each_other
    assert not rows.take(np.array([], dtype=np.intp)).follow_each_other
