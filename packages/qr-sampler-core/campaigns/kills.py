# SPDX-License-Identifier: Apache-2.0
"""Kills engines at random points and checks what is left of their ledgers.

Each engine is a process that decodes without a pause and writes a ledger of several files. It is
killed with SIGKILL after a random number of steps. What it has left has to be a chain from the
first byte on, with at most the last line unfinished, and has to hold every sequence without a hole
up to its end. The time between a kill and the last token that is on record is printed.

    python campaigns/kills.py --kills 200
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from qr_sampler import EntropySource, Settings
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.testing import ToyHost, check_files
from qr_sampler.testing.toy_host import MOST_RUNNING

MOST_STEPS = 600
"""Largest number of steps before a kill."""


class SystemBytes(EntropySource):
    """The operating system's generator, without a guard."""

    name = "bytes"
    blocks = False

    def get_random_bytes(self, n: int) -> bytes:
        """Returns *n* bytes."""
        return os.urandom(n)


def decode(folder: Path, options: dict[str, Any], progress: int) -> None:
    """Decodes until it is killed, and writes a byte to *progress* for every step."""
    settings = Settings.load(
        entropy_source_type="bytes",
        sample_count=16,
        max_ks_distance=1,
        log_level="none",
        ledger_dir=folder,
        **options,
    )
    session = SamplingSession(
        EngineFacts(engine="toy", model="none"), settings, sources={"bytes": SystemBytes()}
    )
    host = ToyHost(session)
    while True:
        while len(host.running) < MOST_RUNNING:
            host.add(20)
        host.step()
        os.write(progress, b".")


def killed(folder: Path, script: Random) -> int:
    """Has an engine write to *folder* and kills it; returns when, on the monotonic clock."""
    options = {
        "ledger_max_bytes": script.choice([0, 20_000, 200_000]),
        "ledger_sync_ms": script.choice([0, 1_000]),
    }
    reading, writing = os.pipe()
    engine = os.fork()
    if not engine:
        try:
            os.close(reading)
            decode(folder, options, writing)
        finally:
            os._exit(1)
    os.close(writing)
    left = script.randint(1, MOST_STEPS)
    while left > 0:
        done = len(os.read(reading, left))
        if not done:
            raise RuntimeError("the engine has ended by itself")
        left -= done
    time.sleep(script.random() * 0.02)
    os.kill(engine, signal.SIGKILL)
    now_ns = time.monotonic_ns()
    os.waitpid(engine, 0)
    os.close(reading)
    return now_ns


def check(lines: Iterable[dict[str, Any]]) -> int:
    """Returns when the last token on record was drawn.

    Raises:
        AssertionError: When a sequence has a hole.
    """
    positions: dict[str, list[int]] = defaultdict(list)
    latest_ns = 0
    draws: dict[int | None, int] = {}
    for line in lines:
        assert line["kind"] != "gap", "nothing was refused"
        if line["kind"] == "draw":
            draws[line["draw"]] = line["t_received_ns"]
        if line["kind"] == "token":
            positions[line["sequence"]].append(line["position"])
            latest_ns = line.get("t_received_ns") or draws[line["draw"]]
    for sequence, found in positions.items():
        assert found == list(range(len(found))), f"sequence {sequence} has a hole: {found}"
    return latest_ns


def main() -> int:
    """Runs the campaign; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    lost_ms: list[float] = []
    files = lines = unfinished = 0
    for number in range(arguments.kills):
        script = Random(f"{arguments.seed}/{number}")
        with TemporaryDirectory() as name:
            killed_ns = killed(Path(name), script)
            paths = sorted(Path(name).iterdir())
            found = check_files(paths, torn_end=True)
            latest_ns = check(found)
            unfinished += not paths[-1].read_bytes().endswith(b"\n")
        if latest_ns:
            lost_ms.append((killed_ns - latest_ns) / 1e6)
        files += len(paths)
        lines += len(found)
    print(
        f"{arguments.kills} of {arguments.kills} ledgers are chained and without a hole: "
        f"{files} files, {lines} lines, {unfinished} unfinished lines; "
        f"the last token on record is {statistics.median(lost_ms):.0f} ms old in the median, "
        f"{max(lost_ms):.0f} ms at most ({len(lost_ms)} ledgers have tokens)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
