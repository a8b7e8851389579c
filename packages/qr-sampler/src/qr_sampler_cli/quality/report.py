# SPDX-License-Identifier: Apache-2.0
"""What is said of a sample: estimates, tests, the verdict, and what was not tested."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qr_sampler.amplification.baseline import plane_shares
from qr_sampler_cli.quality.byte_tests import ByteTest, byte_tests
from qr_sampler_cli.quality.ent_figures import EntFigures, ent_figures
from qr_sampler_cli.quality.min_entropy import (
    markov_chain_of,
    markov_min_entropy,
    most_common_value_min_entropy,
)
from qr_sampler_cli.quality.pieces import bit_counts, byte_counts
from qr_sampler_cli.quality.programs.program import ProgramReport
from qr_sampler_cli.quality.restarts import restart_tests
from qr_sampler_cli.quality.sample import Sample
from qr_sampler_cli.quality.tails import holm

__all__ = ["ALPHA", "MinEntropy", "QualityReport", "quality_report"]

ALPHA: Final = 1e-3
"""A corrected p-value below it counts: good bytes are called bad once in a thousand samples."""

_SEEN_ERRORS: Final = 4.4
"""Standard errors from which on one of some fifteen tests is below ALPHA after Holm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MinEntropy:
    """Min-entropy of a byte in bits, by each estimator."""

    most_common_byte: float
    """By the most common byte."""
    most_common_bit: float
    """Eight times that of a bit."""
    markov: float
    """Eight times that of a bit by the Markov estimate."""

    @property
    def least(self) -> float:
        """The least of them, which counts (section 3.1.3)."""
        return min(self.most_common_byte, self.most_common_bit, self.markov)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrected:
    """A p-value among all others."""

    name: str
    """The test; of a program, after its name."""
    p_value: float
    """The p-value by itself."""
    adjusted: float
    """The p-value after Holm's correction for all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityReport:
    """Everything that is said of a sample."""

    sample: Sample
    """The bytes."""
    sha256: str
    """Their digest."""
    min_entropy: MinEntropy
    """By our two estimators."""
    ent: EntFigures
    """The figures of ``ent``."""
    bit_planes: tuple[float, ...]
    """Share of ones at each place of a byte, the highest first."""
    tests: tuple[ByteTest, ...]
    """Our tests."""
    programs: tuple[ProgramReport, ...]
    """Those of others."""
    corrected: tuple[Corrected, ...]
    """All p-values together."""

    @property
    def found(self) -> tuple[str, ...]:
        """What speaks against uniform and independent bytes, the gravest first."""
        small = sorted(
            (each for each in self.corrected if each.adjusted < ALPHA),
            key=lambda each: each.adjusted,
        )
        by_rule = [f"{each.program}: {name}" for each in self.programs for name in each.failed]
        return (*(each.name for each in small), *by_rule)

    @property
    def verdict(self) -> str:
        """The verdict in plain words."""
        size, least = len(self.sample.data), self._least()
        if self.found:
            return (
                f"These {size:,} bytes are not uniform and independent: {', '.join(self.found)}. "
                f"{least} A raw device may well be so; refer its bytes to a baseline, or find out "
                "what has changed."
            )
        bias = _SEEN_ERRORS / (2.0 * math.sqrt(8.0 * size))
        return (
            f"Nothing speaks against uniform and independent bytes. {least} A share of ones that "
            f"is off by less than {bias:.2g} would not show in {size:,} bytes."
        )

    def _least(self) -> str:
        least, names = self.min_entropy.least, "2 of the 10 estimators of SP 800-90B"
        for each in self.programs:
            if "min_entropy" in each.figures:
                least, names = min(least, each.figures["min_entropy"]), "all 10 of SP 800-90B"
        return f"Min-entropy is at most {least:.3f} bits a byte by {names}."

    @property
    def not_tested(self) -> tuple[str, ...]:
        """What nobody should conclude from the verdict."""
        return tuple(_not_tested(self))

    def as_data(self) -> dict[str, Any]:
        """Returns the report as JSON-ready values, without the bytes."""
        sample = self.sample
        adjusted = {each.name: each.adjusted for each in self.corrected}
        return {
            "origin": sample.origin,
            "distribution": sample.distribution,
            "conditioning": sample.conditioning,
            "jit_class": sample.jit_class,
            "bytes": len(sample.data),
            "sha256": self.sha256,
            "restarts": len(sample.restarts),
            "min_entropy": {
                **dataclasses.asdict(self.min_entropy),
                "least": self.min_entropy.least,
            },
            "ent": _finite(dataclasses.asdict(self.ent)),
            "bit_planes": list(self.bit_planes),
            "tests": [
                {**dataclasses.asdict(test), "adjusted_p": adjusted[test.name]}
                for test in self.tests
            ],
            "programs": [_program_data(each, adjusted) for each in self.programs],
            "alpha": ALPHA,
            "found": list(self.found),
            "verdict": self.verdict,
            "not_tested": list(self.not_tested),
        }


def quality_report(sample: Sample, programs: Sequence[ProgramReport]) -> QualityReport:
    """Returns the report on a sample.

    Args:
        sample: The bytes.
        programs: What programs of others said of them.
    """
    data = sample.array
    ent = ent_figures(data)
    tests = (*byte_tests(data, ent), *restart_tests(sample.restarts))
    told = [(test.name, test.p_value) for test in tests]
    told += [(_name(each, test), p) for each in programs for test, p in each.p_values.items()]
    adjusted = holm([p for _, p in told])
    return QualityReport(
        sample=sample,
        sha256=hashlib.sha256(sample.data).hexdigest(),
        min_entropy=_min_entropy(sample),
        ent=ent,
        bit_planes=tuple(plane_shares(byte_counts(data).tolist()).tolist()),
        tests=tests,
        programs=tuple(programs),
        corrected=tuple(
            Corrected(name=name, p_value=p, adjusted=after)
            for (name, p), after in zip(told, adjusted, strict=True)
        ),
    )


def _min_entropy(sample: Sample) -> MinEntropy:
    data = sample.array
    ones = bit_counts(data).ones
    return MinEntropy(
        most_common_byte=most_common_value_min_entropy(byte_counts(data).tolist()),
        most_common_bit=8.0 * most_common_value_min_entropy([ones, 8 * len(data) - ones]),
        markov=8.0 * markov_min_entropy(markov_chain_of(data)),
    )


def _name(program: ProgramReport, test: str) -> str:
    return f"{program.program}: {test}"


def _program_data(report: ProgramReport, adjusted: dict[str, float]) -> dict[str, Any]:
    data = dataclasses.asdict(report)
    data["adjusted_p"] = {test: adjusted[_name(report, test)] for test in report.p_values}
    return data


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    """Returns numbers for JSON, which has no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _not_tested(report: QualityReport) -> Iterator[str]:
    sample, judged = report.sample, {e.program for e in report.programs if e.outcome == "judged"}
    yield (
        "Whether anybody could predict the bytes: a seeded generator passes every test here, and "
        "so does what a hash has made of a dead device."
    )
    if sample.conditioning not in ("none", ""):
        yield (
            f"The raw bits: the source says of its conditioning {sample.conditioning!r}, and the "
            "tests saw what came out of it."
        )
    if not sample.conditioning:
        yield "Where the bytes of the file come from, and whether they are raw."
    yield "When the bytes were measured; see the just-in-time class of the source."
    yield "Temperature, age and interference: this was one sample at one time."
    if "ea_non_iid" not in judged:
        yield "Eight of the ten estimators of SP 800-90B, which ea_non_iid has."
    if len(sample.restarts) < 2:
        yield "What the source does after a restart."
    else:
        yield "The restart matrix of SP 800-90B (1,000 restarts), which ea_restart judges."
    for each in report.programs:
        if each.outcome != "judged":
            yield f"What {each.program} would find ({each.outcome}: {each.words})."
