# SPDX-License-Identifier: Apache-2.0
"""What choosing a token costs under MLX-LM, beside MLX-LM's own sampler.

The command behind ``uv run nox -s bench_local -- mlx``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import mlx.core as mx
import numpy as np
from mlx_lm.sample_utils import make_sampler

from qr_sampler import Settings
from qr_sampler_local.mlx import MLXSampler

VOCAB_SIZE: Final = 151_936
BATCHES: Final = (1, 8)
TOP_PS: Final = (0.9, 1.0)
SETS: Final = 8
WARM_UP: Final = 5

BOUNDS: Final = {0.9: 0.25, 1.0: 0.8}
"""Largest ratio of our time to MLX-LM's, by top-p; 1 is none."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The median times of one case, in microseconds a step."""

    rows: int
    top_p: float
    ours_us: float
    theirs_us: float

    @property
    def ratio(self) -> float:
        """Ours over theirs."""
        return self.ours_us / self.theirs_us


def main() -> int:
    """Measures, prints a table, and fails where the ratio is larger than it may be."""
    parser = argparse.ArgumentParser(prog="mlx_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=50, help="steps of each, turn and turn about")
    costs = [
        measured(rows, top_p, parser.parse_args().rounds) for rows in BATCHES for top_p in TOP_PS
    ]
    print("| rows | top-p | ours, us a step | MLX-LM's, us a step | ratio | at most |")
    print("| --- | --- | --- | --- | --- | --- |")
    for cost in costs:
        print(
            f"| {cost.rows} | {cost.top_p} | {cost.ours_us:.0f} | {cost.theirs_us:.0f} "
            f"| {cost.ratio:.2f} | {BOUNDS[cost.top_p]} |"
        )
    return 0 if all(cost.ratio <= BOUNDS[cost.top_p] for cost in costs) else 1


def measured(rows: int, top_p: float, rounds: int) -> Cost:
    """Returns the cost of steps of *rows* rows whose logits are computed already."""
    logits = logit_sets(rows)
    logprobs = [each - mx.logsumexp(each, axis=-1, keepdims=True) for each in logits]
    mx.eval(logits, logprobs)
    theirs = make_sampler(temp=1.0, top_p=top_p)
    settings = Settings.load(
        entropy_source_type="system",
        fallback_mode="error",
        temperature_strategy="fixed",
        fixed_temperature=1.0,
        top_p=top_p,
        top_k=0,
        log_level="none",
    )
    with MLXSampler("none", settings) as sampler:
        ours = step_of(sampler, rows, rounds + WARM_UP)

        def our_step(number: int) -> None:
            mx.eval(ours(logits[number % SETS], logprobs[number % SETS]))

        def their_step(number: int) -> None:
            mx.eval(theirs(logprobs[number % SETS]))

        times = alternately((our_step, their_step), rounds)
    return Cost(rows, top_p, *(median(each) * 1e6 for each in times))


def logit_sets(rows: int) -> list[mx.array]:
    """Returns logits of shape ``(rows, V)`` with some forty probable tokens in each row."""
    random = np.random.default_rng(3)
    sets = []
    for _ in range(SETS):
        logits = random.normal(scale=2.5, size=(rows, VOCAB_SIZE)).astype(np.float32)
        logits[:, random.permutation(VOCAB_SIZE)[:40]] += 9.0
        sets.append(mx.array(logits))
    return sets


def step_of(sampler: MLXSampler, rows: int, steps: int) -> Callable[[mx.array, mx.array], mx.array]:
    """Returns a step as MLX-LM makes it: the processor of every row, then the sampler."""
    sequences = [sampler.sequence(end_tokens=(), max_tokens=steps + 1) for _ in range(rows)]
    seen = 0

    def step(logits: mx.array, logprobs: mx.array) -> mx.array:
        nonlocal seen
        seen += 1
        tokens = mx.zeros((seen,), dtype=mx.uint32)
        for row, sequence in enumerate(sequences):
            sequence.read_logits(tokens, logits[row : row + 1])
        return sampler(logprobs)

    return step


def alternately(steps: Sequence[Callable[[int], Any]], rounds: int) -> list[list[float]]:
    """Returns the seconds of *rounds* calls of each step, in turns that change their order."""
    times: list[list[float]] = [[] for _ in steps]
    order = list(enumerate(steps))
    for number in range(rounds + WARM_UP):
        for index, step in order:
            began = time.perf_counter()
            step(number)
            times[index].append(time.perf_counter() - began)
        order.reverse()
    return [each[WARM_UP:] for each in times]


if __name__ == "__main__":
    sys.exit(main())
