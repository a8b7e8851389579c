# SPDX-License-Identifier: Apache-2.0
"""Searches for the row from which it takes longest to select a token on the host.

It starts from rows whose tokens crowd, from regular ones and from those of all other kinds, and
climbs: whatever change of the row, the temperature or u makes the slowest row of its kind slower is
kept. Durations are divided by what vLLM's sampler, or the same operations in torch where vLLM is
not installed, takes for a row of normal logits. Both take turns, and the shortest of a few runs
counts, so that what else the machine does is left out.

    python campaigns/worst_rows.py --seconds 120
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from qr_sampler import Rows, SamplingParameters
from qr_sampler.testing.crowded_rows import CROWDED_KINDS, crowded_row
from qr_sampler.testing.selection_cases import LOGIT_KINDS, random_logits
from qr_sampler_accel import host_selector

VOCAB_SIZE = 151_936
REPEATS = 9
TEMPERATURES = (0.1, 0.7, 1.0, 5.0)
REGULAR_KINDS = ("sawtooth", "sorted", "steps", "two levels")
FILTERS = {
    "no filter": {},
    "top-k": {"top_k": 90_000},
    "top-p": {"top_p": 0.9},
    "min-p": {"min_p": 0.02},
    "top-n-sigma": {"top_n_sigma": 1.0},
    "typical-p": {"typical_p": 0.9},
    "typical-p after top-k": {"typical_p": 0.9, "top_k": 90_000},
}
Row = NDArray[np.float32]


class Case(NamedTuple):
    """What a token is selected from."""

    row: Row
    """The logits."""
    temperature: float
    """T."""
    u: float
    """In (0, 1)."""


class Found(NamedTuple):
    """A slow case of one kind."""

    ratio: float
    """Its duration, divided by that of the sampler in use."""
    duration_us: float
    """Its duration."""
    kind: str
    """What it was made from."""
    case: Case
    """The case."""


class Selection:
    """Selects from single rows with one set of filters."""

    def __init__(self, filters: dict[str, Any]) -> None:
        self._selector = host_selector()
        self._rows = Rows([SamplingParameters.model_validate(filters)])

    def __call__(self, case: Case) -> object:
        """Returns the selection."""
        temperature = np.array([case.temperature])
        measured = self._selector.measure(case.row[np.newaxis], self._rows, temperature)
        plan = self._selector.prepare(measured, temperature)
        return self._selector.pick(plan, np.array([case.u]))


def usual_sampling() -> tuple[str, Callable[[], object]]:
    """Returns name and call of the sampler to compare with."""
    logits = torch.randn((1, VOCAB_SIZE), generator=torch.Generator().manual_seed(1))

    def in_torch() -> object:
        noise = torch.empty_like(logits).exponential_()
        return logits.softmax(-1).div_(noise).argmax(-1)

    try:
        from benchmarks.contenders import VLLMSampler
    except ImportError:
        return "softmax, exponential numbers and argmax in torch", in_torch
    sampler = VLLMSampler(1)
    return "vLLM's sampler", lambda: sampler(logits.clone())


def shortest(*calls: Callable[[], object], repeats: int = REPEATS) -> list[float]:
    """Returns the shortest of a few durations of each call, in microseconds. They take turns."""
    durations: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for place, call in enumerate(calls):
            started = time.perf_counter_ns()
            call()
            durations[place].append(time.perf_counter_ns() - started)
    return [min(each) / 1e3 for each in durations]


def first_row(rng: np.random.Generator, kind: str) -> Row:
    """Returns a row of one kind."""
    if kind in CROWDED_KINDS:
        return crowded_row(rng, kind, VOCAB_SIZE)
    if kind in LOGIT_KINDS:
        return random_logits(rng, kind, VOCAB_SIZE)
    places, height = np.arange(VOCAB_SIZE), 10.0 ** rng.uniform(-7.0, 1.5)
    period = int(10.0 ** rng.uniform(0.3, 5.0))
    rows = {
        "sawtooth": height * (places % period) / period,
        "sorted": height * np.sort(rng.normal(size=VOCAB_SIZE))[:: rng.choice([-1, 1])],
        "steps": height * (places // period) / (VOCAB_SIZE // period + 1),
        "two levels": height * (places % period < 0.5 * period),
    }
    return rows[kind].astype(np.float32)


def changed(rng: np.random.Generator, case: Case) -> Case:
    """Returns a neighbour of a case."""
    row, temperature, u = case.row.copy(), case.temperature, case.u
    start, stop = np.sort(rng.integers(0, row.size + 1, 2))
    match int(rng.integers(8)):
        case 0:
            row[start:stop] = rng.permutation(row)[start:stop]
        case 1:
            row *= np.float32(10.0 ** rng.uniform(-3.0, 0.5))
        case 2:
            row[start:stop] = row[rng.integers(row.size)]
        case 3:
            row[start:stop] += np.float32(rng.normal() * 10.0 ** rng.uniform(-9.0, 1.0))
        case 4:
            row = np.nextafter(row, np.float32(rng.choice([-9.0, 9.0])))
        case 5:
            row = row[np.arange(row.size) % rng.integers(2, 2_000)]
        case 6:
            temperature = float(rng.choice(TEMPERATURES))
        case _:
            u = float(rng.choice([rng.random(), 1.0 - rng.random() * 1e-9, 1e-12]))
    return Case(row if np.isfinite(row.max()) else np.zeros_like(row), temperature, u)


def climb(
    rng: np.random.Generator,
    select: Selection,
    usual: Callable[[], object],
    kind: str,
    until: float,
) -> Found:
    """Returns the slowest case found from one kind of row."""
    case = Case(first_row(rng, kind), 1.0, 0.5)
    (longest,) = shortest(partial(select, case))
    while time.monotonic() < until:
        other = changed(rng, case)
        (duration,) = shortest(partial(select, other), repeats=3)
        # What was only disturbed is not kept.
        if duration > longest and (again := shortest(partial(select, other))[0]) > longest:
            longest, case = again, other
    ours, theirs = shortest(partial(select, case), usual, repeats=4 * REPEATS)
    return Found(ours / theirs, ours, kind, case)


def main() -> int:
    """Prints the slowest row of every kind, and the worst of all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng, (sampler, usual) = np.random.default_rng(options.seed), usual_sampling()
    kinds = (*CROWDED_KINDS, *REGULAR_KINDS, *LOGIT_KINDS)
    share = options.seconds / len(kinds) / len(FILTERS)
    for name, filters in FILTERS.items():
        select, found = Selection(filters), []
        select(Case(np.zeros(VOCAB_SIZE, dtype=np.float32), 1.0, 0.5))
        for kind in kinds:
            found.append(climb(rng, select, usual, kind, time.monotonic() + share))
            ratio, duration, _, case = found[-1]
            print(
                f"{name}, {kind}: {duration:,.0f} us, {ratio:.2f} of {sampler},"
                f" at temperature {case.temperature} and u = {case.u:.3g}",
                flush=True,
            )
        worst = max(found, key=lambda each: each.ratio)
        print(
            f"worst_rows: {name}: {worst.ratio:.2f} of {sampler}, {worst.duration_us:,.0f} us"
            f" ({worst.kind})",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
