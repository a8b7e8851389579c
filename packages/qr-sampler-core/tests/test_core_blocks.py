# SPDX-License-Identifier: Apache-2.0
"""The bytes of draws beside a ledger: all of them, in order, and never at the ledger's expense."""

from __future__ import annotations

import gc
import hashlib
import stat
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_sampler import ConfigError, EntropySource, Settings
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.per_process import PerProcess
from qr_sampler.records.files import ledgers_in
from qr_sampler.records.files.append_file import AppendFile
from qr_sampler.records.sidecars.blocks import BLOCKS_MAGIC, PIECE_HEADER
from qr_sampler.sampling import kept_bytes
from qr_sampler.testing import ToyHost, chained_lines, play_script


class Generator(EntropySource):
    name = "device"
    blocks = False

    def __init__(self, seed: int = 0) -> None:
        self._script = Random(seed)
        self.drawn: list[bytes] = []

    def get_random_bytes(self, n: int) -> bytes:
        data = self._script.randbytes(n)
        self.drawn.append(data)
        return data


def host_of(folder: Path, source: EntropySource, seed: int = 0, **options: Any) -> ToyHost:
    usual = {"sample_count": 16, "fallback_mode": "end_request", "ledger_blocks": True}
    session = SamplingSession(
        EngineFacts(engine="toy", model="none"),
        Settings.load(entropy_source_type="device", ledger_dir=folder, **{**usual, **options}),
        sources={"device": source},
    )
    return ToyHost(session, seed=seed)


def pieces_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields the pieces of a file, by what the page of the ledger says of it and nothing else."""
    data = path.read_bytes()
    assert data.startswith(b"QRBLOCKS1\n")
    at = len(b"QRBLOCKS1\n")
    while at < len(data):
        number = int.from_bytes(data[at : at + 8], "big")
        length = int.from_bytes(data[at + 8 : at + 16], "big")
        at += 16 + length
        assert at <= len(data)
        yield number, data[at - length : at]


def lines_of(path: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in chained_lines(path) if line["kind"] == kind]


def play(host: ToyHost, steps: int = 3, tokens: int = 100) -> None:
    for key in "ab":
        host.add(tokens, request_key=key)
    for _ in range(steps):
        host.step()


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), max_bytes=st.sampled_from([0, 4_000]))
def test_every_draw_line_has_its_bytes(
    seed: int, max_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    source = Generator(seed)
    play_script(host_of(folder, source, seed, ledger_max_bytes=max_bytes), seed=seed, steps=30)
    seen: dict[int, bytes] = {}
    for ledger in ledgers_in(folder):
        draws = [(line["draw"], line["data_sha256"]) for line in lines_of(ledger, "draw")]
        path = ledger.with_suffix(".blocks")
        pieces = list(pieces_of(path)) if path.exists() else []
        assert [(at, hashlib.sha256(data).hexdigest()) for at, data in pieces] == draws
        seen.update(pieces)
        assert not lines_of(ledger, "gap")
    # Draws are numbered as they are written, which need not be the order in which they came.
    assert sorted(seen.values()) == sorted(source.drawn)


def test_the_file_is_private_and_its_beginning_is_that_of_the_format(tmp_path: Path) -> None:
    source = Generator()
    host = host_of(tmp_path, source)
    play(host)
    host.close()
    (path,) = tmp_path.glob("*.blocks")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes()[:10] == BLOCKS_MAGIC == b"QRBLOCKS1\n"
    assert PIECE_HEADER.size == 16
    assert list(pieces_of(path)) == list(enumerate(source.drawn))


def test_without_the_setting_no_bytes_are_kept(tmp_path: Path) -> None:
    host = host_of(tmp_path, Generator(), ledger_blocks=False)
    play(host)
    host.close()
    assert [path.suffix for path in tmp_path.iterdir()] == [".jsonl"]


def test_blocks_need_a_ledger() -> None:
    with pytest.raises(ConfigError, match="set QR_LEDGER_DIR to a directory"):
        Settings.load(ledger_blocks=True)


def test_blocks_that_wait_when_the_ledger_ends_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = AppendFile.append

    def append(self: AppendFile, data: bytes) -> tuple[int, OSError | None]:
        if self.path.suffix == ".blocks":
            return 0, OSError(28, "No space left on device")
        return plain(self, data)

    monkeypatch.setattr(AppendFile, "append", append)
    host = host_of(tmp_path, Generator())
    play(host, steps=3)
    host.close()
    (ledger,) = tmp_path.glob("*.jsonl")
    (gap,) = lines_of(ledger, "gap")
    assert (gap["reason"], gap["missing"]) == ("refused", {"block": 3})
    assert lines_of(ledger, "close")[0]["lost"] == 3


@pytest.mark.parametrize("seconds", [0.0, 3600.0])
def test_blocks_that_a_disk_refuses_are_in_no_later_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    plain = AppendFile.append
    full = [True]

    def append(self: AppendFile, data: bytes) -> tuple[int, OSError | None]:
        if self.path.suffix == ".blocks" and full[0]:
            return 0, OSError(28, "No space left on device")
        return plain(self, data)

    monkeypatch.setattr(AppendFile, "append", append)
    host = host_of(tmp_path, Generator(), ledger_max_bytes=3_000, ledger_sync_ms=1000 * seconds)
    while len(ledgers_in(tmp_path)) < 3:
        play(host, steps=1)
        host.flush()
    full[0] = False
    play(host, steps=4)
    host.close()
    lost = 0
    for ledger in ledgers_in(tmp_path):
        told = {line["draw"] for line in lines_of(ledger, "draw")}
        path = ledger.with_suffix(".blocks")
        found = [number for number, _ in pieces_of(path)] if path.exists() else []
        assert set(found) <= told, f"{path} has bytes of draws of another file"
        lost += sum(gap["missing"]["block"] for gap in lines_of(ledger, "gap"))
    assert lost > 0
    assert lines_of(ledgers_in(tmp_path)[-1], "close")[0]["lost"] == lost


def test_a_full_disk_loses_blocks_and_says_so_in_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = AppendFile.append
    monkeypatch.setattr("qr_sampler.records.sidecars.file._MOST_WAITING_BYTES", 40)

    def append(self: AppendFile, data: bytes) -> tuple[int, OSError | None]:
        if self.path.suffix == ".blocks":
            return 0, OSError(28, "No space left on device")
        return plain(self, data)

    monkeypatch.setattr(AppendFile, "append", append)
    host = host_of(tmp_path, Generator())
    play(host, steps=6)
    host.flush()
    host.close()
    (ledger,) = tmp_path.glob("*.jsonl")
    assert len(lines_of(ledger, "token")) == 12
    gaps = lines_of(ledger, "gap")
    assert {gap["reason"] for gap in gaps} == {"refused"}
    assert all(set(gap["missing"]) == {"block"} for gap in gaps)
    assert lines_of(ledger, "close")[0]["lost"] == sum(gap["missing"]["block"] for gap in gaps) > 0


def test_what_is_kept_in_memory_is_bounded_by_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_bytes, "MOST_KEPT_BYTES", 100)
    monkeypatch.setattr(kept_bytes, "_room", PerProcess(kept_bytes._Room))
    monkeypatch.setattr("qr_sampler.host.handover.INTERVAL_S", 3_600.0)
    host = host_of(tmp_path, Generator())
    # Draws of two blocks, of which three have room until they are written.
    play(host, steps=7)
    host.close()
    (ledger,) = tmp_path.glob("*.jsonl")
    (path,) = tmp_path.glob("*.blocks")
    assert [number for number, _ in pieces_of(path)] == [0, 1, 2]
    (gap,) = lines_of(ledger, "gap")
    assert (gap["reason"], gap["missing"]) == ("overflow", {"block": 4})
    assert len(lines_of(ledger, "token")) == 14


def test_room_comes_back_when_bytes_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_bytes, "MOST_KEPT_BYTES", 100)
    monkeypatch.setattr(kept_bytes, "_room", PerProcess(kept_bytes._Room))
    first, second = kept_bytes.keep(bytes(60)), kept_bytes.keep(bytes(40))
    assert first is not None
    assert second is not None
    assert kept_bytes.keep(b"!") is None
    del first
    gc.collect()
    again = kept_bytes.keep(bytes(60))
    assert again is not None
    assert again.data == bytes(60)
    assert kept_bytes.keep(b"!") is None
