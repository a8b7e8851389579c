# SPDX-License-Identifier: Apache-2.0
"""Crowded rows in compiled loops: what NumPy finds in them, in a bounded number of rounds."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from qr_sampler import ReferenceSelector, Rows, SamplingParameters
from qr_sampler.amplification import U_MAX, U_MIN
from qr_sampler.selection.fast.bins import BINS, BinnedRow, RowBins, bin_scale
from qr_sampler.selection.fast.descent import Goal, Held
from qr_sampler.selection.fast.energies import COARSE_SHIFT, Edge, RowEnergies
from qr_sampler.testing.crowded_rows import CROWDED_KINDS, crowded_row
from qr_sampler.testing.selection_cases import LOGIT_KINDS, random_logits

pytest.importorskip("numba", reason="needs the extra numba")

from qr_sampler_accel.host.arithmetic.masses import whole_sum
from qr_sampler_accel.host.bins import bins as compiled_bins
from qr_sampler_accel.host.bins import descent, energies, pivots
from qr_sampler_accel.host.bins.bins import CompiledBins
from qr_sampler_accel.host.bins.descent import MOST_ROUNDS, SAMPLED_ROUNDS, Descent, bin_ends
from qr_sampler_accel.host.bins.energies import CompiledEnergies
from qr_sampler_accel.host.bins.pivots import State, descent_memory
from qr_sampler_accel.host.selector import CompiledSelector

KINDS = (*CROWDED_KINDS, *LOGIT_KINDS)
SIZE = 20_000
FILTERS = [
    {},
    {"top_p": 0.7},
    {"top_k": 9_000},
    {"min_p": 0.999},
    {"typical_p": 0.6},
    {"typical_p": 0.9, "top_k": 9_000, "truncate_first": True},
]


def row_of(rng: np.random.Generator, kind: str, size: int = SIZE) -> NDArray[np.float32]:
    make = crowded_row if kind in CROWDED_KINDS else random_logits
    return make(rng, kind, size)


def sections(row: BinnedRow) -> list[tuple[int, int, Held]]:
    """Returns the fullest bin, all bins, and the second half of them, with what they hold."""
    bins = RowBins(row.logits.size)
    totals = bins.totals(row.logits, row.maximum, row.inverse_temperature, row.exponent)
    fullest = int(totals.counts.argmax())
    places = [(fullest, fullest), (0, BINS - 1), (BINS // 2, BINS - 1)]
    held = [
        Held(int(totals.counts[a : b + 1].sum()), int(totals.masses[a : b + 1].sum()))
        for a, b in places
    ]
    return [(*place, each) for place, each in zip(places, held, strict=True) if each.tokens]


def goals(held: Held) -> list[Goal]:
    fractions = (1e-9, 0.2, 0.5, 0.93, 1.0)
    counts = [Goal(max(1, int(fraction * held.tokens)), counts=True) for fraction in fractions]
    masses = [Goal(max(1, int(fraction * held.mass)), counts=False) for fraction in fractions]
    return counts + (masses if held.mass else [])


@pytest.mark.parametrize("sampled_rounds", [SAMPLED_ROUNDS, 0])
@pytest.mark.parametrize("kind", KINDS)
def test_a_descent_lands_where_that_in_numpy_does(kind: str, sampled_rounds: int) -> None:
    """In a bounded number of rounds, also without samples.

    With them, the rounds together look at eight rows at most: four were found, of half a row tied.
    """
    rng = np.random.default_rng([KINDS.index(kind), 5])
    fast = Descent(SIZE, sampled_rounds)
    for inverse in (1.0, 0.02, 20.0):
        logits = row_of(rng, kind)
        row, bins = BinnedRow(logits, logits.max(), inverse, 35), RowBins(SIZE)
        for first, last, held in sections(row):
            for goal in goals(held):
                found = fast.land(row, first, last, held, goal)
                assert found == bins.land(row, first, last, held, goal)
                assert fast.rounds <= MOST_ROUNDS
                if sampled_rounds:
                    assert fast.visited <= 8 * SIZE


def test_no_row_misleads_the_samples() -> None:
    """However regular it is.

    The pivots of one round enclose 2 x 3 standard deviations of the place of a quantile among 256,
    at most 48 + 2 places: a fifth is left. So all rounds together look at 1.25 rows, or somewhat
    more where the goal happens to be elsewhere; 1.5 rows on average leave room for one such goal
    in four.
    """
    rng, fast = np.random.default_rng(7), Descent(SIZE)
    periods = (2, 3, 79, 256, 257, 594, 1_024, 9_999)
    rows = [-1e-3 * (np.arange(SIZE) % period) for period in periods]
    rows += [np.sort(rows[-1]), -np.sort(-rows[-1]), -1e-9 * np.arange(SIZE)]
    for logits in (each.astype(np.float32) for each in rows):
        row = BinnedRow(logits, logits.max(), 1e-4, 35)
        (first, last, held), *_ = sections(row)
        assert held.tokens == SIZE
        visits = []
        for share in rng.random(40).tolist():
            goal = Goal(int(share * held.mass) + 1, counts=False)
            fast.land(row, first, last, held, goal)
            visits.append(fast.visited)
        assert np.mean(visits) <= 1.5 * SIZE


@pytest.mark.parametrize("kind", CROWDED_KINDS)
def test_crowded_rows_are_selected_from_as_the_reference_does(kind: str) -> None:
    rng = np.random.default_rng([CROWDED_KINDS.index(kind), 9])
    selectors = CompiledSelector(), ReferenceSelector()
    for filters in FILTERS:
        batch = np.stack([crowded_row(rng, kind, SIZE) for _ in range(2)])
        rows = Rows([SamplingParameters.model_validate(filters)] * 2)
        tempered = np.array([1.0, 0.7])
        plans = [each.prepare(each.measure(batch, rows, tempered), tempered) for each in selectors]
        for u in (U_MIN, 0.2, 0.77, 1.0 - 1e-9, U_MAX):
            found, right = (
                each.pick(plan, np.full(2, u)) for each, plan in zip(selectors, plans, strict=True)
            )
            assert found.token_ids.tolist() == right.token_ids.tolist()
            assert found.rank.tolist() == right.rank.tolist()
            assert found.candidates.tolist() == right.candidates.tolist()


def test_rows_that_cannot_be_written_to_are_read() -> None:
    logits = np.zeros((SIZE, 2), dtype=np.float32)
    logits.flags.writeable = False
    for each in (logits[:, 0], np.zeros(SIZE, dtype=np.float32)):
        row, bins = BinnedRow(each, np.float32(0.0), 1.0, 35), CompiledBins(SIZE)
        found = bins.land(row, 0, 0, Held(SIZE, SIZE << 35), Goal(100, counts=True))
        assert found == (0.0, 0, 0)
        assert bins.token_at(each, found.logit, 99) == 99


@pytest.mark.parametrize("kind", KINDS)
def test_energies_are_those_of_numpy(kind: str) -> None:
    rng = np.random.default_rng([KINDS.index(kind), 6])
    plain, fast = RowEnergies(SIZE), CompiledEnergies(SIZE)
    for inverse in (1.0, 0.02, 20.0):
        logits = row_of(rng, kind)
        row = BinnedRow(logits, logits.max(), inverse, 35)
        some = np.float32(np.partition(logits, SIZE // 3)[SIZE // 3])
        for edge in (None, Edge(some, 1), Edge(row.maximum, 1)):
            mean = plain.mean(row, edge)
            assert fast.mean(row, edge) == mean
            for shift, first in ((COARSE_SHIFT, 0), (0, 0), (0, 3 << COARSE_SHIFT)):
                expected, found = (each.totals(mean, shift, first) for each in (plain, fast))
                assert found.masses.tolist() == expected.masses.tolist()
                assert found.counts.tolist() == expected.counts.tolist()


def test_the_descent_does_what_its_source_says() -> None:
    """The same functions, run by Python and by the compiler."""
    rng = np.random.default_rng(12)
    logits = rng.normal(0.0, 1e-5, 3_000).astype(np.float32)
    row = BinnedRow(logits, logits.max(), 0.9, 35)
    mass = int(row.masses(logits).sum())
    numbers = (row.maximum, row.inverse_temperature, 2.0**row.exponent)
    for sampled_rounds in (SAMPLED_ROUNDS, 0):
        fast = Descent(logits.size, sampled_rounds)
        where = (row.maximum, tuple(bin_scale(row.inverse_temperature)), fast.memory)
        ends = bin_ends.py_func(0, 0, BINS, *where)
        assert ends == bin_ends(0, 0, BINS, *where)
        for share, counts in ((0.2, True), (0.3, False), (0.9, True), (0.99, False)):
            goal = Goal(int(share * (logits.size if counts else mass)), counts)
            held = Held(logits.size, mass)
            state = State(*ends, held.tokens, float(held.mass), 0, 0.0)
            rest = (float(goal.amount), counts, sampled_rounds, fast.memory)
            found = descent.land.py_func(logits, numbers, state, *rest)
            assert found[:3] == fast.land(row, 0, 0, held, goal)
            assert found[3:] == (fast.rounds, fast.visited)
            assert pivots.share_of.py_func(goal.amount, counts, state) == pytest.approx(share, 0.01)
            assert descent._inner.py_func(goal.amount, counts, state) == goal.amount


def test_keys_order_numbers() -> None:
    memory, keys = descent_memory(1), []
    for value in (-np.inf, -2.5, -1e-45, -0.0, 0.0, 1e-45, 3.0):
        number = np.float32(value)
        key = pivots.key_of.py_func(number, memory)
        assert key == pivots._key.py_func(number.view(np.int32)) == pivots.key_of(number, memory)
        assert pivots.number_of.py_func(key, memory) == number
        keys.append(key)
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys) - 1, "both zeros are equal"
    scale = (np.float32(-99.0), np.float32(-0.1))
    lowest = descent._lowest_key.py_func(7, np.float32(1.0), scale, memory)
    assert lowest == descent._lowest_key(7, np.float32(1.0), scale, memory)
    assert lowest <= pivots.key_of(np.float32(-69.0), memory)


def test_the_parts_of_the_descent_do_what_their_source_says() -> None:
    logits = np.array([3.0, 1.0, 2.0, 2.0, 0.0], dtype=np.float32)
    memory, two = descent_memory(5), (np.float32(2.0), np.float32(2.0))
    numbers, buffers = (np.float32(3.0), 1.0, 2.0**35), memory.buffers
    low, high = (pivots.key_of(logits[place], memory) for place in (4, 0))
    state = State(low, high, 5, 40.0, 0, 0.0)
    for above_first, count in ((True, 1), (False, 2)):
        ends = descent._outer_ends.py_func(state, two, above_first, memory)
        parts = descent._part.py_func(logits, 5, ends, two, *buffers[:2], memory.marks)
        assert parts == (count, 2)
        assert buffers[1, :2].tolist() == [2.0, 2.0]
    weighed = pivots.weigh.py_func(logits, 5, numbers, memory)
    expected = pivots.weigh(logits, 5, numbers, memory)
    assert weighed == expected == whole_sum.py_func(memory.masses[2], 5)
    for alike in (True, False):
        masses = descent._weigh_parts.py_func((0, 0), (1, 2), alike, numbers, memory)
        assert masses == (0.0, 2 * pivots.weigh(buffers[1], 1, numbers, memory))
    parts = [descent._part_with_goal.py_func(goal, True, (1, 9.0), (2, 4.0)) for goal in (1, 3, 4)]
    assert parts == [0, 1, 2]
    narrowed = [
        descent._narrowed.py_func(state, part, (1, 9.0), (2, 4.0), two, memory) for part in range(3)
    ]
    assert [each[2:] for each in narrowed] == [
        (1, 9.0, 0, 0.0),
        (2, 4.0, 1, 9.0),
        (2, 27.0, 3, 13.0),
    ]
    found = descent._finish.py_func(logits, 5, numbers, 3, True, memory)
    assert found[:2] == (2.0, 1)


def test_pivots_are_those_of_their_source() -> None:
    logits = np.array([3.0, 1.0, 2.0, 2.0, 0.0], dtype=np.float32)
    memory, numbers = descent_memory(5), (np.float32(3.0), 1.0, 2.0**35)
    pivots.rank_few.py_func(logits, 5, numbers, memory)
    assert memory.sample[:5].tolist() == [3.0, 2.0, 2.0, 1.0, 0.0]
    pivots.sort_few.py_func(-logits, 5, memory.places, memory.sample)
    assert memory.sample[:5].tolist() == [0.0, -1.0, -2.0, -2.0, -3.0]
    ends = (np.float32(1.0), np.float32(3.0))
    found, seed = pivots._sample.py_func(logits, 5, ends, 3, memory.chosen)
    assert (found, seed) == pivots._sample(logits, 5, ends, 3, memory.chosen)
    assert set(memory.chosen[:found].tolist()) == {1.0, 2.0, 3.0}
    for share, place in ((0.1, 0), (0.9, 1), (1.1, 1)):
        assert pivots._place.py_func(share, False, 2, np.array([3.0, 2.0])) == place
        assert pivots._place.py_func(share, True, 2, np.array([3.0, 2.0])) == min(int(share * 2), 1)
    low, high = (pivots.key_of(logits[place], memory) for place in (4, 0))
    rest = (3, numbers, memory)
    for counts in (True, False):
        state = State(low, high, 9_999, 9_999 * 2.0**35, 0, 0.0)
        goal = 0.5 * (state.size if counts else state.total)
        arguments = (logits, 5, state, goal, counts)
        first, last, _ = found = pivots.pivots.py_func(*arguments, True, *rest)
        assert found == pivots.pivots(*arguments, True, *rest)
        assert first == last, "ties are told apart"
        first, last, _ = pivots.pivots.py_func(*arguments, False, *rest)
        assert first == last == pivots.number_of((low + high) >> 1, memory)
    for few, count in ((state._replace(size=5), 5), (state._replace(size=600), 9_999)):
        found = pivots.pivots.py_func(logits, count, few, goal, False, True, *rest)
        assert found == (0.0, 3.0, 3), "few are gathered"


def test_leading_tokens_are_those_of_numpy() -> None:
    rng = np.random.default_rng(14)
    for kind in KINDS:
        logits, plain, fast = row_of(rng, kind), RowBins(SIZE), CompiledBins(SIZE)
        for inverse in (0.01, 1.0, 30.0):
            row = BinnedRow(logits, logits.max(), inverse, 35)
            for distance, mass in ((0.0, 0), (1e-6, 0), (1.0, 0), (5.0, 9), (np.inf, 2**34)):
                found = fast.leading(row, distance, mass)
                assert found == plain.leading(row, distance, mass)
    numbers = (row.maximum, row.inverse_temperature, 2.0**35)
    memory = (fast._memory[0], fast._mass_memory)
    found = compiled_bins.near_maximum.py_func(logits[:600], numbers, 9.0, 5.0, *memory)
    assert found == compiled_bins.near_maximum(logits[:600], numbers, 9.0, 5.0, *memory)


def test_energies_do_what_their_source_says() -> None:
    rng = np.random.default_rng(13)
    logits = rng.normal(0.0, 2.0, 700).astype(np.float32)
    logits[:20] = logits[20]
    memory = CompiledEnergies(700)
    row = (logits.max(), 1.1, 2.0**35)
    edge = (logits[20], 3, True)
    where = (memory._distance, memory._mass_memory, memory._energies, memory._masses)
    sums = energies._measure.py_func(logits, edge, row, *where)
    assert sums == energies._measure(logits, edge, row, *where)
    weights = energies._weights.py_func(memory._energies[:256], memory._masses[:256])
    assert weights == energies._weights(memory._energies[:256], memory._masses[:256])
    kept = memory._energies.copy()
    ties = energies._drop.py_func(logits, (logits[20], 3), memory._energies, memory._masses)
    assert ties == 0
    assert memory._energies.tolist() == kept.tolist()
    place = (np.int32(5_000), np.int32(9), np.int32(0))
    tables = (memory._places, memory._totals.reshape(-1), memory._counts.reshape(-1))
    energies._totals.py_func(memory._energies, memory._masses, *place, *tables)
    found = memory.totals(5_000, 9, 0)
    assert memory._totals.sum(axis=0)[:, :-1].tolist() == found.masses.tolist()
    energies._places.py_func(memory._energies[:9], *place, memory._places)
    assert memory._places[:9].max() < memory._totals.size
