# SPDX-License-Identifier: Apache-2.0
"""The digest of a sealed plan, which a ledger begins with."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from qr_sampler import ConfigError, Settings
from qr_sampler.host.journal import Journal
from qr_sampler.records.chain import ZERO_HEAD
from qr_sampler.testing import ConstantEntropySource
from qr_sampler.testing.chain_checks import chained_lines, check_files

SEAL = "5ea1" * 16


def journal_of(directory: Path, **settings: object) -> Journal:
    loaded = Settings.load(ledger_dir=directory, **settings)
    return Journal(loaded, [ConstantEntropySource()], engine="toy", model="tiny")


@pytest.mark.parametrize(("seal", "prev"), [(SEAL, SEAL), ("", ZERO_HEAD)])
def test_the_first_line_names_the_seal(seal: str, prev: str, tmp_path: Path) -> None:
    journal_of(tmp_path, ledger_seal=seal).close()
    (file,) = tmp_path.iterdir()
    first = json.loads(file.read_bytes().splitlines()[0])
    assert (first["seal"], first["prev"]) == (seal or None, prev)


def test_a_continued_file_names_the_file_before_it(tmp_path: Path) -> None:
    journal = journal_of(tmp_path, ledger_seal=SEAL, ledger_max_bytes=1)
    journal._next_clock_s = 0.0
    journal.write([])
    journal.write([])
    journal.close()
    files = sorted(tmp_path.iterdir(), key=lambda path: ("_" in path.name, path.name))
    assert len(files) > 1
    check_files(files)
    firsts = [chained_lines(path)[0] for path in files]
    assert [first["seal"] for first in firsts] == [SEAL] * len(files)
    assert [first["prev"] == SEAL for first in firsts] == [True] + [False] * (len(files) - 1)


def test_a_forked_process_begins_with_the_seal_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = journal_of(tmp_path, ledger_seal=SEAL)
    monkeypatch.setattr(os, "getpid", lambda: 7)
    journal.write([])
    journal.close()
    (fork,) = tmp_path.glob("*-fork7*.jsonl")
    first = chained_lines(fork)[0]
    assert (first["pid"], first["seal"], first["prev"]) == (7, SEAL, SEAL)


@pytest.mark.parametrize("seal", ["5ea1", SEAL.upper(), SEAL + "0", "g" * 64])
def test_what_is_no_digest_is_refused(seal: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="QR_LEDGER_SEAL") as raised:
        Settings.load(ledger_dir=tmp_path, ledger_seal=seal)
    assert seal in str(raised.value)


def test_a_seal_without_a_ledger_is_refused() -> None:
    with pytest.raises(ConfigError, match="QR_LEDGER_DIR"):
        Settings.load(ledger_seal=SEAL)
