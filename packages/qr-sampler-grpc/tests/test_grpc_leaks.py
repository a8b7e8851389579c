# SPDX-License-Identifier: Apache-2.0
"""Draws that fail in every way leave nothing behind; the campaign does it thousands of times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from qr_sampler_grpc.testing.scripted import WAYS

CYCLES = 45
ROUNDS = 3


@pytest.fixture(scope="module")
def leaks(campaign: Callable[[str], ModuleType]) -> ModuleType:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("counts descriptors in /proc, which this system does not have")
    return campaign("leaks_grpc")


@pytest.fixture(scope="module")
def address(leaks: Any) -> Iterator[str]:
    with leaks.far_side() as address:
        yield address


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "stubs"), WAYS)
def test_no_descriptor_no_thread_and_no_memory_is_left(
    leaks: Any, address: str, mode: str, stubs: str
) -> None:
    # Freed memory stays in the heaps of threads, which looks like a leak until it has converged. A
    # leak goes on in every round.
    lines: list[str] = []
    for _ in range(ROUNDS):
        fine, line = leaks.examine(address, mode, stubs, CYCLES)
        if fine:
            return
        lines.append(line)
    pytest.fail("\n".join(lines))


def test_descriptors_that_are_left_are_noticed(leaks: Any) -> None:
    before = leaks.Held.now()
    with ExitStack() as kept:
        # Many, since what draws of other tests have held may go meanwhile.
        for _ in range(leaks.HELD_SLACK + 64):
            kept.enter_context(Path("/proc/self/statm").open("rb"))
        assert not leaks.Held.now().is_within(before, leaks.HELD_SLACK)
    assert leaks.Held.now().is_within(before, leaks.HELD_SLACK)
