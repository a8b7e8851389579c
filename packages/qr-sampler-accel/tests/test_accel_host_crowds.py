# SPDX-License-Identifier: Apache-2.0
"""Crowded rows in compiled loops: what NumPy finds in them, in a bounded number of rounds."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from qr_sampler import ReferenceSelector, Rows, SamplingParameters
from qr_sampler.amplification import U_MAX, U_MIN
from qr_sampler.selection.fast.bins import BINS, BinnedRow, RowBins
from qr_sampler.selection.fast.descent import Goal, Held
from qr_sampler.selection.fast.energies import COARSE_SHIFT, Edge, RowEnergies
from qr_sampler.testing.crowded_rows import CROWDED_KINDS, crowded_row
from qr_sampler.testing.selection_cases import LOGIT_KINDS, random_logits

pytest.importorskip("numba", reason="needs the extra numba")

from qr_sampler_accel.host import descent, energies
from qr_sampler_accel.host.bins import CompiledBins
from qr_sampler_accel.host.descent import MOST_ROUNDS, DescentMemory, land
from qr_sampler_accel.host.energies import CompiledEnergies
from qr_sampler_accel.host.masses import LANES, whole_sum
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


@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_descent_lands_where_that_in_numpy_does(kind: str, sampled: bool) -> None:
    """Within a bounded number of rounds, also if samples never help."""
    rng = np.random.default_rng([KINDS.index(kind), 5])
    memory = DescentMemory(SIZE)
    if not sampled:
        memory.arrays = (memory.arrays[0], np.empty(0, np.float32), *memory.arrays[2:])
    for inverse in (1.0, 0.02, 20.0):
        logits = row_of(rng, kind)
        row, bins = BinnedRow(logits, logits.max(), inverse, 35), RowBins(SIZE)
        for first, last, held in sections(row):
            for goal in goals(held):
                found = land(row, first, last, held, goal, memory)
                assert found == bins.land(row, first, last, held, goal)
                assert memory.rounds <= MOST_ROUNDS
                if sampled:
                    assert memory.visited <= 8 * SIZE


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
    memory = DescentMemory(logits.size)
    _, sample, cell, cell_bits, distance = memory.arrays
    numbers = (row.maximum, row.inverse_temperature, 2.0**row.exponent)
    for sampled in (sample, sample[:0]):
        memory.arrays = (memory.arrays[0], sampled, cell, cell_bits, distance)
        for share, counts in ((0.2, True), (0.3, False), (0.9, True), (0.99, False)):
            goal = Goal(int(share * (logits.size if counts else mass)), counts)
            held = Held(logits.size, mass)
            ends = descent._ends(row, 0, 0, memory)
            state = (ends, held.tokens, float(held.mass), 0, 0.0)
            goal_and_memory = (float(goal.amount), counts, memory.arrays, memory.mass_memory)
            found = descent._land.py_func(logits, numbers, state, *goal_and_memory)
            assert found[:3] == land(row, 0, 0, held, goal, memory)
            assert found[3:] == (memory.rounds, memory.visited)
            assert descent._share.py_func(goal.amount, counts, state) == pytest.approx(share, 0.01)
            assert descent._inner.py_func(goal.amount, counts, state) == goal.amount
    for value in (-np.inf, -2.5, -0.0, 1e-45, 3.0):
        key = descent._key.py_func(np.float32(value), cell, cell_bits)
        assert descent._number.py_func(key, cell, cell_bits) == np.float32(value)
    lowest = descent._lowest_key.py_func(
        7, row.maximum, (np.float32(-99.0), np.float32(-0.1)), cell, cell_bits
    )
    assert lowest <= descent._key(np.float32(row.maximum - 70.0), cell, cell_bits)


def test_the_parts_of_the_descent_do_what_their_source_says() -> None:
    logits = np.array([3.0, 1.0, 2.0, 2.0, 0.0], dtype=np.float32)
    buffers = np.zeros((3, 5), dtype=np.float32)
    memory = DescentMemory(5)
    numbers = (np.float32(3.0), 1.0, 2.0**35)
    _, sample, cell, cell_bits, distance = memory.arrays
    two = (np.float32(2.0), np.float32(2.0))
    assert descent._part.py_func(logits, 5, two, *buffers) == (1, 2, 2)
    ends = (np.float32(1.0), np.float32(3.0))
    assert descent._part_row.py_func(logits, ends, two, True, *buffers[:2]) == (1, 2)
    assert descent._part_row.py_func(logits, ends, two, False, *buffers[:2]) == (1, 2)
    expected = fixed = descent._weigh(logits, 5, numbers, distance, memory.mass_memory)
    weighed = descent._weigh.py_func(logits, 5, numbers, distance, memory.mass_memory)
    assert weighed == fixed == whole_sum.py_func(memory.mass_memory[2], 5) == expected
    buffers[1, :2] = 2.0
    for equal in (True, False):
        parts = (buffers, (0, 0), (1, 2), equal)
        masses = descent._weigh_parts.py_func(*parts, numbers, distance, memory.mass_memory)
        assert masses == (
            0.0,
            2 * descent._weigh(buffers[1], 1, numbers, distance, memory.mass_memory),
        )
    assert descent._sample.py_func(logits, 5, 5, 0, *ends, sample) == 4
    assert sample[:4].tolist() == [3.0, 2.0, 2.0, 1.0]
    keys = descent._key(np.float32(0.0), cell, cell_bits), descent._key(*ends[1:], cell, cell_bits)
    for turn, counts in ((0, True), (0, False), (99, True)):
        arguments = (turn, keys, 0.5, counts, numbers, memory.arrays, memory.mass_memory)
        low, high = descent._pivots.py_func(logits, 5, 5, *arguments)
        assert (low, high) == ((0.0, 3.0) if turn < 99 else (low, low))
        if turn < 99:
            median = descent._pivots.py_func(logits, 5, LANES + 1, *arguments)
            assert median[0] == median[1], "so few logits say nothing of so many"
    for share, place in ((0.1, 0), (0.9, 1), (1.1, 2)):
        arguments = (sample, 2, numbers, distance, memory.mass_memory)
        sample[:2] = (3.0, 2.0)
        assert descent._place.py_func(share, False, *arguments) == place
        assert descent._place.py_func(share, True, *arguments) == int(share * 2)
    parts = [descent._part_with_goal.py_func(goal, True, (1, 9.0), (2, 4.0)) for goal in (1, 3, 4)]
    assert parts == [0, 1, 2]
    state = (keys, 5, 40.0, 0, 0.0)
    narrowed = [
        descent._narrowed.py_func(state, part, (1, 9.0), (2, 4.0), two, cell, cell_bits)
        for part in range(3)
    ]
    assert [each[1:] for each in narrowed] == [
        (1, 9.0, 0, 0.0),
        (2, 4.0, 1, 9.0),
        (2, 27.0, 3, 13.0),
    ]
    values = logits.copy()
    found = descent._finish.py_func(values, 5, numbers, 3, True, distance, memory.mass_memory)
    assert found[:2] == (2.0, 1)


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
