# SPDX-License-Identifier: Apache-2.0
"""The processor time that a token takes in steps, and in what is written behind them."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.prepared import BLOCK_BYTES, PreparedLogits, PreparedSource
from qr_sampler import Settings
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.testing import ToyHost

__all__ = ["BATCHES", "HostCost", "measure"]

BATCHES: Final = (1, 32, 256)
"""Numbers of rows of a step."""

WRITES_EVERY: Final = 1_000
"""Number of tokens after which what steps have handed over is written."""

VOCAB_SIZE: Final = 16


@dataclass(frozen=True, slots=True)
class HostCost:
    """What a token costs in microseconds, the median over rounds."""

    rows: int
    """Number of rows of a step."""
    ledger: bool
    """Whether records are written."""
    step_us: float
    """What steps take."""
    write_us: float
    """What the thread behind them takes: lines, their chain, the disk's calls and the status."""


def measure(rounds: int, tokens: int) -> list[HostCost]:
    """Returns the cost for each batch with and without a ledger, measured turn and turn about.

    Args:
        rounds: The median of so many counts.
        tokens: About how many tokens are generated in a round.
    """
    cases = [(rows, ledger) for rows in BATCHES for ledger in (False, True)]
    found: dict[tuple[int, bool], list[tuple[float, float]]] = {case: [] for case in cases}
    for turn in range(rounds + 1):
        for rows, ledger in cases[turn % len(cases) :] + cases[: turn % len(cases)]:
            with tempfile.TemporaryDirectory() as folder:
                cost = _one_round(rows, tokens // rows, Path(folder) if ledger else None)
            # The first round warms up.
            if turn:
                found[rows, ledger].append(cost)
    return [
        HostCost(
            rows,
            ledger,
            statistics.median(step for step, _ in costs),
            statistics.median(write for _, write in costs),
        )
        for (rows, ledger), costs in found.items()
    ]


def _one_round(rows: int, steps: int, ledger_dir: Path | None) -> tuple[float, float]:
    """Returns the microseconds per token that steps take, and that writing takes."""
    settings = Settings.load(
        entropy_source_type="prepared",
        sample_count=BLOCK_BYTES,
        max_ks_distance=1.0,
        ledger_dir=ledger_dir,
    )
    session = SamplingSession(
        EngineFacts(engine="toy", model="none"),
        settings,
        access=PreparedLogits(),
        sources={"prepared": PreparedSource(rows)},
    )
    host = ToyHost(session)
    for number in range(rows):
        host.add(steps + 10, request_key=f"request {number}")
    logits = np.zeros((rows, VOCAB_SIZE), np.float32)
    host.step(logits)
    host.flush()
    step_s = 0.0
    began_s, waited_s = time.process_time(), time.thread_time()
    for number in range(1, steps + 1):
        step_began_s = time.thread_time()
        host.step(logits)
        step_s += time.thread_time() - step_began_s
        if number % max(WRITES_EVERY // rows, 1) == 0 or number == steps:
            host.flush()
    # What the thread that writes has taken, and nothing of what this one has.
    write_s = time.process_time() - began_s - (time.thread_time() - waited_s)
    host.close()
    return 1e6 * step_s / steps / rows, 1e6 * write_s / steps / rows
