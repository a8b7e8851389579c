# SPDX-License-Identifier: Apache-2.0
"""Engines on disks that stall, refuse, or turn read-only, without anything put in their place.

A filesystem in a file is frozen by the kernel for half a minute, so that every write blocks, and
another one turns read-only by an error of its own, while an engine decodes without a pause. A
thread of the engine writes its ledger, and then a process of its own does. Its steps have to go on,
its memory has to stay bounded, and what it has left has to be a chain that says how many lines are
missing. With ``QR_LEDGER_REQUIRED`` its requests have to end instead.

It takes the rights to mount, and says so where they are missing.

    python campaigns/disks.py --seconds 30
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer
from typing import Any, Final

from qr_sampler import EntropySource, Settings
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.testing import ToyHost, check_files
from qr_sampler.testing.toy_host import MOST_RUNNING

MEGABYTE: Final = 2**20
QUEUE: Final = 1_024
"""Small, so that it is full long before a disk is back, on a machine that is busy as well."""
REMEMBERED: Final = 1_000
LEAST_PACE: Final = 0.05
"""Share of the steps that a sound disk allows, for one that is in trouble."""
MOST_GROWTH_BYTES: Final = 100 * MEGABYTE
PROGRAMS: Final = ("mount", "umount", "mkfs.ext4", "fsfreeze")


class SystemBytes(EntropySource):
    """The operating system's generator, without a guard."""

    name = "bytes"
    blocks = False

    def get_random_bytes(self, n: int) -> bytes:
        """Returns *n* bytes."""
        return os.urandom(n)


@dataclass
class Decoded:
    """What an engine did while its disk was in trouble."""

    steps: int
    slowest_ms: float
    grown_bytes: int
    """By how much its memory has grown."""
    forced: int
    """Requests that were ended."""


class Disk:
    """An ext4 filesystem in a file, of 64 MB."""

    def __init__(self, folder: Path) -> None:
        self._image = folder / "image"
        self.mounted = folder / "mounted"
        self.mounted.mkdir()
        with self._image.open("wb") as image:
            image.truncate(64 * MEGABYTE)
        run("mkfs.ext4", "-q", str(self._image))
        run("mount", "-o", "loop,errors=remount-ro", str(self._image), str(self.mounted))

    @contextlib.contextmanager
    def frozen_for(self, seconds: float) -> Iterator[None]:
        """Blocks every write for a while, and returns after that."""
        run("fsfreeze", "--freeze", str(self.mounted))
        thaw = Timer(seconds, run, ("fsfreeze", "--unfreeze", str(self.mounted)))
        thaw.start()
        try:
            yield
        finally:
            thaw.join()

    def break_down(self) -> None:
        """Has the kernel meet an error, upon which it allows no more writes."""
        device = next(
            line.split()[0]
            for line in Path("/proc/mounts").read_text("utf-8").splitlines()
            if line.split()[1] == str(self.mounted)
        )
        trigger = Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error")
        trigger.write_text("a drill", "utf-8")

    def close(self) -> None:
        """Unmounts it."""
        run("umount", str(self.mounted))


def run(*command: str) -> None:
    """Runs a program that has to succeed."""
    subprocess.run(command, check=True, capture_output=True)


def missing_rights() -> str:
    """Returns why this machine cannot do it; empty if it can."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"without {', '.join(absent)}"
    with TemporaryDirectory() as name:
        try:
            disk = Disk(Path(name))
        except (OSError, subprocess.CalledProcessError) as error:
            return f"filesystems cannot be mounted here: {error}"
        disk.close()
    return ""


@contextlib.contextmanager
def engine(folder: Path, *, busy: bool, **options: Any) -> Iterator[ToyHost]:
    """Yields an engine that keeps a ledger in *folder*, written by a process if it is *busy*."""
    settings = Settings.load(
        entropy_source_type="bytes",
        sample_count=16,
        max_ks_distance=1,
        log_level="none",
        ledger_dir=folder,
        ledger_queue=QUEUE,
        **options,
    )
    facts = EngineFacts(engine="toy", model="none", busy=busy)
    host = ToyHost(SamplingSession(facts, settings, sources={"bytes": SystemBytes()}))
    host.add(1)
    while busy and host.session.writing_process is None:
        host.flush()
        time.sleep(0.01)
    try:
        yield host
    finally:
        host.close()


def decode(host: ToyHost, until: Callable[[], bool]) -> Decoded:
    """Decodes until *until* says so."""
    decoded = Decoded(0, 0.0, 0, 0)
    began = memory()
    while not until():
        while len(host.running) < MOST_RUNNING:
            host.add(20)
        begun = time.perf_counter()
        host.step()
        decoded.slowest_ms = max(decoded.slowest_ms, 1e3 * (time.perf_counter() - begun))
        decoded.steps += 1
        # The host remembers every request for its tests; memory is to be the session's alone.
        del host.requests[:-REMEMBERED]
    decoded.grown_bytes = memory() - began
    return decoded


def memory() -> int:
    """Returns the largest amount of memory that this process has had, in bytes."""
    return 1_024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def for_seconds(seconds: float) -> Callable[[], bool]:
    """Returns what is false for so many seconds from now on."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def lines_in(folder: Path) -> list[dict[str, Any]]:
    """Returns the lines of the ledger in *folder*, whose chain is checked."""
    return check_files(sorted(folder.glob("*.jsonl")), torn_end=True)


def lost_in(lines: list[dict[str, Any]]) -> Counter[str]:
    """Returns how many lines of each kind gaps tell of."""
    lost: Counter[str] = Counter()
    for line in lines:
        if line["kind"] == "gap":
            lost.update(line["missing"])
    return lost


def stall(disk: Disk, seconds: float, *, busy: bool, required: bool) -> str:
    """Freezes the disk under an engine; returns what happened."""
    folder = disk.mounted / f"required-{required}"
    with engine(folder, busy=busy, ledger_required=required) as host:
        before = decode(host, for_seconds(1.0))
        with disk.frozen_for(seconds):
            during = decode(host, for_seconds(seconds))
        decode(host, for_seconds(1.0))
    lines = lines_in(folder)
    kinds = Counter(line["kind"] for line in lines)
    lost, forced = lost_in(lines), kinds["forced"]
    assert lines[-1]["kind"] == "close", "the ledger has no end"
    assert during.steps > LEAST_PACE * seconds * before.steps, f"steps waited: {during.steps}"
    assert during.grown_bytes < MOST_GROWTH_BYTES, f"memory grew by {during.grown_bytes} bytes"
    if required:
        assert forced, "no request was ended"
        assert not lost["token"], f"{lost['token']} tokens are lost"
    else:
        assert lost["token"], "the queue cannot have held that much"
        assert not forced, "requests were ended"
    return (
        f"stalled for {seconds:g} s, required={required}: {during.steps:,} steps meanwhile, the "
        f"slowest took {during.slowest_ms:.1f} ms; {during.grown_bytes / MEGABYTE:.0f} MB more "
        f"memory; {kinds['token']:,} tokens on record, {lost['token']:,} stated as lost, "
        f"{forced:,} forced ends"
    )


def turn_read_only(disk: Disk, *, busy: bool) -> str:
    """Lets the disk refuse all writes under an engine; returns what happened."""
    folder = disk.mounted / "broken"
    with engine(folder, busy=busy) as host:
        before = decode(host, for_seconds(1.0))
        disk.break_down()
        after = decode(host, for_seconds(1.0))
    try:
        (folder / "probe").touch()
    except OSError as error:
        refusal = str(error.strerror)
    else:
        raise AssertionError("the disk still takes writes")
    kinds = Counter(line["kind"] for line in lines_in(folder))
    assert after.steps > LEAST_PACE * before.steps, f"steps waited: {after.steps}"
    assert kinds["token"] > 0
    return (
        f"read-only in mid-run ({refusal}): {after.steps:,} steps after that, the slowest took "
        f"{after.slowest_ms:.1f} ms; a whole chain of {kinds['token']:,} tokens is left"
    )


def main() -> int:
    """Runs the campaign; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    seconds = parser.parse_args().seconds
    if reason := missing_rights():
        print(f"skipped: {reason}")
        return 0
    for busy in (False, True):
        print("written by", "a process:" if busy else "a thread:")
        drill(seconds, busy=busy)
    return 0


def drill(seconds: float, *, busy: bool) -> None:
    """Lets a disk fail in every way under engines, and prints what happened."""
    with TemporaryDirectory() as name:
        disk = Disk(Path(name))
        try:
            print(stall(disk, seconds, busy=busy, required=False), flush=True)
            print(stall(disk, seconds, busy=busy, required=True), flush=True)
            print(turn_read_only(disk, busy=busy), flush=True)
        finally:
            disk.close()


if __name__ == "__main__":
    sys.exit(main())
