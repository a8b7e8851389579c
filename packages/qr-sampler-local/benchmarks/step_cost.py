# SPDX-License-Identifier: Apache-2.0
"""Where the processor time of a step goes: selection, source, the rest of sampling, overhead."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np

from qr_sampler import EntropySource, Settings
from qr_sampler_local import LocalSampler
from qr_sampler_local.loop.access import ReadLogits

__all__ = ["BATCHES", "StepCost", "measure"]

BATCHES: Final = (1, 8, 32)
"""Numbers of rows of a step."""

BLOCK_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class StepCost:
    """What a step costs the thread that makes it, in microseconds, the median over rounds."""

    rows: int
    """Number of rows of the step."""
    ledger: bool
    """Whether records are written."""
    selection_us: float
    """Statistics of the logits, filters, and the choice of the tokens."""
    source_us: float
    """The guarded draw."""
    sampling_us: float
    """What else a step of the core does: temperatures, and bytes into numbers."""
    overhead_us: float
    """Everything else: reading the logits, sequences, and handing over what is to be recorded."""


class Prepared(EntropySource):
    """Hands out bytes that it has made before."""

    name = "prepared"
    blocks = False
    conditioning = "chosen"
    min_entropy_per_byte = 0.0

    def __init__(self, rows: int) -> None:
        self._data = np.random.default_rng(0).bytes(BLOCK_BYTES * rows)

    def get_random_bytes(self, n: int) -> bytes:
        """Returns the same bytes every time."""
        return self._data[:n]


class Watch:
    """Adds up the processor time that a thread spends in certain calls."""

    def __init__(self) -> None:
        self.spent_s: dict[str, float] = {}

    def timed(self, what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Returns *call*, whose time counts as *what*."""
        self.spent_s[what] = 0.0

        def timed(*arguments: Any) -> Any:
            began_s = time.thread_time()
            result = call(*arguments)
            self.spent_s[what] += time.thread_time() - began_s
            return result

        return timed

    def begin(self) -> None:
        """Forgets what has been spent."""
        self.spent_s = dict.fromkeys(self.spent_s, 0.0)


class TimedPart:
    """Stands in for a selector or a source; some of its calls are timed."""

    def __init__(self, watch: Watch, what: str, part: Any, *calls: str) -> None:
        self._part = part
        for name in calls:
            setattr(self, name, watch.timed(f"{what}.{name}", getattr(part, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)


def measure(rounds: int, vocab_size: int, steps: int) -> list[StepCost]:
    """Returns the cost for each batch with and without a ledger, measured turn and turn about.

    Args:
        rounds: The median of so many counts.
        vocab_size: Number of columns V of the logits.
        steps: Number of steps of a round with a single row; fewer with more rows.
    """
    cases = [(rows, ledger) for rows in BATCHES for ledger in (False, True)]
    found: dict[tuple[int, bool], list[StepCost]] = {case: [] for case in cases}
    for turn in range(rounds + 1):
        for rows, ledger in cases[turn % len(cases) :] + cases[: turn % len(cases)]:
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder) if ledger else None
                cost = _one_round(rows, max(steps // rows, 10), vocab_size, place)
            # The first round warms up.
            if turn:
                found[rows, ledger].append(cost)
    return [_median(costs) for costs in found.values()]


def _one_round(rows: int, steps: int, vocab_size: int, ledger_dir: Path | None) -> StepCost:
    """Returns what each of some steps costs on average."""
    settings = Settings.load(
        entropy_source_type=Prepared.name,
        sample_count=BLOCK_BYTES,
        max_ks_distance=1.0,
        ledger_dir=ledger_dir,
    )
    logits = np.random.default_rng(1).normal(0.0, 3.0, (rows, vocab_size)).astype(np.float32)
    with _watched() as watch, LocalSampler("none", settings, sources=[Prepared(rows)]) as sampler:
        sequences = [sampler.sequence(request_key=f"text {row}") for row in range(rows)]
        for _ in range(5):
            sampler.step(logits, sequences)
        watch.begin()
        began_s = time.thread_time()
        for _ in range(steps):
            sampler.step(logits, sequences)
        whole_s = time.thread_time() - began_s
        spent = {what: 1e6 * spent_s / steps for what, spent_s in watch.spent_s.items()}
    inside = spent.pop("sample")
    source = spent.pop("source.draw")
    selection = sum(spent.values())
    return StepCost(
        rows,
        ledger_dir is not None,
        selection,
        source,
        inside - selection - source,
        1e6 * whole_s / steps - inside,
    )


@contextmanager
def _watched() -> Iterator[Watch]:
    """Times what samplers do inside their steps."""
    watch, pipeline_of, sample = Watch(), ReadLogits.pipeline, ReadLogits.sample

    def pipeline(*arguments: Any) -> Any:
        made = pipeline_of(*arguments)
        calls = ("measure", "prepare", "pick")
        made.planner.selector = TimedPart(watch, "selector", made.planner.selector, *calls)
        made.source = TimedPart(watch, "source", made.source, "draw")  # type: ignore[assignment]
        return made

    timed = watch.timed("sample", sample)
    with (
        patch.object(ReadLogits, "pipeline", pipeline),
        patch.object(ReadLogits, "sample", lambda *arguments: timed(*arguments)),
    ):
        yield watch


def _median(costs: list[StepCost]) -> StepCost:
    first = costs[0]
    return StepCost(
        first.rows,
        first.ledger,
        *(
            statistics.median(getattr(cost, name) for cost in costs)
            for name in ("selection_us", "source_us", "sampling_us", "overhead_us")
        ),
    )
