# SPDX-License-Identifier: Apache-2.0
"""What error of the logits would explain what is recorded of a token, number by number."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from qr_sampler import ReferenceSelector, Rows, SamplingParameters
from qr_sampler.arrays import Logits
from qr_sampler_cli.audit.rederivation.judging.row_law import INEXPLICABLE, RowLaw
from qr_sampler_cli.audit.rederivation.judging.statistics_error import (
    RowStatistics,
    needed_for_probability,
    spread_of_probability,
)
from qr_sampler_cli.audit.rederivation.judging.truncation import needed_for_candidates
from qr_sampler_cli.audit.rederivation.transcripts import Decided, RecordedNumbers

__all__ = ["TOLERANCES", "JudgedRow", "TokenErrors", "judged_rows"]

TOLERANCES: Final = tuple(1e-4 * 2.0**step for step in range(15))
"""Errors of the logits for which it is known how many u they leave open, in nats."""

_LEAST_SPREAD: Final = 0.02
"""Below it a statistic hardly depends on the logits, and says nothing of their errors."""

_TYPICAL_WINDOW: Final = 8.0
"""Of typical-p: exponents shift by at most 2 d / T, so does their mean to first order, and the mass
that has to be reached moves the farther edge by about as much again; the rest is margin."""


class TokenErrors(NamedTuple):
    """Errors of the logits, in nats: each the smallest that explains one recorded number."""

    u: float
    """That u selects the token."""
    candidates: float
    """That truncation has kept so many."""
    rank: float
    """The rank of the token."""
    probability: float
    """Its probability."""
    entropy: float
    """The entropy of its row."""
    varentropy: float
    """The varentropy of its row."""


class JudgedRow(NamedTuple):
    """A row of logits beside what is recorded of it."""

    errors: TokenErrors
    """What would explain the differences."""
    outside: float
    """By how much u lies outside of the interval of its token."""
    entropy_apart: float
    """Recorded entropy minus that of the row, in nats."""
    probability_apart: float
    """Recorded probability over that of the row, minus 1."""
    from_entropy: float
    """The difference of entropies as a number of standard deviations of one logit; NaN if it says
    nothing of them."""
    from_probability: float
    """The same of the probabilities."""
    left_open: tuple[float, ...]
    """What part of (0, 1) is open to u: without an error, and for each of :data:`TOLERANCES`; empty
    if u does not decide."""
    deviation: float
    """Standard deviation of the logits; NaN unless top-n-sigma needs it."""


def judged_rows(
    logits: Logits,
    token_ids: Sequence[int],
    decided: Sequence[int],
    numbers: Sequence[RecordedNumbers],
    parameters: SamplingParameters,
) -> Iterator[JudgedRow | None]:
    """Yields what each row of logits shows; ``None`` for one without a finite maximum.

    The readable :class:`~qr_sampler.ReferenceSelector` orders, truncates and weighs the tokens.

    Args:
        logits: Shape ``(N, V)``, of the model.
        token_ids: The recorded tokens, each below V.
        decided: What has decided each, a :class:`Decided`.
        numbers: What is recorded of each; temperatures in range.
        parameters: What their request asked for.
    """
    selector = ReferenceSelector()
    temperature = np.array([each.temperature for each in numbers])
    measurement = selector.measure(logits, Rows([parameters] * len(numbers)), temperature)
    lines = measurement.lines.tolist()
    plan = selector.prepare(measurement, temperature[measurement.lines])
    found = {line: row for row, line in enumerate(lines)}
    told = zip(token_ids, decided, numbers, strict=True)
    for line, (token_id, kind, recorded) in enumerate(told):
        row = found.get(line)
        if row is None:
            yield None
            continue
        ranked = logits[line, plan.order[row]].astype(np.float64)
        statistics = RowStatistics.of(ranked)
        law = RowLaw(
            below=ranked[0] - ranked,
            cumulative=plan.cumulative[row],
            start=int(plan.start[row]),
            stop=int(plan.stop[row]),
            temperature=recorded.temperature,
            window=_window(parameters, statistics),
        )
        rank = int(np.flatnonzero(plan.order[row] == token_id)[0])
        deviation = float(measurement.logit_deviation[row])
        yield _judged(law, rank, kind, recorded, statistics, parameters, deviation)


def _window(parameters: SamplingParameters, statistics: RowStatistics) -> float:
    if parameters.typical_p >= 1.0:
        return 0.0
    return _TYPICAL_WINDOW * (1.0 + statistics.most_of_entropy)


def _judged(
    law: RowLaw,
    rank: int,
    kind: int,
    recorded: RecordedNumbers,
    statistics: RowStatistics,
    parameters: SamplingParameters,
    deviation: float,
) -> JudgedRow:
    # No vocabulary is larger, and beyond it the number fits no array.
    candidates = int(min(recorded.candidates, 2.0**31))
    kept = min(candidates, law.below.size)
    derived = law.probability(rank, kept)
    decides = kind == Decided.ONE_NUMBER
    bounds = law.bounds(rank, kept) if kept else (1.0, 0.0)
    # Of a range that does not begin with the most probable token, the first rank is not recorded.
    comparable = not law.window
    errors = TokenErrors(
        u=law.needed_for_u(rank, kept, recorded.u) if decides and kept else 0.0,
        candidates=needed_for_candidates(law, parameters, deviation, candidates),
        rank=law.needed_for_rank(rank, int(min(recorded.rank, 2.0**31))),
        probability=(
            needed_for_probability(recorded.probability, derived, law.temperature)
            if comparable
            else 0.0
        ),
        entropy=statistics.needed_for_entropy(recorded.entropy_nats),
        varentropy=statistics.needed_for_varentropy(recorded.varentropy_nats2),
    )
    ratio = recorded.probability / derived if derived > 0.0 else math.inf
    apart = recorded.entropy_nats - statistics.entropy_nats
    return JudgedRow(
        errors=TokenErrors(*(min(error, INEXPLICABLE) for error in errors)),
        outside=max(bounds[0] - recorded.u, recorded.u - bounds[1], 0.0) if decides else 0.0,
        entropy_apart=apart,
        probability_apart=ratio - 1.0 if comparable else math.nan,
        from_entropy=_scaled(apart, statistics.spread_of_entropy),
        from_probability=(
            _scaled(math.log(ratio), _spread(law, rank, kept))
            if comparable and 0.0 < ratio < math.inf
            else math.nan
        ),
        left_open=_left_open(law, rank, kept) if decides and kept else (),
        deviation=deviation,
    )


def _scaled(apart: float, spread: float) -> float:
    if spread < _LEAST_SPREAD:
        return math.nan
    return min(abs(apart) / spread, INEXPLICABLE)


def _spread(law: RowLaw, rank: int, kept: int) -> float:
    stop = min(law.start + kept, law.below.size)
    masses = np.diff(law.cumulative[law.start : stop + 1]).astype(np.float64)
    within = rank - law.start
    if not 0 <= within < masses.size or not masses.sum() > 0.0:
        return 0.0
    return spread_of_probability(masses / masses.sum(), within, law.temperature)


def _left_open(law: RowLaw, rank: int, kept: int) -> tuple[float, ...]:
    widths = []
    for tolerance in (0.0, *TOLERANCES):
        low, high = law.bounds(rank, kept, tolerance)
        widths.append(max(high - low, 0.0))
    return tuple(widths)
