# SPDX-License-Identifier: Apache-2.0
"""The ledgers that a host really writes hold, whatever it does to its sequences."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from qr_sampler import EntropySource, EntropyUnavailableError, Settings
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.testing import ToyHost, play_script
from qr_sampler_cli.audit.auditor import AuditedRun, audit_runs
from qr_sampler_cli.audit.files import ledgers_of
from qr_sampler_cli.audit.reading.lines import NotALedgerError
from qr_sampler_cli.audit.rungs.emitted import ReceivedTokens


class SeededSource(EntropySource):
    """Hands out the bytes of a generator; now and then it has none.

    Args:
        seed: Of the bytes and of the failures.
        fails: Share of the requests that fail.
    """

    name = "device"
    blocks = False

    def __init__(self, seed: int, fails: float) -> None:
        self._script = Random(seed)
        self._fails = fails
        self.commits = bool(seed % 2)

    def get_random_bytes(self, n: int) -> bytes:
        if self._script.random() < self._fails:
            raise EntropyUnavailableError(self.name, "unplugged")
        return self._script.randbytes(n)


class InterruptedHost(ToyHost):
    """Does something else after fifty steps."""

    midway: Callable[[ToyHost], None] | None = None
    steps = 0

    def step(self, *arguments: Any, **options: Any) -> None:
        self.steps += 1
        if self.steps == 50 and self.midway is not None:
            self.midway(self)
        super().step(*arguments, **options)


def played(
    folder: Path,
    *,
    seed: int,
    fails: float = 0.0,
    overlapping: bool = False,
    midway: Callable[[ToyHost], None] | None = None,
    **settings: Any,
) -> ToyHost:
    """Has a host write a ledger into *folder*; *midway* is called after half of its steps."""
    session = SamplingSession(
        EngineFacts(engine="toy 1.0", model="none"),
        Settings.load(
            entropy_source_type="device",
            fallback_mode="end_request",
            sample_count=16,
            ledger_dir=folder,
            **settings,
        ),
        sources={"device": SeededSource(seed, fails)},
    )
    host = InterruptedHost(session, seed=seed, overlapping=overlapping)
    host.midway = midway
    play_script(host, seed=seed)
    session.close()
    return host


def audited(folder: Path, received: ReceivedTokens | None = None) -> AuditedRun:
    (run,) = audit_runs(ledgers_of([folder]), received=received)
    return run


@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize("fails", [0.0, 0.05])
@pytest.mark.parametrize("seed", range(6))
def test_the_ledger_of_any_script_holds(
    tmp_path: Path, seed: int, fails: float, overlapping: bool
) -> None:
    played(tmp_path, seed=seed, fails=fails, overlapping=overlapping)
    run = audited(tmp_path)
    assert run.tokens > 100
    assert [rung.failures for rung in run.rungs] == [[]] * 6
    whole, complete, in_time, consistent = run.rungs[:4]
    assert [rung.status for rung in (whole, in_time, consistent)] == ["holds"] * 3
    # Forks begin where another sequence was; nothing else is unknown.
    assert [what.partition(" of ")[0] for what in complete.unsaid] in (
        [],
        ["tokens before the first"],
    )


@pytest.mark.parametrize("amplifier", ["bit_zscore", "random_walk", "uniform53", "exact_sum"])
def test_other_amplifiers_are_not_accused(tmp_path: Path, amplifier: str) -> None:
    played(tmp_path, seed=1, signal_amplifier_type=amplifier, max_ks_distance=1.0)
    consistent = audited(tmp_path).rungs[3]
    assert consistent.failures == []
    assert (consistent.status == "holds") == (amplifier == "bit_zscore")


def test_the_tokens_of_whole_answers_are_those_of_the_ledger(tmp_path: Path) -> None:
    host = played(tmp_path, seed=2)
    answers = tmp_path / "answers"
    lines = [
        {"request_key": one.sequence.request_key, "token_ids": one.output[one.first :]}
        for one in host.requests
        if one.sequence is not None and not one.first
    ]
    answers.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    complete = audited(tmp_path, ReceivedTokens(answers)).rungs[1]
    assert complete.failures == []
    lines[3]["token_ids"][-1] += 1
    answers.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert audited(tmp_path, ReceivedTokens(answers)).rungs[1].failed == 2


def test_a_ledger_of_several_files_holds(tmp_path: Path) -> None:
    played(tmp_path, seed=1, ledger_max_bytes=2**16)
    run = audited(tmp_path)
    assert len(run.files) > 3
    assert [rung.failures for rung in run.rungs] == [[]] * 6
    assert run.rungs[0].status == "holds"
    # Every file can be judged without the others, but for what is in these.
    for file in run.files:
        alone = audited(Path(file))
        assert [rung.failures for rung in alone.rungs] == [[]] * 6


def test_a_file_whose_clock_the_disk_has_not_taken_is_the_last(tmp_path: Path) -> None:
    played(tmp_path, seed=1, ledger_max_bytes=2**16)
    last = Path(audited(tmp_path).files[-1])
    genesis = last.read_bytes().split(b"\n")[0] + b"\n"
    last.write_bytes(genesis)
    run = audited(tmp_path)
    assert Path(run.files[-1]) == last
    assert [rung.failures for rung in run.rungs] == [[]] * 6
    assert run.rungs[0].status == "cannot be said"


@pytest.mark.parametrize("left", [0, 100])
def test_a_file_without_a_line_does_not_keep_the_others_from_being_judged(
    tmp_path: Path, left: int
) -> None:
    played(tmp_path, seed=1, ledger_max_bytes=2**16)
    *others, last = map(Path, audited(tmp_path).files)
    os.truncate(last, left)
    run = audited(tmp_path)
    assert [Path(file) for file in run.files] == others
    assert [rung.failures for rung in run.rungs] == [[]] * 6
    assert [rung.status for rung in run.rungs[:2]] == ["cannot be said"] * 2
    for file in others:
        os.truncate(file, left)
    with pytest.raises(NotALedgerError):
        ledgers_of([tmp_path])


@pytest.mark.parametrize("done", ["removed", "moved", "cut"])
def test_what_is_done_to_a_file_while_it_is_written_is_known(tmp_path: Path, done: str) -> None:
    def act(host: ToyHost) -> None:
        host.flush()
        (file,) = tmp_path.glob("*.jsonl")
        if done == "removed":
            file.unlink()
        elif done == "moved":
            file.rename(tmp_path / "elsewhere.jsonl")
        else:
            os.truncate(file, file.stat().st_size // 2)

    played(tmp_path, seed=1, midway=act)
    run = audited(tmp_path)
    assert [rung.failures for rung in run.rungs] == [[]] * 6
    assert [rung.status for rung in run.rungs[:2]] == ["cannot be said"] * 2
    assert len(run.files) == (1 if done == "removed" else 2)


def test_files_in_an_archive_may_be_missing(tmp_path: Path) -> None:
    played(tmp_path, seed=1, ledger_max_bytes=2**16)
    _, second, third, fourth, *_ = audited(tmp_path).files
    Path(second).unlink()
    Path(third).unlink()
    run = audited(tmp_path)
    assert [rung.failures for rung in run.rungs] == [[]] * 6
    assert [rung.status for rung in run.rungs[:2]] == ["cannot be said"] * 2
    assert f"what is in {Path(third).name!r}, which this file continues" in run.rungs[0].unsaid
    # Whatever calls itself the next file continues the one before.
    Path(fourth).rename(second)
    assert audited(tmp_path).rungs[0].status == "fails"


@pytest.mark.parametrize("done", ["removed", "moved"])
def test_a_later_file_that_is_gone_is_known(tmp_path: Path, done: str) -> None:
    def act(host: ToyHost) -> None:
        host.flush()
        (first,) = tmp_path.glob("*.jsonl")
        # A file without an end, so that only gaps tell of what comes after it.
        first.rename(tmp_path / "moved.jsonl")
        host.step()
        host.flush()
        (second,) = tmp_path.glob("*_0002.jsonl")
        if done == "removed":
            second.unlink()
        else:
            second.rename(tmp_path / "elsewhere")

    played(tmp_path, seed=1, midway=act)
    run = audited(tmp_path)
    assert len(run.files) == 2
    assert [rung.failures for rung in run.rungs] == [[]] * 6
    assert [rung.status for rung in run.rungs[:2]] == ["cannot be said"] * 2
    assert f"what was in a file that was {done} while it was being written" in run.rungs[0].unsaid


def test_a_forked_process_has_a_ledger_of_its_own(tmp_path: Path) -> None:
    played(tmp_path, seed=1)
    (file,) = tmp_path.glob("*.jsonl")
    begins, *_ = file.read_bytes().split(b"\n")
    pid = json.loads(begins)["pid"]
    child = file.with_name(f"{file.stem}-fork{pid + 1}_0002.jsonl")
    genesis = begins.replace(b'"pid":%d' % pid, b'"pid":%d' % (pid + 1))
    child.write_bytes(genesis + b"\n")
    parent, forked = audit_runs(ledgers_of([tmp_path]))
    assert parent.run_id == forked.run_id
    assert [rung.failures for run in (parent, forked) for rung in run.rungs] == [[]] * 12
