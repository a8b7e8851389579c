# SPDX-License-Identifier: Apache-2.0
"""The selector against an oracle in integers and rational numbers.

Only the value of ``exp`` in float32 is taken from NumPy, because it is part of the definition of
the weights. Rounding to the grid, order, truncation and the quantile are computed here on their
own, with ``struct``, ``sorted``, ``fractions.Fraction`` and loops.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qr_sampler import Rows, SamplingParameters, TokenSelector
from qr_sampler.amplification import U_MAX, U_MIN

UNIT = 2**35
INFINITY = float("inf")


def float32(value: float) -> float:
    """Rounds to float32, ties to even; beyond its range to infinity."""
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:
        return INFINITY if value > 0 else -INFINITY
    return float(rounded)


def on_grid(weight: float) -> int:
    """Rounds a float32 weight as adding 2**-12 in float32 does; in units of 2**-35."""
    numerator, denominator = weight.as_integer_ratio()
    # weight + 2**-12 in units of 1 / (denominator * 2**12), then rounded to 24 significant bits.
    total = numerator * 2**12 + denominator
    spacing = 2 ** max(total.bit_length() - 24, 0)
    rounded = round(Fraction(total, spacing)) * spacing
    mass, rest = divmod((rounded - denominator) * UNIT, denominator * 2**12)
    assert rest == 0
    return mass


def oracle_masses(row: list[float], temperature: float) -> list[int]:
    inverse = float32(1.0 / temperature)
    largest = max(row)
    # Sums and products of two float32 numbers rounded to float64 first round correctly to float32.
    exponents = [float32(float32(value - largest) * inverse) for value in row]
    weights = np.exp(np.array(exponents, dtype=np.float32))
    return [on_grid(float(weight)) for weight in weights]


@dataclass(frozen=True)
class Selection:
    token: int
    rank: int
    probability: float
    candidates: int


class Oracle:
    """One row, prepared for any number of quantiles."""

    def __init__(
        self, row: list[float], temperature: float, parameters: SamplingParameters
    ) -> None:
        self.order = sorted(range(len(row)), key=lambda token: (-row[token], token))
        tempered = oracle_masses(row, temperature)
        self.masses = [tempered[token] for token in self.order]
        filtered = self.masses
        if parameters.truncate_first:
            plain = oracle_masses(row, 1.0)
            filtered = [plain[token] for token in self.order]
        self.kept = self.masses[: self._kept(filtered, parameters)]
        self.total = sum(self.kept)

    @staticmethod
    def _kept(masses: list[int], parameters: SamplingParameters) -> int:
        kept = len(masses)
        if parameters.top_k > 0:
            kept = min(kept, parameters.top_k)
        count = 0
        while count < kept and Fraction(parameters.min_p) * UNIT <= masses[count]:
            count += 1
        kept = count
        if parameters.top_p < 1.0:
            goal, reached, count = Fraction(parameters.top_p) * sum(masses[:kept]), 0, 0
            while reached < goal:
                reached += masses[count]
                count += 1
            kept = count
        return kept

    def pick(self, u: float) -> Selection:
        numerator, denominator = u.as_integer_ratio()
        rank, reached = 0, self.kept[0]
        while reached * denominator < numerator * self.total:
            rank += 1
            reached += self.kept[rank]
        return Selection(
            token=self.order[rank],
            rank=rank,
            probability=float(Fraction(self.kept[rank], self.total)),
            candidates=max(index for index, mass in enumerate(self.kept) if mass) + 1,
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
    logits: NDArray[np.float32],
    temperature: NDArray[np.float64],
    parameters: list[SamplingParameters],
    quantiles: NDArray[np.float64],
) -> list[list[Selection]]:
    """Returns one list of selections per column of *quantiles*, whose shape is ``(B, K)``."""
    selector = TokenSelector()
    plan = selector.prepare(logits, temperature, Rows(parameters))
    results = [selector.pick(plan, column) for column in quantiles.T]
    return [
        [
            Selection(*values)
            for values in zip(
                result.token_ids.tolist(),
                result.rank.tolist(),
                result.probability.tolist(),
                result.candidates.tolist(),
                strict=True,
            )
        ]
        for result in results
    ]


def assert_matches_oracle(
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
    for column, selections in enumerate(select(logits, temperature, parameters, quantiles)):
        for line, (oracle, selection) in enumerate(zip(oracles, selections, strict=True)):
            u = float(quantiles[line, column])
            assert selection == oracle.pick(u), (u, temperature[line], parameters[line])
            assert oracle.kept[selection.rank] > 0, "a token of zero mass was selected"
            assert np.isfinite(logits[line, selection.token])
    return int(quantiles.size)


def interesting_quantiles(oracle: Oracle, rng: np.random.Generator, count: int) -> list[float]:
    edges = list(oracle.boundaries())
    chosen = [edges[index] for index in rng.integers(len(edges), size=count // 2)]
    uniform = rng.random(count - len(chosen) - 2).tolist()
    return [inside(u) for u in [U_MIN, U_MAX, *chosen, *uniform]]


def random_row(rng: np.random.Generator, kind: str, vocab_size: int) -> NDArray[np.float32]:
    row = rng.normal(0.0, 4.0, vocab_size)
    if kind == "flat":
        row = rng.normal(0.0, 1e-6, vocab_size)
    elif kind == "uniform":
        row = np.full(vocab_size, rng.normal())
    elif kind == "peaked":
        row[rng.integers(vocab_size)] += rng.choice([10.0, 24.0, 25.0, 200.0])
    elif kind == "ties":
        row = rng.integers(-2, 3, vocab_size).astype(np.float64)
    elif kind == "signed zeros":
        row = rng.choice([0.0, -0.0, -1.0], vocab_size)
    elif kind == "huge":
        row = rng.choice([3e38, -3e38, 1e30, 0.0, -1e30], vocab_size)
    elif kind == "near the grid":
        # exp() lands around 2**-36, where a mass becomes zero, and around 2**-12.
        row = rng.choice([0.0, -24.26, -24.95, -24.9533, -24.96, -8.3177, -8.32], vocab_size)
    row = row.astype(np.float32)
    if kind == "bfloat16":
        row = (row.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    elif kind == "masked":
        row[rng.random(vocab_size) < 0.7] = -np.inf
        row[rng.integers(vocab_size)] = 0.5
    elif kind == "one survivor":
        row[:] = -np.inf
        row[rng.integers(vocab_size)] = rng.normal()
    elif kind == "adjacent":
        row = np.nextafter(np.float32(1.0), np.float32(2.0)) + np.zeros_like(row)
        row[:: max(1, vocab_size // 3)] = 1.0
    return row


KINDS = (
    "normal",
    "flat",
    "uniform",
    "peaked",
    "ties",
    "signed zeros",
    "huge",
    "near the grid",
    "bfloat16",
    "masked",
    "one survivor",
    "adjacent",
)


def random_parameters(rng: np.random.Generator, vocab_size: int) -> SamplingParameters:
    def maybe(value: Any, off: Any) -> Any:
        return value if rng.random() < 0.5 else off

    return SamplingParameters(
        top_k=maybe(int(rng.integers(1, 2 * vocab_size + 1)), maybe(0, -1)),
        min_p=maybe(float(rng.choice([rng.random(), rng.random() ** 8, 1.0, 1e-12, 0.5])), 0.0),
        top_p=maybe(float(rng.choice([1.0 - rng.random(), 1e-300, 0.5, 1.0 - 2**-53])), 1.0),
        truncate_first=bool(rng.random() < 0.5),
    )


def random_temperatures(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    spread = 10.0 ** rng.uniform(-3.0, 3.0, count)
    return np.where(rng.random(count) < 0.3, rng.choice([1e-3, 0.7, 1.0, 2.0, 1e3], count), spread)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vocab_sizes", [(1, 2, 3), (7, 16, 32), (100, 128), (257, 400)], ids=str)
def test_equals_the_oracle(kind: str, vocab_sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng([KINDS.index(kind), *vocab_sizes])
    compared = 0
    for vocab_size in vocab_sizes:
        rows = 48 if vocab_size < 100 else 12
        logits = np.stack([random_row(rng, kind, vocab_size) for _ in range(rows)])
        parameters = [random_parameters(rng, vocab_size) for _ in range(rows)]
        compared += assert_matches_oracle(
            logits, random_temperatures(rng, rows), parameters, rng, quantiles_per_row=12
        )
    assert compared >= 12 * 24


@pytest.mark.parametrize("kind", ["normal", "ties", "masked"])
def test_equals_the_oracle_on_a_large_vocabulary(kind: str) -> None:
    rng = np.random.default_rng([20_000, KINDS.index(kind)])
    logits = np.stack([random_row(rng, kind, 20_000) for _ in range(2)])
    parameters = [random_parameters(rng, 20_000), SamplingParameters()]
    assert_matches_oracle(logits, np.array([0.8, 1.3]), parameters, rng, quantiles_per_row=16)


def test_exact_boundaries_belong_to_the_token_below() -> None:
    """With 2**k equal masses, r / 2**k is a float64 and exactly the r-th step."""
    logits = np.zeros((1, 64), dtype=np.float32)
    edges = np.arange(1, 64) / 64.0
    for shift, offset in ((0.0, 0), (1.0, 1)):
        quantiles = np.nextafter(edges, shift) if offset else edges
        picked = select(logits, np.ones(1), [SamplingParameters()], quantiles[np.newaxis])
        assert [row[0].token for row in picked] == [edge + offset for edge in range(63)]


def test_neighbours_of_zero_and_one_are_the_ends() -> None:
    logits = np.array([[0.0, 5.0, -np.inf, 5.0, -80.0]], dtype=np.float32)
    first, last = select(logits, np.ones(1), [SamplingParameters()], np.array([[U_MIN, U_MAX]]))
    assert (first[0].token, first[0].rank) == (1, 0)
    assert (last[0].token, last[0].rank, last[0].candidates) == (0, 2, 3)


def test_ties_are_ordered_by_token_id_and_zeros_have_no_sign() -> None:
    logits = np.array([[-0.0, 0.0, -0.0, 0.0]], dtype=np.float32)
    quantiles = np.array([[0.1, 0.3, 0.6, 0.9]])
    picked = select(logits, np.ones(1), [SamplingParameters()], quantiles)
    assert [row[0].token for row in picked] == [0, 1, 2, 3]


def test_switched_off_filters_keep_everything_even_before_temperature() -> None:
    """A token that rounds to nothing at temperature 1 can matter at temperature 10."""
    logits = np.array([[0.0, -30.0]], dtype=np.float32)
    for truncate_first in (False, True):
        parameters = SamplingParameters(truncate_first=truncate_first)
        (picked,) = select(logits, np.array([10.0]), [parameters], np.array([[U_MAX]]))
        assert picked[0].token == 1
        assert picked[0].candidates == 2


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
filters = st.builds(
    SamplingParameters,
    top_k=st.one_of(st.just(0), st.integers(-1, 30)),
    min_p=st.one_of(st.just(0.0), st.floats(0.0, 1.0)),
    top_p=st.one_of(st.just(1.0), st.floats(0.0, 1.0, exclude_min=True)),
    truncate_first=st.booleans(),
)


@settings(max_examples=2_000)
@given(logit_rows, temperatures, filters, st.lists(uniform_numbers, min_size=1, max_size=4))
@example([0.0, -30.0], 10.0, SamplingParameters(truncate_first=True), [U_MAX])
@example([3e38, -3e38], 1e-3, SamplingParameters(), [U_MAX])
@example([0.0, -3.1817015e-03, -3.1817018e-03], 1.0, SamplingParameters(min_p=0.9968), [0.5, U_MAX])
def test_any_row_equals_the_oracle(
    row: list[float], temperature: float, parameters: SamplingParameters, us: list[float]
) -> None:
    logits = np.array([row], dtype=np.float32)
    oracle = Oracle(logits[0].tolist(), temperature, parameters)
    us += [inside(u) for u in oracle.boundaries()]
    picked = select(logits, np.array([temperature]), [parameters], np.array([us]))
    for u, (selection,) in zip(us, picked, strict=True):
        assert selection == oracle.pick(u)
        assert oracle.kept[selection.rank] > 0


@settings(max_examples=300)
@given(logit_rows, temperatures, filters, st.lists(uniform_numbers, min_size=2, max_size=30))
def test_rank_grows_with_u(
    row: list[float], temperature: float, parameters: SamplingParameters, us: list[float]
) -> None:
    picked = select(
        np.array([row], dtype=np.float32),
        np.array([temperature]),
        [parameters],
        np.array([sorted(us)]),
    )
    ranks = [selection.rank for (selection,) in picked]
    assert ranks == sorted(ranks)


@settings(max_examples=300)
@given(logit_rows, temperatures, filters, uniform_numbers, st.randoms(use_true_random=False))
def test_permuting_the_vocabulary_permutes_the_tokens(
    row: list[float], temperature: float, parameters: SamplingParameters, u: float, random: Any
) -> None:
    logits = np.array([row], dtype=np.float32)
    order = list(range(len(row)))
    random.shuffle(order)
    arguments = (np.array([temperature]), [parameters], np.array([[u]]))
    ((plain,),) = select(logits, *arguments)
    ((moved,),) = select(logits[:, order], *arguments)
    assert (moved.rank, moved.probability) == (plain.rank, plain.probability)
    assert moved.candidates == plain.candidates
    assert logits[0, order[moved.token]] == logits[0, plain.token]
    if len(set(logits[0].tolist())) == len(row):
        assert order[moved.token] == plain.token


exact_rows = st.lists(st.integers(-(2**12), 2**12), min_size=1, max_size=24)


@settings(max_examples=300)
@given(exact_rows, st.integers(-64, 64), st.integers(-6, 6), filters, uniform_numbers)
def test_shift_and_scale_change_nothing_where_float32_is_exact(
    row: list[int], shift: int, power: int, parameters: SamplingParameters, u: float
) -> None:
    parameters = parameters.model_copy(update={"truncate_first": False})
    logits = np.array([row], dtype=np.float32) / np.float32(256.0)
    plain = select(logits, np.ones(1), [parameters], np.array([[u]]))
    scale = np.float32(2.0**power)
    moved = (logits + np.float32(shift)) * scale
    assert select(moved, np.array([2.0**power]), [parameters], np.array([[u]])) == plain


def test_evenly_spaced_u_select_each_token_in_proportion_to_its_mass() -> None:
    """Each token owns an interval of u, so of N midpoints it gets N p, to within one."""
    rng = np.random.default_rng(11)
    logits = rng.normal(0.0, 2.0, (1, 50)).astype(np.float32)
    oracle = Oracle(logits[0].tolist(), 0.9, SamplingParameters())
    count = 20_000
    quantiles = (np.arange(count) + 0.5) / count
    selector = TokenSelector()
    plan = selector.prepare(
        np.repeat(logits, count, axis=0), np.full(count, 0.9), Rows([SamplingParameters()] * count)
    )
    tokens = np.bincount(selector.pick(plan, quantiles).token_ids, minlength=50)
    for rank, token in enumerate(oracle.order):
        assert abs(tokens[token] - count * oracle.kept[rank] / oracle.total) <= 1.0
