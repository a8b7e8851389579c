# SPDX-License-Identifier: Apache-2.0
"""Searches for the row from which it takes longest to select a token on the host.

It starts from rows whose tokens crowd and from those of all other kinds, and climbs: whatever
change makes the slowest row of its kind slower is kept. Durations are compared with those of the
usual sampling in torch (softmax, exponential numbers, argmax) and, where vLLM is installed, of its
sampler's own function for the CPU; all take turns, and the shortest of a few runs counts.

    python campaigns/worst_rows.py --seconds 120
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qr_sampler import Rows, SamplingParameters
from qr_sampler.testing.crowded_rows import CROWDED_KINDS, crowded_row
from qr_sampler.testing.selection_cases import LOGIT_KINDS, random_logits
from qr_sampler_accel import host_selector

VOCAB_SIZE = 151_936
REPEATS = 7
Row = NDArray[np.float32]
FILTERS = {"no filter": {}, "typical-p": {"typical_p": 0.9}}


class Selection:
    """Selects from single rows with one set of filters."""

    def __init__(self, filters: dict[str, Any]) -> None:
        self._selector = host_selector()
        self._rows = Rows([SamplingParameters.model_validate(filters)])

    def __call__(self, row: Row, u: float) -> object:
        """Returns the selection from one row."""
        one = np.ones(1)
        measured = self._selector.measure(row[np.newaxis], self._rows, one)
        return self._selector.pick(self._selector.prepare(measured, one), np.array([u]))


def baselines() -> dict[str, Callable[[Any], object]]:
    """Returns the samplers to compare with, by name."""

    def in_torch(logits: Any) -> object:
        noise = torch.empty_like(logits).exponential_()
        return logits.softmax(-1).div_(noise).argmax(-1)

    found: dict[str, Callable[[Any], object]] = {"torch": in_torch}
    try:
        from benchmarks.contenders import VLLMSampler
    except ImportError:
        return found
    return {**found, "vLLM's sampler": VLLMSampler(1)}


def shortest(call: Callable[[], object], repeats: int = REPEATS) -> float:
    """Returns the shortest of a few durations, in microseconds."""
    durations = []
    for _ in range(repeats):
        started = time.perf_counter_ns()
        call()
        durations.append(time.perf_counter_ns() - started)
    return min(durations) / 1e3


def changed(rng: np.random.Generator, row: Row, u: float) -> tuple[Row, float]:
    """Returns a neighbour of a row and of u."""
    row = row.copy()
    start, stop = np.sort(rng.integers(0, row.size + 1, 2))
    match int(rng.integers(6)):
        case 0:
            row[start:stop] = rng.permutation(row)[start:stop]
        case 1:
            row *= np.float32(10.0 ** rng.uniform(-3.0, 0.0))
        case 2:
            row[start:stop] = row[rng.integers(row.size)]
        case 3:
            row[start:stop] += np.float32(rng.normal() * 10.0 ** rng.uniform(-9.0, 1.0))
        case 4:
            row = np.nextafter(row, np.float32(rng.choice([-9.0, 9.0])))
        case _:
            u = float(rng.choice([rng.random(), 1.0 - rng.random() * 1e-9, 1e-12]))
    return (row if np.isfinite(row.max()) else np.zeros_like(row)), u


def climb(
    rng: np.random.Generator, select: Selection, kind: str, until: float
) -> tuple[float, Row, float]:
    """Returns the longest duration found from one kind of row, with the row and the u."""
    make = crowded_row if kind in CROWDED_KINDS else random_logits
    row, u = make(rng, kind, VOCAB_SIZE), 0.5
    longest = shortest(partial(select, row, u))
    while time.monotonic() < until:
        other, place = changed(rng, row, u)
        duration = shortest(partial(select, other, place), 3)
        # What was only disturbed is not kept.
        if duration > longest and (duration := shortest(partial(select, other, place))) > longest:
            longest, row, u = duration, other, place
    return longest, row, u


def main() -> int:
    """Prints the slowest row of every kind, and the worst of all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng, kinds, samplers = (
        np.random.default_rng(options.seed),
        (*CROWDED_KINDS, *LOGIT_KINDS),
        baselines(),
    )
    share = options.seconds / len(kinds) / len(FILTERS)
    for name, filters in FILTERS.items():
        select, worst = Selection(filters), (0.0, "", {})
        select(np.zeros(VOCAB_SIZE, dtype=np.float32), 0.5)
        for kind in kinds:
            _, row, u = climb(rng, select, kind, time.monotonic() + share)
            tensor = torch.from_numpy(row[np.newaxis].copy())
            theirs = {
                each: shortest(partial(call, tensor.clone())) for each, call in samplers.items()
            }
            ours = shortest(partial(select, row, u), 15)
            ratios = {each: round(ours / duration, 2) for each, duration in theirs.items()}
            print(f"{name}, {kind}: {ours:,.0f} us, of others {ratios}", flush=True)
            worst = max(worst, (ours, kind, ratios), key=lambda found: found[0])
        print(f"worst_rows: {name}: {worst[0]:,.0f} us ({worst[1]}), of others {worst[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
