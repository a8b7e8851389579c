# SPDX-License-Identifier: Apache-2.0
"""Counts the large allocations of a step, among Python and NumPy and within torch."""

from __future__ import annotations

import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import torch

__all__ = ["large_allocations"]

LARGE_BYTES: Final = 64 * 1024

WARM_UPS: Final = 3


def large_allocations(step: Callable[[], object], prepare: Callable[[], None]) -> Counter[str]:
    """Returns how often each line of code or torch operation allocates more than 64 KiB.

    Memory that is given back at once counts too.

    Args:
        step: The step; called a few times before it is watched.
        prepare: Called before each step and not watched.
    """
    for _ in range(WARM_UPS):
        prepare()
        step()
    prepare()
    found = _traced(step)
    prepare()
    return found + _profiled(step)


def _traced(step: Callable[[], object]) -> Counter[str]:
    """Watches the peak of traced memory around every bytecode, which makes one call at most."""
    watch = _Watch()
    tracemalloc.start()
    previous = sys.gettrace()
    sys.settrace(watch)
    try:
        step()
    finally:
        sys.settrace(previous)
        tracemalloc.stop()
    return watch.found


class _Watch:
    """A trace function that notes bytecodes during which traced memory grew a lot."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self._before = 0
        self._place = ""

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        _, peak = tracemalloc.get_traced_memory()
        if self._place and peak - self._before > LARGE_BYTES:
            self.found[self._place] += 1
        frame.f_trace_opcodes = True
        self._place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        # Last, so that what this function allocates itself is not counted.
        tracemalloc.reset_peak()
        self._before, _ = tracemalloc.get_traced_memory()
        return self


def _profiled(step: Callable[[], object]) -> Counter[str]:
    """Watches torch's own allocator, which tracemalloc does not see."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        step()
    large = [each for each in profile.events() if each.self_cpu_memory_usage > LARGE_BYTES]
    return Counter(f"torch, {each.name}" for each in large)
