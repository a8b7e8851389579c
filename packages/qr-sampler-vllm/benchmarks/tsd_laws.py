# SPDX-License-Identifier: Apache-2.0
"""What verifying drafts costs on the host, as far as it depends on the vocabulary.

``python -m benchmarks.tsd_laws`` measures the step of the canonical mode from complete logits to
tokens: statistics, temperatures and truncation of all rows, the probabilities of the drafts, the
verdict, the token after the accepted drafts with its residual, and the facts for the records. Not
measured are the model and the request to the source, which do not depend on V.

``--check`` fails where a step takes longer than GATES_MS.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch

from benchmarks.logit_sets import VOCAB_SIZE, logit_set
from benchmarks.timing import Budget, Contender, compare, pin_to_one_cpu
from qr_sampler import EntropyDraw, ReferenceSelector, Rows, SamplingParameters, Selector
from qr_sampler_accel import host_selector
from qr_sampler_tsd import HeadTailLaw, craft_relative_psi
from qr_sampler_vllm.tsd.verification.draft_runs import DraftRun, UniformShare
from qr_sampler_vllm.tsd.verification.judging import RULES, judge_runs
from qr_sampler_vllm.tsd.verification.proposals import Proposal
from qr_sampler_vllm.tsd.verification.step_uniforms import NumbersDraw
from qr_sampler_vllm.tsd.verification.target_laws import TargetLaws

__all__ = ["GATES_MS", "Case", "main", "missed", "table"]

GATES_MS: Final = {1: 2.0, 5: 8.0}
"""By number of rows, the milliseconds that a step may take: one row, or four drafts and the row
after them."""

KINDS: Final = ("typical", "peaked", "flat")
FILTERS: Final[dict[str, dict[str, Any]]] = {
    "none": {},
    "`top_k=50`": {"top_k": 50},
    "`top_p=0.9`": {"top_p": 0.9},
    "`min_p=0.02`, `top_p=0.95`": {"min_p": 0.02, "top_p": 0.95},
}
TEMPERATURE: Final = 0.7
HEAD_TOKENS: Final = 64
BUDGET: Final = Budget(rounds=7, seconds=0.15)
PAGE: Final = Path("docs/tsd/vllm.md")
BEGIN, END = "<!-- laws -->", "<!-- /laws -->"


class Case(NamedTuple):
    """What was measured of one kind of step."""

    filters: str
    """The filters of its rows."""
    verifier: str
    """The rule that judged."""
    rows: int
    """Number of rows."""
    kind: str
    """Kind of the logits."""
    sorted_ms: float
    """Milliseconds with laws that sort every row."""
    ms: float
    """Milliseconds with those of the host's selector."""


class Step:
    """One step of the canonical mode.

    Args:
        logits: Shape ``(B, V)``: B - 1 drafts, and the row after them.
        filters: The filters of all rows.
        verifier: The rule.
        selector: Plans the rows.
    """

    def __init__(
        self, logits: Any, filters: dict[str, Any], verifier: str, selector: Selector[Any, Any]
    ) -> None:
        self._logits, self._selector, self._rule = logits, selector, RULES[verifier]
        parameters = SamplingParameters(fixed_temperature=TEMPERATURE, **filters)
        self._rows = Rows([parameters] * len(logits))
        laws = TargetLaws.of(logits, self._rows, selector)
        self._proposal = Proposal(None, 0)  # type: ignore[arg-type]
        for row in range(len(logits) - 1):
            law = _near(laws.probs(row), row)
            self._proposal.laws.append(law)
            self._proposal.drafts.append(law.select_one(0.3))
        data = np.random.default_rng(len(logits)).bytes(8 * len(logits))
        draw = EntropyDraw(data=data, source="", requested_ns=0, received_ns=0, wall_time_ns=0)
        self._data, self._origin = data, NumbersDraw.of(draw, 0)

    def __call__(self) -> list[int]:
        """Returns the tokens of the step."""
        laws = TargetLaws.of(self._logits, self._rows, self._selector)
        rows = list(range(len(self._logits)))
        run = DraftRun(None, None, self._proposal, laws, rows)  # type: ignore[arg-type]
        share = UniformShare(0, run, self._data, self._origin, 0, [])
        (judged,) = judge_runs(laws, [share], self._rule)
        return judged.tokens


def _near(p: Any, seed: int) -> HeadTailLaw:
    """Returns the law of a proposal that knows p but for some noise."""
    noise = np.random.default_rng(seed).normal(0.0, 0.5, p.size)
    weights = p * np.exp(noise) + 1e-12
    return craft_relative_psi(weights / weights.sum(), HEAD_TOKENS).law()


def measured(filters: str, verifier: str, rows: int, kind: str, budget: Budget = BUDGET) -> Case:
    """Returns what one kind of step costs, the two ways in turns."""
    logits = logit_set(kind, "bfloat16", rows).rows[:rows].numpy()
    steps = {
        name: Step(logits, FILTERS[filters], verifier, selector)
        for name, selector in (("sorted", ReferenceSelector()), ("fast", host_selector()))
    }
    if steps["sorted"]() != steps["fast"]():
        raise RuntimeError(f"{filters}, {verifier}, {rows} {kind} rows: the tokens differ")
    contenders = [Contender(name, lambda _: None, step) for name, step in steps.items()]
    timings = compare(contenders, budget)
    ms = {name: timings.microseconds(name) / 1e3 for name in steps}
    return Case(filters, verifier, rows, kind, ms["sorted"], ms["fast"])


def table(cases: Sequence[Case]) -> Iterator[str]:
    """Yields the lines of a Markdown table: the slowest kind of logits for each step."""
    yield f"| filters | verifier | rows | ms per step | gate | sorting, ms | V = {VOCAB_SIZE:,} |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | --- |"
    for filters, verifier, rows in dict.fromkeys(case[:3] for case in cases):
        slowest = max(
            (case for case in cases if case[:3] == (filters, verifier, rows)),
            key=lambda case: case.ms,
        )
        yield (
            f"| {filters} | {verifier} | {rows} | {slowest.ms:.2f} | {GATES_MS[rows]:g} "
            f"| {slowest.sorted_ms:.0f} | slowest on {slowest.kind} rows |"
        )


def missed(cases: Sequence[Case]) -> list[Case]:
    """Returns the steps that take longer than their gate."""
    return [case for case in cases if case.ms > GATES_MS[case.rows]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; returns 1 when ``--check`` was given and a gate was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when a gate is missed")
    parser.add_argument("--write", nargs="?", type=Path, const=PAGE, metavar="PAGE")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pin_to_one_cpu()
    cases = [
        measured(filters, verifier, rows, kind)
        for filters in FILTERS
        for verifier, rows in (("token", 1), ("token", 5), ("block", 5))
        for kind in KINDS
    ]
    lines = list(table(cases))
    print("\n".join(lines))
    if options.write is not None:
        before, rest = options.write.read_text("utf-8").split(BEGIN)
        after = rest.split(END)[1]
        told = "\n".join([BEGIN, *lines, END])
        options.write.write_text(f"{before}{told}{after}", "utf-8")
    for case in missed(cases):
        print(f"missed: {case}", file=sys.stderr)
    return int(bool(options.check and missed(cases)))


if __name__ == "__main__":
    sys.exit(main())
