# SPDX-License-Identifier: Apache-2.0
"""The golden-psi gate: whether a sampling unit draws from F(psi).

Why it decides: with a verifier that computes acceptance and residual from F(psi), one step of
speculative decoding is a Markov kernel from the proposed token to the emitted one, and it turns
F(psi) into the target p. The distribution q~ of another unit goes through the same kernel, and no
kernel increases the total variation (data processing), therefore

    TV(output, p) <= TV(q~, F(psi)),

over L tokens at most L times that. The gate measures the right-hand side.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from qr_sampler_tsd._typing import TokenArray
from qr_sampler_tsd.errors import GateError
from qr_sampler_tsd.golden import golden_payloads
from qr_sampler_tsd.goodness_of_fit import (
    chi_square,
    low_bits,
    repeats,
    sampling_floor,
    stretches,
)
from qr_sampler_tsd.law import HeadTailLaw
from qr_sampler_tsd.psi_fields import Psi
from qr_sampler_tsd.tsu.adapter import TSUAdapter, TSUSamples
from qr_sampler_tsd.uniforms import UniformSource

__all__ = ["GateReport", "GatedUnit", "PayloadResult", "require_gate", "run_gate"]

_DRAWS_PER_CALL: Final = 20_000
_TESTS: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadResult:
    """What the gate has found for one payload."""

    payload: str
    """Its name."""
    p_values: Mapping[str, float]
    """By test: ``cells`` (chi-square over the head tokens and the tail), ``top`` (exact binomial
    test of the most probable cell), ``tail`` (chi-square over equal stretches of the tail),
    ``tail_low_bits`` (the same over tail ranks modulo up to 64), ``tail_repeats`` (too many tail
    tokens drawn twice). 1 where nothing can be tested."""
    least_p_value: float
    """A test fails below."""
    total_variation: float
    """Between the frequencies of the cells and their distribution."""
    sampling_floor: float
    """What that of an exact unit exceeds with the probability *least_p_value* at most."""
    allowance: float
    """What the unit may add to it."""
    complaints: tuple[str, ...]
    """What chance cannot excuse: tokens that cannot occur, another log q than F(psi)'s."""

    @property
    def failures(self) -> tuple[str, ...]:
        """Everything that speaks against the unit, in words."""
        failures = list(self.complaints)
        for test, p_value in self.p_values.items():
            if p_value < self.least_p_value:
                failures.append(f"{test}: p = {p_value:.2g} < {self.least_p_value:.2g}")
        bound = self.sampling_floor + self.allowance
        if self.total_variation > bound:
            failures.append(f"total variation {self.total_variation:.4f} > {bound:.4f}")
        return tuple(failures)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """The outcome of the gate for one unit."""

    unit: str
    """:attr:`TSUAdapter.name`."""
    samples: int
    """Draws per payload."""
    false_alarm: float
    """The probability with which an exact unit fails."""
    results: tuple[PayloadResult, ...]
    """One per payload."""

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against the unit."""
        return not any(result.failures for result in self.results)

    @property
    def figures(self) -> dict[str, float]:
        """What a record keeps of the outcome: plain numbers."""
        worst = max(self.results, key=lambda one: one.total_variation)
        return {
            "samples": self.samples,
            "false_alarm": self.false_alarm,
            "smallest_p": min(min(one.p_values.values()) for one in self.results),
            "largest_total_variation": worst.total_variation,
            "its_bound": worst.sampling_floor + worst.allowance,
        }

    def __str__(self) -> str:
        failures = [
            f"{result.payload}: {failure}" for result in self.results for failure in result.failures
        ]
        outcome = f"failed: {'; '.join(failures)}" if failures else "passed"
        return f"gate of {self.unit}, {self.samples} draws per payload: {outcome}"


def run_gate(
    unit: TSUAdapter,
    uniforms: UniformSource,
    samples: int = 200_000,
    *,
    payloads: Mapping[str, Psi] | None = None,
    allowance: float = 1e-3,
    false_alarm: float = 1e-9,
    seconds: float = math.inf,
) -> GateReport:
    """Returns how *unit* does on the golden payloads.

    Six tests per payload share *false_alarm* equally (Bonferroni). The bound on the total
    variation and the tests of the top cell and of repeats hold for any number of samples, the
    others to the accuracy of the chi-square distribution with at least 25 expected draws per cell.

    Args:
        unit: The unit.
        uniforms: Feeds it.
        samples: Draws per payload. 200,000 find a most probable token that comes 1 % more often
            than it should.
        payloads: ``None`` for :func:`golden_payloads`.
        allowance: Total variation that the device may have beyond the sampling floor.
        false_alarm: The probability with which an exact unit fails.
        seconds: The time that it may take; it is looked at after each call of the unit.

    Raises:
        GateError: When it takes longer.
        ValueError: When *samples*, *allowance* or *false_alarm* is out of range.
    """
    if samples < 1 or allowance < 0 or not 0 < false_alarm < 1:
        raise ValueError(
            f"samples={samples} must be at least 1, allowance={allowance} at least 0 and "
            f"false_alarm={false_alarm} between 0 and 1"
        )
    chosen = golden_payloads() if payloads is None else payloads
    least = false_alarm / (_TESTS * len(chosen))
    clock = _Clock(unit.name, seconds)
    results = tuple(
        _judged(name, psi.law(), _drawn(unit, psi, uniforms, samples, clock), least, allowance)
        for name, psi in chosen.items()
    )
    return GateReport(unit=unit.name, samples=samples, false_alarm=false_alarm, results=results)


def require_gate(
    unit: TSUAdapter,
    uniforms: UniformSource,
    samples: int = 200_000,
    *,
    seconds: float = math.inf,
) -> GatedUnit:
    """Returns *unit*, fit for use, after it has passed :func:`run_gate`.

    Raises:
        GateError: When it has not, or takes longer than *seconds*; the message states why.
    """
    return GatedUnit(unit, run_gate(unit, uniforms, samples, seconds=seconds))


class GatedUnit(TSUAdapter):
    """A unit that has passed the gate.

    Args:
        unit: The unit.
        report: Of this unit; :attr:`report` keeps it.

    Raises:
        GateError: When the report is of another unit, or says that the unit failed.
    """

    def __init__(self, unit: TSUAdapter, report: GateReport) -> None:
        if report.unit != unit.name:
            raise GateError(f"the report is of {report.unit}, the unit is {unit.name}")
        if not report.passed:
            raise GateError(str(report))
        self._unit = unit
        self.report = report

    @property
    def name(self) -> str:
        """The name of the unit."""
        return self._unit.name

    def law(self, psi: Psi) -> HeadTailLaw | None:
        """Returns the distribution that the unit gives."""
        return self._unit.law(psi)

    def sample_categorical(self, psi: Psi, batch_size: int, uniforms: UniformSource) -> TSUSamples:
        """Returns the draws of the unit."""
        return self._unit.sample_categorical(psi, batch_size, uniforms)

    def most_uniforms(self, cells: int) -> int:
        """Returns the bound of the unit."""
        return self._unit.most_uniforms(cells)

    def draw_tokens(self, law: HeadTailLaw, batch_size: int, uniforms: UniformSource) -> TokenArray:
        """Returns *batch_size* draws, see :class:`TSUAdapter`."""
        return self._unit.draw_tokens(law, batch_size, uniforms)


class _Clock:
    """How long a unit may take at the gate, from now on."""

    def __init__(self, unit: str, seconds: float) -> None:
        self._unit, self._seconds, self._started = unit, seconds, time.monotonic()

    def check(self) -> None:
        """Raises a :class:`GateError` when the time is over."""
        if time.monotonic() - self._started > self._seconds:
            raise GateError(
                f"the gate of {self._unit} takes longer than {self._seconds:g} s; a faster unit, "
                "or one that draws many tokens at once, is wanted"
            )


def _drawn(
    unit: TSUAdapter, psi: Psi, uniforms: UniformSource, samples: int, clock: _Clock
) -> TSUSamples:
    sizes = [_DRAWS_PER_CALL] * (samples // _DRAWS_PER_CALL)
    if samples % _DRAWS_PER_CALL:
        sizes.append(samples % _DRAWS_PER_CALL)
    pieces = []
    for size in sizes:
        pieces.append(unit.sample_categorical(psi, size, uniforms))
        clock.check()
    return TSUSamples(*(np.concatenate(arrays) for arrays in zip(*pieces, strict=True)))


def _judged(
    name: str, law: HeadTailLaw, drawn: TSUSamples, least: float, allowance: float
) -> PayloadResult:
    complaints = _complaints(law, drawn)
    cells, ranks = _sorted_out(law, drawn.tokens[_possible(law, drawn.tokens)])
    probs, counts = law.cell_probs, np.bincount(cells, minlength=law.ids.size + 1)
    top, total = int(probs.argmax()), max(1, int(counts.sum()))
    return PayloadResult(
        payload=name,
        p_values={
            "cells": chi_square(counts, probs),
            "top": float(stats.binomtest(int(counts[top]), total, min(1.0, probs[top])).pvalue),
            "tail": stretches(ranks, law.tail_count),
            "tail_low_bits": low_bits(ranks, law.tail_count),
            "tail_repeats": repeats(ranks, law.tail_count),
        },
        least_p_value=least,
        total_variation=0.5 * float(np.abs(counts / total - probs).sum()),
        sampling_floor=sampling_floor(probs, total, least),
        allowance=allowance,
        complaints=complaints,
    )


def _possible(law: HeadTailLaw, tokens: TokenArray) -> NDArray[np.bool_]:
    inside = (tokens >= 0) & (tokens < law.vocab_size)
    inside[inside] = law.probs_of(tokens[inside]) > 0
    return inside


def _complaints(law: HeadTailLaw, drawn: TSUSamples) -> tuple[str, ...]:
    possible = _possible(law, drawn.tokens)
    complaints = []
    if not possible.all():
        wrong = drawn.tokens[~possible]
        complaints.append(f"{wrong.size} draws of tokens without probability, such as {wrong[0]}")
    due = law.log_probs_of(drawn.tokens[possible])
    if not np.allclose(drawn.log_q[possible], due, rtol=1e-12, atol=1e-12):
        complaints.append("log_q is not that of F(psi)")
    return tuple(complaints)


def _sorted_out(law: HeadTailLaw, tokens: TokenArray) -> tuple[TokenArray, TokenArray]:
    """Returns the cell of each token, and the ranks of those of the tail."""
    cells = np.full(tokens.size, law.ids.size)
    if law.ids.size:
        order = np.argsort(law.ids)
        ordered = law.ids[order]
        places = np.searchsorted(ordered, tokens).clip(max=ordered.size - 1)
        cells = np.where(ordered[places] == tokens, order[places], cells)
    return cells, law.tail_ranks(tokens[cells == law.ids.size])
