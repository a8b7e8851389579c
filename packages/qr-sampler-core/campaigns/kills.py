# SPDX-License-Identifier: Apache-2.0
"""Kills engines at random points and checks what is left of their ledgers.

Each engine is a process that decodes without a pause and writes a ledger of several files, with a
thread or with a process of its own. It is killed with SIGKILL after a random number of steps; some
writing processes are killed before it. What is left has to be a chain from the first byte on, with
at most the last line unfinished, and has to hold every sequence without a hole up to its end, but
for what it says is missing. The time between a kill and the last token that is on record is
printed. For Linux.

    python campaigns/kills.py --kills 70
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from qr_sampler import EntropySource, Settings
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.testing import ToyHost, check_files
from qr_sampler.testing.toy_host import MOST_RUNNING

STEPS_BETWEEN_ROUNDS = 50
"""Number of steps after which what they have settled is written, so that kills meet that often."""

VICTIMS = ("engine with a thread", "engine with a process", "process, then engine")
"""Who writes the ledger, and who is killed."""

_PR_SET_CHILD_SUBREAPER = 36


class SystemBytes(EntropySource):
    """The operating system's generator, without a guard."""

    name = "bytes"
    blocks = False

    def get_random_bytes(self, n: int) -> bytes:
        """Returns *n* bytes."""
        return os.urandom(n)


def decode(folder: Path, options: dict[str, Any], progress: int, *, busy: bool) -> None:
    """Decodes until it is killed, and writes a byte to *progress* for every step.

    Where a process is to write the ledger, it begins once that is there.
    """
    settings = Settings.load(
        entropy_source_type="bytes",
        sample_count=16,
        max_ks_distance=1,
        log_level="none",
        ledger_dir=folder,
        **options,
    )
    facts = EngineFacts(engine="toy", model="none", busy=busy)
    session = SamplingSession(facts, settings, sources={"bytes": SystemBytes()})
    host = ToyHost(session)
    host.add(1)
    while busy and session.writing_process is None:
        host.flush()
        time.sleep(0.01)
    for step in count(1):
        while len(host.running) < MOST_RUNNING:
            host.add(20)
        host.step()
        os.write(progress, b".")
        if not step % STEPS_BETWEEN_ROUNDS:
            host.keep_up()


def killed(folder: Path, victim: str, script: Random, most_steps: int) -> int:
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
            decode(folder, options, writing, busy=victim != VICTIMS[0])
        finally:
            os._exit(1)
    os.close(writing)
    _let_decode(reading, script.randint(1, most_steps), script)
    if victim == VICTIMS[2]:
        os.kill(_only_child(engine), signal.SIGKILL)
        _let_decode(reading, script.randint(1, most_steps), script)
    os.kill(engine, signal.SIGKILL)
    now_ns = time.monotonic_ns()
    os.close(reading)
    _wait_for_all()
    return now_ns


def _let_decode(progress: int, left: int, script: Random) -> None:
    """Waits for so many steps, and for a moment more."""
    while left > 0:
        done = len(os.read(progress, left))
        if not done:
            raise RuntimeError("the engine has ended by itself")
        left -= done
    time.sleep(script.random() * 0.02)


def _only_child(engine: int) -> int:
    """Returns the process that writes the ledger of *engine*."""
    (child,) = Path(f"/proc/{engine}/task/{engine}/children").read_text("ascii").split()
    return int(child)


def _wait_for_all() -> None:
    """Waits for the engine, and for the process that writes what it was told before."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


def check(lines: Iterable[dict[str, Any]]) -> tuple[int, int]:
    """Returns when the last token on record was drawn, and how many lines are said to be missing.

    Raises:
        AssertionError: When more tokens are missing than the ledger says, or one is there twice.
    """
    positions: dict[str, list[int]] = defaultdict(list)
    latest_ns = 0
    draws: dict[int | None, int] = {}
    missing: Counter[str] = Counter()
    for line in lines:
        if line["kind"] == "gap":
            missing.update(line["missing"])
        if line["kind"] == "draw":
            draws[line["draw"]] = line["t_received_ns"]
        if line["kind"] == "token":
            positions[line["sequence"]].append(line["position"])
            latest_ns = line.get("t_received_ns") or draws[line["draw"]]
    holes = 0
    for sequence, found in positions.items():
        assert found == sorted(set(found)), f"sequence {sequence} is out of order: {found}"
        holes += found[-1] + 1 - len(found)
    assert holes <= missing["token"], f"{holes} tokens are missing, and {missing} is said"
    return latest_ns, missing.total()


def campaign(victim: str, kills: int, seed: int, most_steps: int) -> str:
    """Kills engines; returns what was found."""
    lost_ms: list[float] = []
    files = lines = unfinished = missing = 0
    for number in range(kills):
        script = Random(f"{seed}/{victim}/{number}")
        with TemporaryDirectory() as name:
            killed_ns = killed(Path(name), victim, script, most_steps)
            paths = sorted(Path(name).iterdir())
            found = check_files(paths, torn_end=True)
            latest_ns, said = check(found)
            assert not said or victim == VICTIMS[2], "nothing was refused"
            unfinished += not paths[-1].read_bytes().endswith(b"\n")
        if latest_ns:
            lost_ms.append((killed_ns - latest_ns) / 1e6)
        files += len(paths)
        lines += len(found)
        missing += said
    ages = (
        f"the last token on record is {statistics.median(lost_ms):.0f} ms old in the median, "
        f"{max(lost_ms):.0f} ms at most"
        if lost_ms
        else "none has a token"
    )
    return (
        f"{victim}: {kills} of {kills} ledgers are chained, and without a hole but for what they "
        f"say: {files} files, {lines} lines, {missing} said to be missing, {unfinished} unfinished;"
        f" {ages} ({len(lost_ms)} ledgers have tokens)"
    )


def main() -> int:
    """Runs the campaign; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=70, help="for each kind of victim")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3_000, help="most of them before a kill")
    arguments = parser.parse_args()
    # What an engine leaves behind is to be waited for.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for victim in VICTIMS:
        print(campaign(victim, arguments.kills, arguments.seed, arguments.steps), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
