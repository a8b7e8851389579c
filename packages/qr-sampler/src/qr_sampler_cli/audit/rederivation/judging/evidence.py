# SPDX-License-Identifier: Apache-2.0
"""What was found of all tokens, and the judgement on it."""

from __future__ import annotations

from array import array
from typing import Any, Final

import numpy as np

from qr_sampler.arrays import FloatArray, MaskArray
from qr_sampler_cli.audit.findings import Rung
from qr_sampler_cli.audit.rederivation.judging.token_errors import (
    TOLERANCES,
    JudgedRow,
    TokenErrors,
)
from qr_sampler_cli.audit.rederivation.judging.tolerance import DtypeRule, Scale, scale_of

__all__ = ["BYTES_PER_TOKEN", "Evidence"]

_CHOICE: Final = (0, 1, 2, 3)
"""Columns of what is said of the choice of a token: u, candidates, rank, probability."""

_ROW: Final = (4, 5)
"""Columns of what is said of its row: entropy and varentropy."""

_SAYS: Final = {
    "u": "u lies {outside:.3g} outside of the interval of the token",
    "candidates": "another number of tokens is kept",
    "rank": "the token has another rank",
    "probability": "its probability is {probability:+.3g} of what it should be",
    "entropy": "its entropy is {entropy:+.3g} nats from that of the model",
    "varentropy": "its varentropy is another",
}

_WIDTH: Final = len(TokenErrors._fields) + 5

BYTES_PER_TOKEN: Final = 4 * _WIDTH + 8
"""What is remembered of a judged token: the scale of errors is known only when all are."""

_LEAST_POWER: Final = 0.5
"""Share of the forged u that have to be exposed of those that a perfect model would expose."""


class Evidence:
    """The errors of all tokens.

    Args:
        rung: Takes the findings.
        rule: What is accepted.
    """

    def __init__(self, rung: Rung, rule: DtypeRule) -> None:
        self._rung = rung
        self.rule = rule
        self._columns = array("f")
        self._places = array("q")
        self._left_open = np.zeros(1 + len(TOLERANCES))
        self._chosen = 0

    @property
    def count(self) -> int:
        """Number of tokens so far."""
        return len(self._places)

    def add(self, row: JudgedRow, place: int) -> None:
        """Takes in a token."""
        self._places.append(place)
        self._columns.extend(row.errors)
        self._columns.extend(row[1:6])
        if row.left_open:
            self._chosen += 1
            self._left_open += row.left_open

    def judge(self) -> None:
        """Judges all tokens."""
        if not self._places:
            return
        table = np.frombuffer(self._columns, dtype=np.float32).reshape(-1, _WIDTH)
        numbers = table.astype(np.float64)
        scale = scale_of((numbers[:, 9], numbers[:, 10]), self.rule)
        figures = self._figures(numbers, scale)
        self._rung.figures.update(figures)
        self._rung.note(_summary(figures, self.rule))
        if scale.typical > self.rule.largest:
            self._rung.fail(
                0,
                f"the logits of the model differ from those of the run by {scale.typical:.3g}, and "
                f"arithmetic in {self.rule.name} by {self.rule.largest:.3g} at most: the model, "
                "the prompts or the texts are others",
            )
        self._judge_tokens(numbers, scale.tolerance)
        self._judge_power(figures)

    def _judge_tokens(self, numbers: FloatArray, tolerance: float) -> None:
        choice = numbers[:, _CHOICE].max(axis=1) > tolerance
        row = numbers[:, _ROW].max(axis=1) > tolerance
        if np.count_nonzero(choice | row) > self.rule.misses * len(numbers):
            self._fail(numbers, choice | row, tolerance)
        else:
            # That another row would give another token excuses no token of the right row.
            self._fail(numbers, choice & ~row, tolerance)
            self._excuse(choice | row)

    def _fail(self, numbers: FloatArray, missed: MaskArray, tolerance: float) -> None:
        for index in np.flatnonzero(missed):
            line = numbers[index]
            worst = int(np.argmax(line[: len(TokenErrors._fields)]))
            says = _SAYS[TokenErrors._fields[worst]].format(
                outside=line[6], entropy=line[7], probability=line[8]
            )
            self._rung.fail(
                self._places[index],
                f"{says}: logits would have to be wrong by {line[worst]:.3g}, and {tolerance:.3g} "
                "is the most that their own error explains",
            )

    def _excuse(self, missed: MaskArray) -> None:
        count = int(np.count_nonzero(missed))
        if count:
            self._rung.note(
                f"{count} rows differ as wholes, which {self.rule.name} may do in "
                f"{self.rule.misses:.1%} of all"
            )

    def _judge_power(self, figures: dict[str, Any]) -> None:
        exposed, at_best = figures["exposed"], figures["exposed_at_best"]
        if self._chosen and exposed < _LEAST_POWER * at_best:
            self._rung.cannot_say(
                f"whether u gives the tokens: with logits that are {figures['logit_error']:.2g} "
                f"wrong, {exposed:.0%} of forged u would be exposed"
            )

    def _figures(self, numbers: FloatArray, scale: Scale) -> dict[str, Any]:
        needed = numbers[:, : len(TokenErrors._fields)].max(axis=1)
        held = 1.0 - self._left_open / max(self._chosen, 1)
        index = int(np.searchsorted(TOLERANCES, scale.tolerance))
        return {
            "tokens": len(numbers),
            "dtype": self.rule.name,
            "logit_error": scale.sigma,
            "logit_error_typical": scale.typical,
            "tolerance": scale.tolerance,
            "outside_interval": int(np.count_nonzero(numbers[:, 6])),
            "largest_distance_of_u": float(numbers[:, 6].max()),
            "beyond_tolerance": int(np.count_nonzero(needed > scale.tolerance)),
            "largest_error_needed": float(needed.max()),
            "entropy_difference_nats": _quantiles(np.abs(numbers[:, 7])),
            "probability_difference": _quantiles(np.abs(numbers[:, 8])),
            "exposed": float(held[min(index + 1, len(TOLERANCES))]),
            "exposed_at_best": float(held[0]),
        }


def _quantiles(values: FloatArray) -> dict[str, float]:
    """Returns quantiles of the finite *values*; NaN is in no JSON."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return {}
    names = {"median": 0.5, "q90": 0.9, "q99": 0.99, "q999": 0.999, "max": 1.0}
    return {name: float(np.quantile(finite, q)) for name, q in names.items()}


def _summary(figures: dict[str, Any], rule: DtypeRule) -> str:
    entropy, probability = figures["entropy_difference_nats"], figures["probability_difference"]
    return (
        f"{figures['tokens']:,} tokens judged by the rules of {rule.name}, "
        f"{figures['outside_interval']:,} outside of their interval of u, by "
        f"{figures['largest_distance_of_u']:.2g} at most; entropies differ by "
        f"{entropy['median']:.1g} (median) to {entropy['max']:.1g} nats, probabilities by "
        f"{probability.get('median', 0.0):.1g} to {probability.get('max', 0.0):.1g} of "
        f"themselves; the error of a logit is about {figures['logit_error']:.1g}, the tolerance "
        f"{figures['tolerance']:.1g}; a random u in place of one would be exposed in "
        f"{figures['exposed']:.1%} of all tokens"
    )
