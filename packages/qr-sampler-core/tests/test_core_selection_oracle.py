# SPDX-License-Identifier: Apache-2.0
"""Both selectors against an oracle in integers and rational numbers.

Masses, order, truncation and the quantile are computed here on their own: with additions and
multiplications of Python floats where those define a mass, and otherwise with ``sorted``,
``fractions.Fraction`` and loops.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qr_sampler import FastSelector, ReferenceSelector, Rows, SamplingParameters, Selector
from qr_sampler.amplification import U_MAX, U_MIN
from qr_sampler.selection.fast import passes
from qr_sampler.selection.fast.bins import BinnedRow, RowBins
from qr_sampler.selection.fast.energies import RowEnergies
from qr_sampler.selection.fast.histogram import Histogram
from qr_sampler.selection.fast.passes import MeasuredMoments, RowPasses, mass_bounds, weight_bounds
from qr_sampler.selection.fast.row import FastRow
from qr_sampler.testing.selection_cases import (
    LOGIT_KINDS,
    random_logits,
    random_parameters,
    random_temperatures,
)

UNIT = 2**35
INFINITY = float("inf")
AnySelector = Selector[Any, Any]

both = pytest.mark.parametrize(
    "selector", [ReferenceSelector(), FastSelector()], ids=["ref", "fast"]
)


def float32(value: float) -> float:
    """Rounds to float32, ties to even; beyond its range to infinity."""
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:
        return INFINITY if value > 0 else -INFINITY
    return float(rounded)


def exponential(y: float) -> float:
    """exp(y) for y of at least -700, by Cody and Waite's reduction and a Taylor polynomial."""
    k = round(y * 1.4426950408889634)
    r = (y - k * 0.6931471803691238) - k * 1.9082149292705877e-10
    result = 1.0 / math.factorial(11)
    for degree in range(10, -1, -1):
        result = result * r + 1.0 / math.factorial(degree)
    return math.ldexp(result, k)


def deviation_of(row: list[float]) -> float:
    """The population standard deviation of the finite logits, from exact sums."""
    scaled = [int(Fraction(value) * 2**149) for value in row if math.isfinite(value)]
    count, total = len(scaled), sum(scaled)
    variance = count * sum(value * value for value in scaled) - total * total
    with localcontext() as context:
        context.prec = 60
        return float32(float(Decimal(variance).sqrt() / count / 2**149))


@dataclass(frozen=True)
class Selection:
    token: int
    rank: int
    candidates: int
    probability: float


class Oracle:
    """One row, prepared for any number of quantiles."""

    def __init__(
        self, row: list[float], temperature: float, parameters: SamplingParameters
    ) -> None:
        self.order = sorted(range(len(row)), key=lambda token: (-row[token], token))
        largest = row[self.order[0]]
        self.distances = [float32(row[token] - largest) for token in self.order]
        self.deviation = deviation_of(row) if parameters.top_n_sigma else math.nan
        tempered = self._masses(1.0 / temperature)
        filtered = self._masses(1.0) if parameters.truncate_first else tempered
        stop = self._kept(filtered, parameters)
        start, stop = self._typical(tempered[:stop], 1.0 / temperature, parameters.typical_p)
        self.start, self.kept = start, tempered[start:stop]
        self.total = sum(self.kept)

    def _masses(self, inverse: float) -> list[int]:
        exponents = [max(distance * inverse, -700.0) for distance in self.distances]
        return [round(exponential(y) * UNIT) for y in exponents]

    def _kept(self, masses: list[int], parameters: SamplingParameters) -> int:
        kept = len(masses)
        if parameters.top_n_sigma > 0.0:
            farthest = -(parameters.top_n_sigma * self.deviation)
            kept = sum(distance >= farthest for distance in self.distances)
        if parameters.top_k > 0:
            kept = min(kept, parameters.top_k)
        if parameters.min_p > 0.0:
            threshold = Fraction(parameters.min_p) * UNIT
            kept = min(kept, sum(mass >= threshold for mass in masses))
        if parameters.top_p < 1.0:
            kept = self._fewest(masses[:kept], parameters.top_p)
        return kept

    def _typical(self, masses: list[int], inverse: float, typical_p: float) -> tuple[int, int]:
        """Compares integer energies with their integer mean; nothing here is sorted by rank."""
        if typical_p == 1.0:
            return 0, len(masses)
        exponents = [max(d * inverse, -26.0) for d in self.distances[: len(masses)]]
        energies = [round(-y * 2**14) for y in exponents]
        weights = [mass // 2**10 for mass in masses]
        pairs = zip(weights, energies, strict=True)
        mean = sum(weight * energy for weight, energy in pairs) // sum(weights)

        def distance_from_mean(rank: int) -> tuple[int, bool, int]:
            energy = energies[rank]
            below = energy < mean
            return abs(energy - mean), not below, -rank if below else rank

        nearest = sorted(range(len(masses)), key=distance_from_mean)
        count = self._fewest([masses[rank] for rank in nearest], typical_p)
        kept = sorted(nearest[:count])
        assert kept == list(range(kept[0], kept[-1] + 1)), "typical-p left a gap"
        return kept[0], kept[-1] + 1

    @staticmethod
    def _fewest(masses: list[int], share: float) -> int:
        """Returns how many of the first *masses* are needed to reach *share* of their sum."""
        goal, reached, count = Fraction(share) * sum(masses), 0, 0
        while reached < goal:
            reached += masses[count]
            count += 1
        return count

    def pick(self, u: float) -> Selection:
        numerator, denominator = u.as_integer_ratio()
        index, reached = 0, self.kept[0]
        while reached * denominator < numerator * self.total:
            index += 1
            reached += self.kept[index]
        return Selection(
            token=self.order[self.start + index],
            rank=self.start + index,
            candidates=len(self.kept),
            probability=float(Fraction(self.kept[index], self.total)),
        )

    def boundaries(self) -> Iterator[float]:
        """Yields each step of the distribution function with its neighbours in float64."""
        reached = 0
        for mass in self.kept:
            reached += mass
            edge = reached / self.total
            yield from (np.nextafter(edge, 0.0), edge, np.nextafter(edge, 1.0))


def inside(u: float) -> float:
    return float(min(max(u, U_MIN), U_MAX))


def select(
    selector: AnySelector,
    logits: NDArray[np.float32],
    temperature: NDArray[np.float64],
    parameters: list[SamplingParameters],
    quantiles: NDArray[np.float64],
) -> list[list[Selection]]:
    """Returns one list of selections per column of *quantiles*, whose shape is ``(B, K)``."""
    measurement = selector.measure(logits, Rows(parameters), temperature)
    plan = selector.prepare(measurement, temperature)
    results = [selector.pick(plan, column) for column in quantiles.T]
    return [
        [
            Selection(*values)
            for values in zip(
                result.token_ids.tolist(),
                result.rank.tolist(),
                result.candidates.tolist(),
                result.probability.tolist(),
                strict=True,
            )
        ]
        for result in results
    ]


def assert_same(found: Selection, expected: Selection, case: object, tolerance: float) -> None:
    assert (found.token, found.rank, found.candidates) == (
        expected.token,
        expected.rank,
        expected.candidates,
    ), case
    assert expected.probability > 0.0, "a token of zero mass was selected"
    assert abs(found.probability - expected.probability) <= tolerance * expected.probability, case


def tolerance_of(selector: AnySelector) -> float:
    """The fast selector may refer a probability to a rounded total."""
    return 1e-5 if isinstance(selector, FastSelector) else 0.0


def interesting_quantiles(oracle: Oracle, rng: np.random.Generator, count: int) -> list[float]:
    edges = list(oracle.boundaries())
    chosen = [edges[index] for index in rng.integers(len(edges), size=count // 2)]
    uniform = rng.random(count - len(chosen) - 2).tolist()
    return [inside(u) for u in [U_MIN, U_MAX, *chosen, *uniform]]


def assert_matches_oracle(
    selectors: list[AnySelector],
    logits: NDArray[np.float32],
    temperature: NDArray[np.float64],
    parameters: list[SamplingParameters],
    rng: np.random.Generator,
    quantiles_per_row: int,
) -> int:
    """Compares the whole batch and returns how many selections were compared."""
    rows = zip(logits.tolist(), temperature.tolist(), parameters, strict=True)
    oracles = [Oracle(*row) for row in rows]
    quantiles = np.array([interesting_quantiles(o, rng, quantiles_per_row) for o in oracles])
    expected = [
        [oracle.pick(u) for u in us] for oracle, us in zip(oracles, quantiles.tolist(), strict=True)
    ]
    for selector in selectors:
        tolerance = tolerance_of(selector)
        found = select(selector, logits, temperature, parameters, quantiles)
        for column, selections in enumerate(found):
            for line, selection in enumerate(selections):
                case = (selector, quantiles[line, column], temperature[line], parameters[line])
                assert_same(selection, expected[line][column], case, tolerance)
    return int(quantiles.size)


@pytest.mark.parametrize("kind", LOGIT_KINDS)
@pytest.mark.parametrize("vocab_sizes", [(1, 2, 3), (7, 16, 32), (100, 128), (257, 400)], ids=str)
def test_equals_the_oracle(kind: str, vocab_sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng([LOGIT_KINDS.index(kind), *vocab_sizes])
    compared = 0
    for vocab_size in vocab_sizes:
        rows = 48 if vocab_size < 100 else 12
        logits = np.stack([random_logits(rng, kind, vocab_size) for _ in range(rows)])
        parameters = [random_parameters(rng, vocab_size) for _ in range(rows)]
        compared += assert_matches_oracle(
            [ReferenceSelector(), FastSelector()],
            logits,
            random_temperatures(rng, rows),
            parameters,
            rng,
            quantiles_per_row=12,
        )
    assert compared >= 12 * 24


class Stages:
    """Notes which stage of the fast selector decided each token."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count: Counter[str] = Counter()
        self._stage = "head"
        self._note(monkeypatch, "histogram_ranking", "histogram")

    def _note(self, monkeypatch: pytest.MonkeyPatch, name: str, stage: str) -> None:
        original: Callable[..., Any] = getattr(FastRow, name)

        def noted(*arguments: Any) -> Any:
            self._stage = stage
            return original(*arguments)

        monkeypatch.setattr(FastRow, name, noted)

    def selector(self) -> AnySelector:
        stages = self

        class Watched(FastSelector):
            def pick(self, plan: Any, u: NDArray[np.float64]) -> Any:
                assert len(u) == 1
                stages._stage = "head"
                result = super().pick(plan, u)
                stages.count[stages._stage] += 1
                return result

        return Watched()


LARGE = [
    *((kind, 5_000) for kind in LOGIT_KINDS),
    *((kind, 20_000) for kind in ("bfloat16", "language model", "masked", "normal", "ties")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "vocab_size"), LARGE)
def test_equals_the_oracle_on_a_large_vocabulary(
    kind: str, vocab_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond 1,024 tokens the fast selector no longer sorts the whole row."""
    rng = np.random.default_rng([vocab_size, LOGIT_KINDS.index(kind)])
    stages = Stages(monkeypatch)
    watched = stages.selector()
    plain = SamplingParameters()
    for parameters in (plain, random_parameters(rng, vocab_size), random_parameters(rng, 100)):
        assert_matches_oracle(
            [ReferenceSelector(), watched],
            random_logits(rng, kind, vocab_size)[np.newaxis],
            random_temperatures(rng, 1) if parameters is not plain else np.ones(1),
            [parameters],
            rng,
            quantiles_per_row=12,
        )
    assert stages.count.total() == 36


def test_every_stage_of_the_fast_selector_decides_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no comparison above is about one stage only."""
    stages = Stages(monkeypatch)
    watched = stages.selector()
    rng = np.random.default_rng(29)
    for _ in range(6):
        spread = rng.normal(0.0, 1.0, 5_000).astype(np.float32)
        peaked = random_logits(rng, "language model", 5_000)
        for row, parameters in (
            (peaked, SamplingParameters()),
            (spread, SamplingParameters()),
            (spread, SamplingParameters(typical_p=0.99)),
        ):
            assert_matches_oracle(
                [watched], row[np.newaxis], np.ones(1), [parameters], rng, quantiles_per_row=24
            )
    names = ("head", "histogram")
    assert min(stages.count[name] for name in names) >= 20, stages.count


@pytest.mark.parametrize("kind", ["language model", "normal", "uniform"])
def test_selectors_agree_beyond_the_largest_vocabulary_of_the_usual_unit(kind: str) -> None:
    """From 2**18 + 1 tokens on, masses are in units of 2**34 to 1."""
    rng = np.random.default_rng(LOGIT_KINDS.index(kind))
    logits = random_logits(rng, kind, 2**18 + 1_000)[np.newaxis]
    parameters = [SamplingParameters(top_p=0.999, truncate_first=True)]
    quantiles = np.array([[U_MIN, *rng.random(8), U_MAX]])
    case = (logits, np.array([1.3]), parameters, quantiles)
    reference, found = select(ReferenceSelector(), *case), select(FastSelector(), *case)
    for (expected,), (selection,) in zip(reference, found, strict=True):
        assert_same(selection, expected, case, 1e-5)


@both
def test_exact_boundaries_belong_to_the_token_below(selector: AnySelector) -> None:
    """With 2**k equal masses, r / 2**k is a float64 and exactly the r-th step."""
    edges = np.arange(1, 64) / 64.0
    for vocab_size in (64, 2**14):
        logits = np.zeros((1, vocab_size), dtype=np.float32)
        each = vocab_size // 64
        for quantiles, offset in ((edges, -1), (np.nextafter(edges, 1.0), 0)):
            picked = select(
                selector, logits, np.ones(1), [SamplingParameters()], quantiles[np.newaxis]
            )
            found = [row[0].token for row in picked]
            assert found == [edge * each + offset for edge in range(1, 64)]


@both
def test_neighbours_of_zero_and_one_are_the_ends(selector: AnySelector) -> None:
    logits = np.array([[0.0, 5.0, -np.inf, 5.0, -80.0]], dtype=np.float32)
    quantiles = np.array([[U_MIN, U_MAX]])
    first, last = select(selector, logits, np.ones(1), [SamplingParameters()], quantiles)
    assert (first[0].token, first[0].rank) == (1, 0)
    assert (last[0].token, last[0].rank, last[0].candidates) == (0, 2, 5)


@both
def test_ties_are_ordered_by_token_id_and_zeros_have_no_sign(selector: AnySelector) -> None:
    logits = np.array([[-0.0, 0.0, -0.0, 0.0]], dtype=np.float32)
    quantiles = np.array([[0.1, 0.3, 0.6, 0.9]])
    picked = select(selector, logits, np.ones(1), [SamplingParameters()], quantiles)
    assert [row[0].token for row in picked] == [0, 1, 2, 3]


@both
def test_switched_off_filters_keep_everything_even_before_temperature(
    selector: AnySelector,
) -> None:
    """A token that rounds to nothing at temperature 1 can matter at temperature 10."""
    logits = np.array([[0.0, -30.0]], dtype=np.float32)
    for truncate_first in (False, True):
        parameters = [SamplingParameters(truncate_first=truncate_first)]
        (picked,) = select(selector, logits, np.array([10.0]), parameters, np.array([[U_MAX]]))
        assert picked[0].token == 1
        assert picked[0].candidates == 2


@both
def test_rows_without_a_finite_maximum_are_left_out(selector: AnySelector) -> None:
    bad = [[np.nan, 0.0], [np.inf, 0.0], [-np.inf, -np.inf], [-np.inf, np.nan]]
    logits = np.array([*bad, [0.0, 1.0]], dtype=np.float32)
    rows = Rows([SamplingParameters(top_k=1 + line) for line in range(5)])
    for temperature, settle in ((1.0, 0), (np.nan, 1), (np.nan, 2)):
        known, wanted = np.full(5, temperature), np.full(5, settle)
        measurement = selector.measure(logits, rows, known, wanted)
        assert measurement.lines.tolist() == [4]
        assert measurement.rows.parameters == rows.parameters[4:]
        assert measurement.entropy_nats.shape == measurement.varentropy_nats2.shape == (1,)
        nothing = selector.measure(logits[:4], rows.take(np.arange(4)), known[:4], wanted[:4])
        plan = selector.prepare(nothing, np.empty(0))
        assert selector.pick(plan, np.empty(0)).token_ids.shape == (0,)


def test_one_fast_selector_serves_vocabularies_of_any_size_in_any_order() -> None:
    """Its buffers are kept between calls; what they held must not matter."""
    rng = np.random.default_rng(8)
    kept = FastSelector()
    sizes = rng.permutation([1, 40, 1_024, 1_025, 6_000, 20_001] * 4)
    for vocab_size in sizes.tolist():
        logits = np.stack(
            [random_logits(rng, str(kind), vocab_size) for kind in rng.choice(LOGIT_KINDS, 3)]
        )
        parameters = [random_parameters(rng, vocab_size) for _ in range(3)]
        case = (logits, random_temperatures(rng, 3), parameters, rng.random((3, 6)))
        assert select(kept, *case) == select(FastSelector(), *case)


def test_a_plan_survives_what_is_measured_after_it() -> None:
    """Buffers belong to a size of the vocabulary, and another one is measured in between."""
    rng = np.random.default_rng(12)
    selector, rows, one = FastSelector(), Rows([SamplingParameters()]), np.ones(1)
    spread, small = rng.normal(0.0, 1.0, (2, 1, 6_000)).astype(np.float32)
    plan = selector.prepare(selector.measure(spread, rows, one), one)
    for other in (small, small[:, :50]):
        selector.pick(selector.prepare(selector.measure(other, rows, one), one), np.array([0.99]))
        for u in (0.5, 0.999):
            found = selector.pick(plan, np.array([u])).token_ids
            (expected,) = select(
                ReferenceSelector(), spread, one, [SamplingParameters()], np.array([[u]])
            )
            assert found == [expected[0].token]


@both
def test_rows_and_parameters_have_to_match(selector: AnySelector) -> None:
    logits = np.zeros((3, 4), dtype=np.float32)
    rows = Rows([SamplingParameters()] * 2)
    with pytest.raises((IndexError, ValueError)):
        selector.measure(logits, rows, np.ones(2))


finite_logits = st.one_of(
    st.floats(-40.0, 40.0, width=32),
    st.sampled_from([0.0, -0.0, 1.0, -24.953298568725586, -25.0]),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
)
logit_rows = st.lists(st.one_of(finite_logits, st.just(-INFINITY)), min_size=1, max_size=24).filter(
    lambda row: max(row) > -INFINITY
)
temperatures = st.one_of(st.sampled_from([1e-3, 0.5, 1.0, 1e3]), st.floats(1e-3, 1e3))
uniform_numbers = st.one_of(st.sampled_from([U_MIN, U_MAX, 0.5]), st.floats(U_MIN, U_MAX))
shares = st.one_of(st.just(1.0), st.floats(0.0, 1.0, exclude_min=True))
filters = st.builds(
    SamplingParameters,
    top_n_sigma=st.one_of(st.just(0.0), st.floats(0.0, 5.0)),
    top_k=st.one_of(st.just(0), st.integers(-1, 30)),
    min_p=st.one_of(st.just(0.0), st.floats(0.0, 1.0)),
    top_p=shares,
    typical_p=shares,
    truncate_first=st.booleans(),
)


@settings(max_examples=300)
@given(logit_rows, temperatures, filters, st.lists(uniform_numbers, min_size=1, max_size=4))
@example([0.0, -30.0], 10.0, SamplingParameters(truncate_first=True), [U_MAX])
@example([3e38, -3e38], 1e-3, SamplingParameters(top_n_sigma=0.5), [U_MAX])
@example([0.0, -3.1817015e-03, -3.1817018e-03], 1.0, SamplingParameters(min_p=0.9968), [0.5, U_MAX])
@example([0.0, 0.0, -1.0, -1.0, -2.0], 1.0, SamplingParameters(typical_p=0.3), [U_MIN, U_MAX])
def test_any_row_equals_the_oracle(
    row: list[float], temperature: float, parameters: SamplingParameters, us: list[float]
) -> None:
    logits = np.array([row], dtype=np.float32)
    oracle = Oracle(logits[0].tolist(), temperature, parameters)
    us += [inside(u) for u in oracle.boundaries()][:36]
    expected = [oracle.pick(u) for u in us]
    for selector in (ReferenceSelector(), FastSelector()):
        picked = select(selector, logits, np.array([temperature]), [parameters], np.array([us]))
        for (selection,), wanted in zip(picked, expected, strict=True):
            assert_same(selection, wanted, selector, tolerance_of(selector))


@both
@settings(max_examples=100)
@given(logit_rows, temperatures, filters, st.lists(uniform_numbers, min_size=2, max_size=30))
def test_rank_grows_with_u(
    selector: AnySelector,
    row: list[float],
    temperature: float,
    parameters: SamplingParameters,
    us: list[float],
) -> None:
    picked = select(
        selector,
        np.array([row], dtype=np.float32),
        np.array([temperature]),
        [parameters],
        np.array([sorted(us)]),
    )
    ranks = [selection.rank for (selection,) in picked]
    assert ranks == sorted(ranks)


@both
@settings(max_examples=100)
@given(logit_rows, temperatures, filters, uniform_numbers, st.randoms(use_true_random=False))
def test_permuting_the_vocabulary_permutes_the_tokens(
    selector: AnySelector,
    row: list[float],
    temperature: float,
    parameters: SamplingParameters,
    u: float,
    random: Any,
) -> None:
    logits = np.array([row], dtype=np.float32)
    order = list(range(len(row)))
    random.shuffle(order)
    arguments = (np.array([temperature]), [parameters], np.array([[u]]))
    ((plain,),) = select(selector, logits, *arguments)
    ((moved,),) = select(selector, logits[:, order], *arguments)
    assert (moved.rank, moved.probability) == (plain.rank, plain.probability)
    assert moved.candidates == plain.candidates
    assert logits[0, order[moved.token]] == logits[0, plain.token]
    if len(set(logits[0].tolist())) == len(row):
        assert order[moved.token] == plain.token


exact_rows = st.lists(st.integers(-(2**12), 2**12), min_size=1, max_size=24)


@both
@settings(max_examples=100)
@given(exact_rows, st.integers(-64, 64), st.integers(-6, 6), filters, uniform_numbers)
def test_shift_and_scale_change_nothing_where_float32_is_exact(
    selector: AnySelector,
    row: list[int],
    shift: int,
    power: int,
    parameters: SamplingParameters,
    u: float,
) -> None:
    parameters = parameters.model_copy(update={"truncate_first": False, "top_n_sigma": 0.0})
    logits = np.array([row], dtype=np.float32) / np.float32(256.0)
    us = np.array([[u]])
    plain = select(selector, logits, np.ones(1), [parameters], us)
    moved = (logits + np.float32(shift)) * np.float32(2.0**power)
    assert select(selector, moved, np.array([2.0**power]), [parameters], us) == plain


@both
def test_evenly_spaced_u_select_each_token_in_proportion_to_its_mass(selector: AnySelector) -> None:
    """Each token owns an interval of u, so of N midpoints it gets N p, to within one."""
    rng = np.random.default_rng(11)
    logits = rng.normal(0.0, 2.0, (1, 50)).astype(np.float32)
    oracle = Oracle(logits[0].tolist(), 0.9, SamplingParameters())
    count = 5_000
    quantiles = (np.arange(count) + 0.5) / count
    rows, temperature = Rows([SamplingParameters()] * count), np.full(count, 0.9)
    measurement = selector.measure(np.repeat(logits, count, axis=0), rows, temperature)
    picked = selector.pick(selector.prepare(measurement, temperature), quantiles)
    tokens = np.bincount(picked.token_ids, minlength=50)
    for rank, token in enumerate(oracle.order):
        assert abs(tokens[token] - count * oracle.kept[rank] / oracle.total) <= 1.0


def exact_totals(logits: NDArray[np.float32], temperature: float) -> NDArray[np.int64]:
    """Returns the running totals of the masses in rank order; whole numbers, added as such."""
    distance = np.sort(logits - logits.max())[::-1].astype(np.float64)
    exponents = np.maximum(distance * (1.0 / temperature), -700.0)
    k = np.rint(exponents * 1.4426950408889634)
    r = (exponents - k * 0.6931471803691238) - k * 1.9082149292705877e-10
    result = np.full_like(r, 1.0 / math.factorial(11))
    for degree in range(10, -1, -1):
        result = result * r + 1.0 / math.factorial(degree)
    return np.cumsum(np.rint(np.ldexp(result, k.astype(np.int64) + 35)).astype(np.int64))


def bounds_rows() -> Iterator[tuple[NDArray[np.float32], float]]:
    """Yields rows and temperatures for the bounds of the float32 passes."""
    rng = np.random.default_rng(41)
    kinds = [kind for kind in LOGIT_KINDS if kind != "huge"]
    for vocab_size in (1, 100, 5_000, 40_000):
        for kind in kinds:
            for temperature in (1.0, float(10.0 ** rng.uniform(-1.0, 1.0))):
                yield random_logits(rng, kind, vocab_size), temperature


def totals_outside_their_bounds() -> int:
    outside = 0
    for logits, temperature in bounds_rows():
        buffers = RowPasses(logits.size)
        inverse, total = 1.0 / temperature, int(exact_totals(logits, temperature)[-1])
        weights = [buffers.weight(logits, logits.max(), inverse)]
        if inverse == 1.0:
            weights.append(buffers.moments(logits, logits.max()).weight)
        for weight in weights:
            lowest, highest = mass_bounds(weight_bounds(weight), logits.size, 35)
            outside += not lowest <= total <= highest
    return outside


def test_the_total_lies_within_its_bounds() -> None:
    assert totals_outside_their_bounds() == 0


def test_without_an_allowance_for_float32_the_total_would_leave_its_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("EXP_ERROR", "SUM_ERROR", "PRODUCT_ERROR"):
        monkeypatch.setattr(passes, name, 0.0)
    assert totals_outside_their_bounds() >= 20


@pytest.mark.parametrize("name", ["LOWEST", "NOTHING"])
def test_the_padding_of_a_row_weighs_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert np.exp(getattr(passes, name)) * passes.TERMS * 2.0**35 < 1e-20
    monkeypatch.setattr(passes, name, np.float32(-1.0))
    assert totals_outside_their_bounds() >= 10


def test_the_histogram_knows_the_mass_of_every_prefix() -> None:
    for logits, temperature in bounds_rows():
        totals = exact_totals(logits, temperature)
        row = BinnedRow(logits, logits.max(), 1.0 / temperature, 35)
        ranking = Histogram(row, RowBins(logits.size), RowEnergies(logits.size))
        for rank in np.unique(np.geomspace(1, logits.size, 12).astype(int)).tolist():
            mass = int(totals[rank - 1])
            assert ranking.after_rank(rank) == (rank, mass, mass)


class BiasedPasses(RowPasses):
    """Passes with an exponential that is off by a factor for all tokens but the largest."""

    def __init__(self, vocab_size: int, *, error: float) -> None:
        super().__init__(vocab_size)
        self._error = error

    def moments(self, logits: NDArray[np.float32], maximum: np.float32) -> MeasuredMoments:
        measured = super().moments(logits, maximum)
        return measured._replace(weight=self._biased(measured.weight, logits, maximum))

    def weight(
        self, logits: NDArray[np.float32], maximum: np.float32, inverse_temperature: float
    ) -> float:
        weight = super().weight(logits, maximum, inverse_temperature)
        return self._biased(weight, logits, maximum)

    def _biased(self, weight: float, logits: NDArray[np.float32], maximum: np.float32) -> float:
        largest = np.count_nonzero(logits == maximum)
        return float(largest + (weight - largest) * (1.0 + self._error))


def wrong_tokens_at_the_edges(error: float) -> int:
    """Compares both selectors where u meets the step between two leading tokens."""
    rng, wrong = np.random.default_rng(51), 0
    for _ in range(20):
        logits = rng.normal(0.0, 1.0, 5_000).astype(np.float32)
        logits[:40] += np.float32(7.0)
        totals = exact_totals(logits, 1.0)
        edges = totals[:40] / totals[-1]
        quantiles = np.concatenate([edges, *(edges + nearby for nearby in (-1e-8, 1e-8))])
        case = (logits[np.newaxis], np.ones(1), [SamplingParameters()], quantiles[np.newaxis])
        fast_selector = FastSelector(partial(BiasedPasses, error=error))
        reference, found = select(ReferenceSelector(), *case), select(fast_selector, *case)
        for (expected,), (selection,) in zip(reference, found, strict=True):
            wrong += selection.token != expected.token
    return wrong


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_any_exponential_within_the_bound_gives_the_same_tokens(sign: float) -> None:
    """And one that is far beyond it does not."""
    assert wrong_tokens_at_the_edges(sign * 0.8 * passes.EXP_ERROR) == 0
    assert wrong_tokens_at_the_edges(sign * 32.0 * passes.EXP_ERROR) >= 20


def test_the_bounds_are_what_keeps_the_token_right(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EXP_ERROR", "SUM_ERROR", "PRODUCT_ERROR"):
        monkeypatch.setattr(passes, name, 0.0)
    assert wrong_tokens_at_the_edges(0.8 * 2.0**-21) >= 20


def test_the_exponential_of_numpy_keeps_its_promise() -> None:
    """Every 64th float32 number from -87 to 0, and its neighbours at the ends of the range."""
    last = int(np.array([87.0], dtype=np.float32).view(np.uint32)[0])
    worst = 0.0
    for start in range(0, last + 1, 2**26):
        patterns = np.arange(start, min(start + 2**26, last + 1), 64, dtype=np.uint32)
        exponents = -patterns.view(np.float32)
        exact = np.exp(exponents.astype(np.float64))
        error = np.abs(np.exp(exponents).astype(np.float64) - exact) / exact
        worst = max(worst, float(error.max()))
    assert 2.0**-25 < worst < passes.EXP_ERROR


def test_a_float32_exponent_keeps_its_promise() -> None:
    rng = np.random.default_rng(61)
    distance = -rng.uniform(0.0, 30.0, 10**6).astype(np.float32)
    inverse = 10.0 ** rng.uniform(-3.0, 3.0, 10**6)
    found = (distance * inverse.astype(np.float32)).astype(np.float64)
    exact = distance.astype(np.float64) * inverse
    worst = float(np.max(np.abs(found - exact) / np.abs(exact)))
    assert 0.5 * passes.PRODUCT_ERROR < worst <= passes.PRODUCT_ERROR * (1.0 + 2.0**-24)
