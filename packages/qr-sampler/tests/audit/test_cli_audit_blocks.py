# SPDX-License-Identifier: Apache-2.0
"""With the bytes of draws beside a ledger, rung 4 judges all that was made of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qr_sampler import EntropySource, Settings
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.testing import ToyHost, play_script
from qr_sampler_cli.audit.auditor import audit_runs
from qr_sampler_cli.audit.blocks import amplifiers
from qr_sampler_cli.audit.blocks.numbers import judge_numbers
from qr_sampler_cli.audit.files import ledgers_of
from qr_sampler_cli.audit.findings import Rung

Pieces = list[tuple[int, bytes]]
PAGE = Path(__file__).resolve().parents[4] / "docs" / "ledger.md"
MAGIC = b"QRBLOCKS1\n"
UNSAID = "the bytes of draws that are not among those beside the ledger"


def piece_of(number: int, data: bytes) -> bytes:
    return number.to_bytes(8, "big") + len(data).to_bytes(8, "big") + data


def file_of(pieces: Pieces) -> bytes:
    return MAGIC + b"".join(piece_of(number, data) for number, data in pieces)


class Kept:
    """A ledger with the bytes of its draws, both made from the specification."""

    def __init__(self, run: Any, save: Any, audit: Any) -> None:
        self._audit = audit
        self.run = run(3)
        self.lines = self.run.whole()
        self.save = save
        self.path = save(self.lines)
        self.blocks = self.path.with_suffix(".blocks")
        self.pieces: Pieces = list(enumerate(self.run.data))

    def audited(self, data: bytes | None = None) -> Any:
        """Returns rung 4 with *data* as the file of blocks, or without any."""
        if data is not None:
            self.blocks.write_bytes(data)
        return self._audit(self.path)[4]

    def edited(self, **changes: Any) -> Any:
        """Returns rung 4 with the first token changed and the chain computed anew."""
        lines = [dict(line) for line in self.lines]
        token = next(line for line in lines if line["kind"] == "token")
        token.update(changes)
        self.path = self.save(lines)
        return self.audited(file_of(self.pieces))

    def place(self, draw: int) -> str:
        """Returns where the line of a draw stands."""
        kinds = [(line["kind"], line.get("draw")) for line in self.lines]
        return f"{self.path}:{kinds.index(('draw', draw)) + 1}"


@pytest.fixture
def kept(run: Any, save: Any, audit: Any) -> Kept:
    return Kept(run, save, audit)


def test_an_honest_ledger_holds(kept: Kept) -> None:
    rung = kept.audited(file_of(kept.pieces))
    assert rung.status == "holds"
    assert rung.notes == [f"data_sha256 of {len(kept.pieces)} draws is that of their bytes"]


def test_without_the_file_it_is_as_ever(kept: Kept) -> None:
    rung = kept.audited()
    assert rung.status == "holds"
    assert "not compared" in rung.notes[0]


def test_a_changed_byte_is_found_at_its_draw(kept: Kept) -> None:
    number, data = kept.pieces[2]
    kept.pieces[2] = (number, data[:-1] + bytes([data[-1] ^ 1]))
    rung = kept.audited(file_of(kept.pieces))
    (failure,) = rung.failures
    assert failure.where == kept.place(2)
    assert "data_sha256" in failure.what


def test_another_length_is_found_at_its_draw(kept: Kept) -> None:
    number, data = kept.pieces[2]
    kept.pieces[2] = (number, data + b"!")
    (failure,) = kept.audited(file_of(kept.pieces)).failures
    assert failure.where == kept.place(2)
    assert f"{len(data) + 1}" in failure.what


def test_a_torn_end_leaves_doubt_at_any_byte(kept: Kept) -> None:
    data = file_of(kept.pieces)
    for length in [*range(30), *range(len(data) - 60, len(data))]:
        rung = kept.audited(data[:length])
        assert rung.status == "cannot be said", length
        assert UNSAID in rung.unsaid


def test_bytes_that_were_taken_out_leave_doubt(kept: Kept) -> None:
    del kept.pieces[2]
    rung = kept.audited(file_of(kept.pieces))
    assert rung.status == "cannot be said"
    assert rung.unsaid[UNSAID].where == kept.place(2)


@pytest.mark.parametrize(
    "change",
    [
        lambda pieces: pieces.insert(2, pieces[1]),
        lambda pieces: pieces.insert(4, (999, b"more")),
        lambda pieces: pieces.append((999, b"more")),
        lambda pieces: pieces.append(pieces[0]),
        lambda pieces: pieces.insert(2, pieces.pop(3)),
        lambda pieces: pieces.__setitem__(2, (2**64 - 1, pieces[2][1])),
    ],
    ids=["twice", "unknown", "unknown at the end", "twice at the end", "swapped", "huge number"],
)
def test_bytes_that_no_line_tells_of_are_found(
    kept: Kept, change: Callable[[Pieces], object]
) -> None:
    change(kept.pieces)
    rung = kept.audited(file_of(kept.pieces))
    assert rung.status == "fails"
    assert "where no line tells of them" in rung.failures[0].what


def test_a_huge_length_is_found_and_reads_nothing(kept: Kept) -> None:
    data = bytearray(file_of(kept.pieces))
    data[len(MAGIC) + 8 : len(MAGIC) + 16] = b"\xff" * 8
    (failure,) = kept.audited(bytes(data)).failures
    assert failure.where == kept.place(0)
    assert str(2**64 - 1) in failure.what


@pytest.mark.parametrize("data", [b"QRBLOCKS2\n" + bytes(40), b"{}\n", b"\0" * 9])
def test_another_beginning_is_found(kept: Kept, data: bytes) -> None:
    (failure,) = kept.audited(data).failures
    assert failure.where == f"{kept.path}:1"
    assert "does not begin like a file of blocks" in failure.what


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this platform")
@pytest.mark.parametrize("make", [os.mkdir, getattr(os, "mkfifo", None)])
def test_what_is_no_file_is_found(kept: Kept, make: Callable[[Path], None]) -> None:
    make(kept.blocks)
    (failure,) = kept.audited().failures
    assert "no regular file" in failure.what


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(data=st.binary(max_size=200), whole=st.booleans())
def test_whatever_the_file_holds_is_a_finding(kept: Kept, data: bytes, whole: bool) -> None:
    rung = kept.audited(MAGIC + data if whole else data)
    assert rung.status in ("fails", "cannot be said")


def test_numbers_that_agree_with_each_other_are_exposed_by_the_bytes(kept: Kept) -> None:
    """The sum of the block changed, and u, statistic and lattice made to follow from it."""
    import numpy as np

    from qr_sampler import BlockCounts, ZScoreMeanAmplifier

    token = next(line for line in kept.lines if line["kind"] == "token")
    total, size = token["block_sum"] + 1, token["block_bytes"]

    class Counts(BlockCounts):
        @property
        def sums(self) -> Any:
            return np.array([total])

    blocks = np.zeros((1, size), np.uint8)
    result = ZScoreMeanAmplifier().amplify(blocks, Counts(blocks))
    forged = {
        "block_sum": total,
        "u": result.u.item(),
        "statistic": result.statistic.item(),
        "row_digest": "",
    }
    rung = kept.edited(**forged)
    said = [failure.what for failure in rung.failures]
    assert any(what.startswith(f"block_sum is {total} and that of its bytes is") for what in said)


def test_other_ones_are_exposed(kept: Kept) -> None:
    token = next(line for line in kept.lines if line["kind"] == "token")
    rung = kept.edited(block_ones=token["block_ones"] + 1)
    assert any("block_ones is" in failure.what for failure in rung.failures)


class Generator(EntropySource):
    name = "device"
    blocks = False

    def __init__(self, seed: int = 0) -> None:
        self._script = Random(seed)

    def get_random_bytes(self, n: int) -> bytes:
        return self._script.randbytes(n)


class Integrating(Generator):
    integrates = True


AMPLIFIERS = {
    "bit_zscore": 64,
    "exact_bits": 64,
    "exact_sum": 64,
    "random_walk": 1024,
    "server": 8,
    "uniform53": 16,
    "zscore_mean": 64,
}


def ledger_of(folder: Path, amplifier: str, **options: Any) -> Path:
    """Writes the ledger of a host with *amplifier*."""
    source = Integrating() if amplifier == "server" else Generator()
    session = SamplingSession(
        EngineFacts(engine="toy", model="none"),
        Settings.load(
            entropy_source_type="device",
            fallback_mode="end_request",
            signal_amplifier_type=amplifier,
            sample_count=AMPLIFIERS[amplifier],
            max_ks_distance=1.0,
            ledger_dir=folder,
            ledger_blocks=True,
            **options,
        ),
        sources={"device": source},
    )
    host = ToyHost(session)
    for number in range(3):
        host.add(10, request_key=f"request {number}")
    for _ in range(10):
        host.step()
    host.close()
    return folder


@pytest.mark.parametrize("amplifier", AMPLIFIERS)
def test_u_of_every_amplifier_follows_from_the_bytes(
    amplifier: str, tmp_path: Path, audit: Any
) -> None:
    ledger_of(tmp_path, amplifier)
    rung = audit(tmp_path)[4]
    assert (rung.status, rung.unsaid) == ("holds", {})
    (path,) = tmp_path.glob("*.jsonl")
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    token = next(line for line in lines if line["kind"] == "token")
    u = token["u"]
    # The next float64 for maps without rounding, else the first difference that is no rounding.
    near = u + 2.0**-52 if amplifier in ("random_walk", "server", "uniform53") else u + 1e-11
    path.write_bytes(path.read_bytes().replace(f'"u":{u}'.encode(), f'"u":{near}'.encode(), 1))
    assert any(
        failure.what.startswith(f"u is {near!r} and {amplifier} makes {u!r} of the bytes")
        for failure in audit(tmp_path)[4].failures
    )


@pytest.mark.parametrize("seed", range(4))
def test_ledgers_of_hosts_hold(seed: int, tmp_path: Path, audit: Any) -> None:
    session = SamplingSession(
        EngineFacts(engine="toy", model="none"),
        Settings.load(
            entropy_source_type="device",
            fallback_mode="end_request",
            sample_count=16,
            ledger_dir=tmp_path,
            ledger_blocks=True,
            ledger_max_bytes=[0, 20_000][seed % 2],
        ),
        sources={"device": Generator(seed)},
    )
    play_script(ToyHost(session, seed=seed, overlapping=seed > 1), seed=seed, steps=60)
    rungs = audit(tmp_path)
    assert (rungs[1].status, rungs[4].status) == ("holds", "holds")
    assert not rungs[2].failed


def test_bytes_that_wait_to_be_judged_are_bounded(
    tmp_path: Path, audit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amplifiers, "_MOST_BLOCK_BYTES", 100)
    held: list[int] = []
    plain = amplifiers.AmplifiedTokens.add

    def add(self: amplifiers.AmplifiedTokens, *arguments: Any) -> None:
        plain(self, *arguments)
        held.append(self._block_bytes)

    monkeypatch.setattr(amplifiers.AmplifiedTokens, "add", add)
    ledger_of(tmp_path, "exact_sum")
    (audited,) = audit_runs(ledgers_of([tmp_path]))
    assert audited.rungs[3].status == "holds"
    assert max(held) <= 100


@pytest.mark.skipif(not PAGE.exists(), reason="the page is in the repository only")
def test_the_program_of_the_page_compares_blocks(kept: Kept, tmp_path: Path) -> None:
    programs = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    (text,) = (each for each in programs if "QRBLOCKS1" in each)
    script = tmp_path / "blocks.py"
    script.write_text(text)
    count = len(kept.pieces)

    def said(data: bytes) -> str:
        kept.blocks.write_bytes(data)
        command = [sys.executable, "-I", str(script), str(kept.path)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout

    assert said(file_of(kept.pieces)).startswith(f"{count} of {count} draws have the bytes")
    kept.pieces[1] = (1, bytes(len(kept.pieces[1][1])))
    assert said(file_of(kept.pieces)).startswith(f"{count - 1} of {count} draws")


def test_lost_blocks_are_no_lost_lines(run: Any, save: Any, audit: Any) -> None:
    made = run(2)
    made.gap({"block": 3})
    lines = made.whole(lost=3)
    path = save(lines)
    path.with_suffix(".blocks").write_bytes(file_of(list(enumerate(made.data))[3:]))
    rungs = audit(path)
    assert [rungs[number].status for number in (1, 2, 4)] == ["holds", "holds", "cannot be said"]


def test_the_numbers_that_drew_a_draft_are_one_entry() -> None:
    """Its u is the first of them; sums and ones are those of all bytes."""
    block = (2**63).to_bytes(8, "little") + bytes(range(8))
    used = SimpleNamespace(role="proposal", u=0.5)
    counts = {"block_sum": sum(block), "block_ones": sum(byte.bit_count() for byte in block)}
    assert said_of(SimpleNamespace(uniforms=[used], **counts), [block]) == ([], [])
    used.u = 0.25
    (failure,), _ = said_of(SimpleNamespace(uniforms=[used], **counts), [block])
    assert failure == "u of its 'proposal' is 0.25, and its bytes are 0.5"
    for cut in (block[:12], b"", None):
        failures, unsaid = said_of(SimpleNamespace(uniforms=[used], **counts), [cut])
        assert (failures, unsaid) == ([], ["u of tokens that several numbers decide"])


def said_of(line: Any, blocks: list[bytes | None]) -> tuple[list[str], list[str]]:
    places: Any = SimpleNamespace(name=str)
    rung = Rung(4, "uniforms", "", places)
    judge_numbers(rung, line, blocks, 1)
    return [failure.what for failure in rung.failures], list(rung.unsaid)
