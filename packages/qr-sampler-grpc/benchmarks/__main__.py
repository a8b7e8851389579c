# SPDX-License-Identifier: Apache-2.0
"""The command behind ``uv run nox -s bench_transport``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.far_side import FarSide
from benchmarks.matrix import BLOCK_BYTES, concurrent_unary, measure, paths
from benchmarks.report import gates, tables


def main() -> int:
    """Measures, prints the tables and the targets, and fails when a target is missed."""
    parser = argparse.ArgumentParser(prog="bench_transport", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="the median of so many counts")
    parser.add_argument("--draws", type=int, default=300, help="draws of one block per round")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="qr") as folder, FarSide(Path(folder)) as far_side:
        measured = measure(paths(far_side), arguments.rounds, arguments.draws)
        concurrent = concurrent_unary(far_side, arguments.rounds)
    outcomes = gates(measured, concurrent)
    print(f"\none block: {BLOCK_BYTES} bytes; median of {arguments.rounds} rounds\n")
    print(tables(measured, concurrent), end="\n\n")
    for outcome in outcomes:
        print(outcome)
    if arguments.json:
        facts = {
            "latency_us": [one.as_dict() for one in measured],
            "concurrent_unary_us": concurrent,
            "targets": [outcome.as_dict() for outcome in outcomes],
        }
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    return 0 if all(outcome.met for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
