# SPDX-License-Identifier: Apache-2.0
"""However processes end and whatever disks do: ledgers are chained, and say what they lack."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from qr_sampler import Settings
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.records.files import append_file
from qr_sampler.testing import (
    ConstantEntropySource,
    ToyHost,
    ToyRequest,
    chained_lines,
    check_files,
)

CAMPAIGN = Path(__file__).parents[1] / "campaigns" / "kills.py"

PROCESS = """
    import multiprocessing, os, sys
    from pathlib import Path
    from qr_sampler import Settings
    from qr_sampler.host import EngineFacts, SamplingSession
    from qr_sampler.testing import ConstantEntropySource, ToyHost

    def host_in(folder):
        settings = Settings.load(
            entropy_source_type="device", sample_count=4, max_ks_distance=1, ledger_dir=folder
        )
        sources = {"device": ConstantEntropySource(name="device")}
        return ToyHost(SamplingSession(EngineFacts(engine="toy", model="none"), settings,
                                       sources=sources))

    def sample(host, count):
        for _ in range(count):
            host.add(1)
            host.step()
            host.begin_step()
"""
LEAVE = """
    def leave():
        global host
        host = host_in(Path(sys.argv[2]))
        sample(host, 100)

    if __name__ == "__main__":
        if sys.argv[1] == "main":
            leave()
        else:
            child = multiprocessing.get_context(sys.argv[1]).Process(target=leave)
            child.start()
            child.join()
            sys.exit(child.exitcode)
"""
FORK = """
    host = host_in(Path(sys.argv[2]))
    sample(host, 50)
    child = os.fork()
    sample(host, 30 if child else 20)
    host.session.close()
    if child:
        os.waitpid(child, 0)
    else:
        os._exit(0)
"""
FULL = """
    import shutil
    disk, out = Path(sys.argv[1]), Path(sys.argv[2])
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(128 * 1024))
    host = host_in(disk / "records")
    sample(host, 20)
    host.flush()
    while not host.session.status()["records_lost"]:
        sample(host, 20)
        host.flush()
    sample(host, 20)
    host.flush()
    ballast.unlink()
    sample(host, 20)
    host.close()
    shutil.copytree(disk / "records", out)
    print(sum(len(request.output) for request in host.requests))
"""


def run(tmp_path: Path, program: str, *arguments: str) -> Path:
    """Runs *program* in a process of its own; returns the folder of its ledger."""
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(PROCESS) + textwrap.dedent(program), "utf-8")
    folder = tmp_path / "records"
    # A process with threads that forks is warned from Python 3.12 on.
    quiet = ("-W", "ignore:This process:DeprecationWarning")
    done = subprocess.run(
        [sys.executable, *quiet, str(script), *arguments, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return folder


def tokens_in(lines: list[dict[str, Any]]) -> int:
    return Counter(line["kind"] for line in lines)["token"]


@pytest.mark.parametrize("process", ["main", "fork", "spawn"])
def test_a_process_that_leaves_has_written_and_ended_its_ledger(
    process: str, tmp_path: Path
) -> None:
    (file,) = run(tmp_path, LEAVE, process).iterdir()
    lines = chained_lines(file)
    assert tokens_in(lines) == 100
    assert lines[-1]["kind"] == "close"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_leaves_the_records_of_its_parent_alone(tmp_path: Path) -> None:
    folder = run(tmp_path, FORK, "fork")
    (child,) = folder.glob("*-fork*.jsonl")
    (parent,) = set(folder.iterdir()) - {child}
    lines = {path: check_files([path]) for path in (parent, child)}
    assert [tokens_in(lines[path]) for path in (parent, child)] == [80, 20]
    assert lines[child][0]["pid"] != lines[parent][0]["pid"]
    for own in lines.values():
        draws = [line["draw"] for line in own if line["kind"] == "draw"]
        assert draws == list(range(tokens_in(own))), "each numbers its own"


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform != "linux", reason="waits for orphans as Linux allows it")
def test_what_killed_processes_leave_is_chained_and_has_no_holes() -> None:
    done = subprocess.run(
        [sys.executable, str(CAMPAIGN), "--kills=5", "--steps=600"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("5 of 5 ledgers are chained") == 3


def test_a_disk_that_is_really_full_leaves_a_chain_that_says_what_is_missing(
    tmp_path: Path,
) -> None:
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(PROCESS) + textwrap.dedent(FULL), "utf-8")
    disk, out = tmp_path / "disk", tmp_path / "records"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=256k tmpfs {shlex.quote(str(disk))}"
    own_mounts = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*own_mounts, mount]).returncode:
        pytest.skip("needs a file system of its own")
    program = shlex.join([sys.executable, str(script), str(disk), str(out)])
    done = subprocess.run(
        [*own_mounts, f"{mount} && {program}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "No space left on device" in done.stderr
    (file,) = out.iterdir()
    lines = chained_lines(file)
    missing: Counter[str] = sum((Counter(line.get("missing", {})) for line in lines), Counter())
    assert missing["token"] > 0
    assert tokens_in(lines) + missing["token"] == int(done.stdout)
    assert lines[-1]["lost"] == missing.total()


class Disk:
    """Takes everything, or nothing."""

    def __init__(self) -> None:
        self.full = False


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()

    class File(FileIO):
        def write(self, data: Any) -> int:
            if disk.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    monkeypatch.setattr(append_file, "FileIO", File)
    yield disk
    disk.full = False


def host_in(folder: Path, **settings: Any) -> ToyHost:
    checked = Settings.load(
        entropy_source_type="device",
        sample_count=4,
        max_ks_distance=1,
        ledger_dir=folder,
        **settings,
    )
    source = ConstantEntropySource(name="device")
    facts = EngineFacts(engine="toy", model="none")
    return ToyHost(SamplingSession(facts, checked, sources={"device": source}))


def steps(host: ToyHost, count: int) -> None:
    for _ in range(count):
        host.step()
        host.flush()


def texts(requests: list[ToyRequest]) -> list[int]:
    return [len(request.output) for request in requests]


def test_a_disk_that_refuses_costs_records_and_no_tokens(tmp_path: Path, disk: Disk) -> None:
    host = host_in(tmp_path)
    requests = [host.add(30) for _ in range(3)]
    steps(host, 3)
    disk.full = True
    steps(host, 4)
    assert host.session.status()["records_lost"] > 0
    disk.full = False
    steps(host, 4)
    host.close()
    (file,) = tmp_path.iterdir()
    lines = chained_lines(file)
    gaps = [line for line in lines if line["kind"] == "gap"]
    missing = sum((Counter(line["missing"]) for line in gaps), Counter())
    emitted = sum(texts(requests))
    assert emitted == 3 * 11
    assert tokens_in(lines) + missing["token"] == emitted
    assert {line["reason"] for line in gaps} == {"refused"}
    assert host.session.status()["forced_tokens"] == 0
    assert lines[-1]["lost"] == missing.total()


def test_where_records_are_required_requests_end_and_nothing_is_lost(
    tmp_path: Path, disk: Disk
) -> None:
    host = host_in(tmp_path, ledger_required=True)
    requests = [host.add(30) for _ in range(3)]
    steps(host, 3)
    disk.full = True
    steps(host, 4)
    late = host.add(30)
    steps(host, 2)
    assert host.session.status()["last_failure"] is None, "no source is to blame"
    disk.full = False
    # The disk is tried again by itself.
    host.session.write()
    fresh = host.add(30)
    steps(host, 5)
    host.close()
    (file,) = tmp_path.iterdir()
    lines = chained_lines(file)
    kinds = Counter(line["kind"] for line in lines)
    forced = [line for line in lines if line["kind"] == "forced"]
    assert all(request.finished and len(request.output) < 30 for request in [*requests, late])
    assert len(fresh.output) == 5
    assert {line["reason"] for line in forced} == {"ledger"}
    assert kinds["forced"] == 4
    assert kinds["token"] + kinds["forced"] == sum(texts([*requests, late, fresh]))
    assert kinds["gap"] == lines[-1]["lost"] == 0
    assert kinds["sequence"] == 5, "what waits is not told of again"


def test_the_last_words_of_the_files_of_a_run_are_one_chain(tmp_path: Path) -> None:
    host = host_in(tmp_path, ledger_max_bytes=20_000)
    for _ in range(3):
        host.add(100)
    steps(host, 100)
    host.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) > 2
    assert tokens_in(check_files(files)) == sum(texts(host.requests))
