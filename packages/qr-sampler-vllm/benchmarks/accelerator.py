# SPDX-License-Identifier: Apache-2.0
"""The step on a CUDA device, where there is one, next to vLLM's own sampler.

Part of ``uv run nox -s bench``. In an environment with a CUDA build of vLLM and this repository's
packages, ``python -m benchmarks.accelerator`` prints this part alone; the directory of the package
has to be on the path. ``--device cpu`` tries out the script where there is no GPU.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, Final
from unittest import mock

import torch

from benchmarks import page
from benchmarks.contenders import EDT, FILTERS, FIXED_1, Batch, PluginStep, Step, VLLMSampler
from benchmarks.logit_sets import logit_set
from benchmarks.sources import PreparedSource
from benchmarks.timing import Budget, Contender, compare
from qr_sampler.arrays import FloatArray
from qr_sampler.settings import SamplingParameters
from qr_sampler_accel.device.transfer import Download

__all__ = ["HEADER", "main", "measure_accelerator"]

BATCHES: Final = (1, 16, 64, 256)
HEADER: Final = (
    "rows",
    "step",
    "plugin, µs",
    "vLLM's sampler, µs",
    "plugin / vLLM",
    "`torch.sort`, µs",
    "host waits",
    "requests to the driver for memory",
    "logits ready to request sent, µs",
)
BUDGET: Final = Budget(rounds=5, seconds=0.3, most_iterations=300)
WATCHED_STEPS: Final = 20


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of step, and the filters that vLLM's sampler has to apply as well."""

    name: str
    """As in the table."""
    parameters: SamplingParameters
    """What the requests ask for."""
    filters: dict[str, Any]
    """Arguments of :class:`VLLMSampler`."""


KINDS: Final = (
    Kind("fixed temperature 1", FIXED_1, {}),
    Kind("`edt`", EDT, {}),
    Kind("`top_k=50`, `top_p=0.9`", FIXED_1.model_copy(update=FILTERS), FILTERS),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table, or why there is none; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accelerator", description=__doc__)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--rows", type=int, nargs="+", default=list(BATCHES))
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print(page.NO_ACCELERATOR)
        return 0
    with torch.inference_mode():
        rows = _measured_rows(options.device, options.rows, BUDGET)
    print(torch.cuda.get_device_name() if options.device == "cuda" else "CPU: a trial only")
    print(page.table(HEADER, rows))
    return 0


def measure_accelerator(budget: Budget) -> list[tuple[str, ...]]:
    """Returns the rows of a table with the columns HEADER; none without a CUDA device."""
    if not torch.cuda.is_available():
        return []
    return _measured_rows("cuda", BATCHES, budget)


def _measured_rows(device: str, sizes: Sequence[int], budget: Budget) -> list[tuple[str, ...]]:
    rows = logit_set("typical", "float32", max(sizes)).rows.to(device)
    return [_measured(Batch(rows, size), kind, budget) for size in sizes for kind in KINDS]


def _measured(batch: Batch, kind: Kind, budget: Budget) -> tuple[str, ...]:
    size, device = batch.size, str(batch.logits.device.type)
    plugin = PluginStep(kind.parameters, size, PreparedSource())
    steps: dict[str, Step] = {
        "plugin": plugin,
        "native": VLLMSampler(size, device=device, **kind.filters),
        "sort": lambda logits: torch.sort(logits, dim=1, descending=True),
    }
    timings = compare(
        [_waiting(batch.contender(name, step), device) for name, step in steps.items()], budget
    )
    watched = _watched(plugin, batch, device)
    return (
        str(size),
        kind.name,
        *(f"{timings.microseconds(name):,.0f}" for name in ("plugin", "native")),
        f"{timings.ratio('plugin', 'native'):.2f}",
        f"{timings.microseconds('sort'):,.0f}",
        *watched,
    )


def _waiting(contender: Contender, device: str) -> Contender:
    """Returns *contender*, begun on an idle device and ended when the device has finished."""

    def prepare(iteration: int) -> None:
        contender.prepare(iteration)
        _synchronize(device)

    def run() -> None:
        contender.run()
        _synchronize(device)

    return Contender(contender.name, prepare, run)


def _watched(plugin: PluginStep, batch: Batch, device: str) -> tuple[str, str, str]:
    """Returns waits and requests for memory per step, and the delay of the request.

    Between two steps the outcome is read, as a runner does that writes records.
    """
    waits, memory, delays = [], [], []
    for iteration in range(WATCHED_STEPS):
        batch.refresh(iteration)
        _synchronize(device)
        before = _requests_for_memory(device)
        with _counted_waits(device) as count:
            step = plugin(batch.logits)
        waits.append(len(count))
        memory.append(_requests_for_memory(device) - before)
        delays.append((step.draw.requested_ns - step.plan.logits_ready_ns) / 1e3)
        step.selection.token_ids.tolist()
    return f"{max(waits)}", f"{max(memory)}", f"{median(delays):,.0f}"


@contextmanager
def _counted_waits(device: str) -> Iterator[list[str]]:
    """Yields a list that grows whenever the host waits for the device, as far as torch knows."""
    count: list[str] = []
    wait = Download.wait

    def counted(download: Download) -> FloatArray:
        count.append("download")
        return wait(download)

    with (
        mock.patch.object(Download, "wait", counted),
        warnings.catch_warnings(record=True) as caught,
        _sync_warnings(device),
    ):
        warnings.simplefilter("always")
        yield count
    count += [str(each.message) for each in caught if "synchroniz" in str(each.message)]


@contextmanager
def _sync_warnings(device: str) -> Iterator[None]:
    """Makes torch warn of operations that wait for the device."""
    if device != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("warn")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _requests_for_memory(device: str) -> int:
    """Returns how often torch has asked the driver for memory so far."""
    return int(torch.cuda.memory_stats()["segment.all.allocated"]) if device == "cuda" else 0


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())
