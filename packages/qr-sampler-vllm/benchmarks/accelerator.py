# SPDX-License-Identifier: Apache-2.0
"""The step on a CUDA device, where there is one."""

from __future__ import annotations

import warnings
from statistics import median
from typing import Final

import torch

from benchmarks.contenders import FIXED_1, Batch, PluginStep, Step, VLLMSampler
from benchmarks.logit_sets import logit_set
from benchmarks.sources import PreparedSource
from benchmarks.timing import Budget, Contender, compare

__all__ = ["HEADER", "measure_accelerator"]

BATCHES: Final = (64, 256)
HEADER: Final = (
    "rows",
    "plugin, µs",
    "vLLM's sampler, µs",
    "`torch.sort`, µs",
    "host waits",
    "logits ready to request sent, µs",
)


def measure_accelerator(budget: Budget) -> list[tuple[str, ...]]:
    """Returns the rows of a table with the columns HEADER; none without a CUDA device."""
    if not torch.cuda.is_available():
        return []
    rows = logit_set("typical", "float32", max(BATCHES)).rows.to("cuda")
    return [_measured(Batch(rows, size), budget) for size in BATCHES]


def _measured(batch: Batch, budget: Budget) -> tuple[str, ...]:
    size = batch.size
    plugin = PluginStep(FIXED_1, size, PreparedSource())
    steps: dict[str, Step] = {
        "plugin": plugin,
        "native": VLLMSampler(size, device="cuda"),
        "sort": lambda logits: torch.sort(logits, dim=1, descending=True),
    }
    timings = compare(
        [_waiting(batch.contender(name, step)) for name, step in steps.items()], budget
    )
    return (
        str(size),
        *(f"{timings.microseconds(name):,.0f}" for name in steps),
        str(_host_waits(plugin, batch)),
        f"{_microseconds_to_request(plugin, batch):,.0f}",
    )


def _waiting(contender: Contender) -> Contender:
    """Returns *contender*, begun on an idle device and ended when the device has finished."""

    def prepare(iteration: int) -> None:
        contender.prepare(iteration)
        torch.cuda.synchronize()

    def run() -> None:
        contender.run()
        torch.cuda.synchronize()

    return Contender(contender.name, prepare, run)


def _host_waits(plugin: PluginStep, batch: Batch) -> int:
    """Returns how often a step makes the host wait for the device, as torch notices it."""
    batch.refresh(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            plugin(batch.logits)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(each.message) for each in caught)


def _microseconds_to_request(plugin: PluginStep, batch: Batch, steps: int = 20) -> float:
    delays = []
    for iteration in range(steps):
        batch.refresh(iteration)
        step = plugin(batch.logits)
        delays.append((step.draw.requested_ns - step.plan.logits_ready_ns) / 1e3)
    return median(delays)
