# SPDX-License-Identifier: Apache-2.0
"""What the fuzzing campaigns have in common: shards, verdicts and the report."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

SHARDS = 64
"""Pieces of work with a seed each, so that the cases do not depend on the number of processes."""

SLOWEST_S = 1.0
"""A case takes some ten microseconds; one that takes this long three times hangs."""


@dataclass(frozen=True)
class Fuzzer:
    """Compares what a client makes of broken answers with what it has to make of them."""

    make_case: Callable[[random.Random], Any]
    """Returns a case, with a ``kind`` and a ``size``, that depends on its argument alone."""
    expected: Callable[[Any], bytes | None]
    """Returns the data that a case must yield, or ``None`` where it must be refused."""
    received: Callable[[Any], Any]
    """Returns the client's answer, which has ``data``; ``None`` when it refuses."""

    def verdict(self, case: Any, due: bytes | None) -> str:
        """Returns what is wrong with the client's answer; empty when nothing is."""
        for _ in range(3):
            started_s = time.monotonic()
            answer = self.received(case)
            if time.monotonic() - started_s <= SLOWEST_S:
                break
        else:
            return "it took too long"
        if answer is None:
            return "" if due is None else "a right answer was refused"
        if len(answer.data) != case.size:
            return f"{len(answer.data)} bytes were accepted"
        return "" if answer.data == due else "other bytes were accepted"

    def run_shard(self, seed: int, shard: int, cases: int) -> tuple[Counter[str], list[str]]:
        """Returns how many cases of which kind there were, and what went wrong."""
        rng = random.Random(seed * SHARDS + shard)
        kinds, wrong = Counter[str](), list[str]()
        for _ in range(cases):
            case = self.make_case(rng)
            due = self.expected(case)
            kinds[case.kind + (" refused" if due is None else " accepted")] += 1
            if problem := self.verdict(case, due):
                wrong.append(f"{problem}: {case}")
        return kinds, wrong

    def main(self, description: str) -> int:
        """Runs the campaign and returns the exit status: 1 on any wrong verdict."""
        parser = argparse.ArgumentParser(description=description.split("\n")[0])
        parser.add_argument("--cases", type=int, default=10**6)
        parser.add_argument("--processes", type=int, default=2)
        parser.add_argument("--seed", type=int, default=20_260_101)
        options = parser.parse_args()
        each, started_s = -(-options.cases // SHARDS), time.monotonic()
        kinds, wrong = Counter[str](), list[str]()
        with ProcessPoolExecutor(options.processes) as pool:
            shards = [pool.submit(self.run_shard, options.seed, n, each) for n in range(SHARDS)]
            for shard in shards:
                counted, problems = shard.result()
                kinds, wrong = kinds + counted, wrong + problems
        for kind, count in sorted(kinds.items()):
            print(f"{kind:20s} {count:9,d}")
        for problem in wrong[:20]:
            print(problem, file=sys.stderr)
        total = sum(kinds.values())
        print(f"{total:,} cases, {len(wrong)} wrong, {time.monotonic() - started_s:.0f} s")
        return 1 if wrong else 0
