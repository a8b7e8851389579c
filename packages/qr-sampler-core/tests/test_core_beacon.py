# SPDX-License-Identifier: Apache-2.0
"""Ledgers take in the rounds of a beacon that lie beside them, and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from qr_sampler import Settings
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.records import beacon
from qr_sampler.records.beacon import BeaconFile
from qr_sampler.testing import ConstantEntropySource, ToyHost

ROUND = {"chain": "52" * 32, "round": 1000, "signature": "b4" * 48}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beacon, "_INTERVAL_S", 0.0)


def left(ledger: Path, told: Any) -> None:
    folder = ledger.with_suffix(".anchors")
    folder.mkdir(exist_ok=True)
    data = told if isinstance(told, bytes) else json.dumps(told).encode()
    (folder / "beacon.json").write_bytes(data)


def rounds(lines: list[Any]) -> list[int]:
    assert all(kind == "anchor" for kind, _ in lines)
    return [fields["round"] for _, fields in lines]


def test_a_round_is_taken_once(tmp_path: Path) -> None:
    file, ledger = BeaconFile(), tmp_path / "run.jsonl"
    assert file.lines(ledger) == []
    left(ledger, {"kind": "drand", "randomness": "not looked at", **ROUND})
    ((kind, fields),) = file.lines(ledger)
    assert (kind, {name: fields[name] for name in ROUND}) == ("anchor", ROUND)  # type: ignore[index]
    assert file.lines(ledger) == []
    left(ledger, {**ROUND, "round": 999})
    assert file.lines(ledger) == []
    left(ledger, {**ROUND, "round": 1001})
    assert rounds(file.lines(ledger)) == [1001]


def test_it_is_looked_at_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beacon, "_INTERVAL_S", 3600.0)
    file, ledger = BeaconFile(), tmp_path / "run.jsonl"
    assert file.lines(ledger) == []
    left(ledger, ROUND)
    assert file.lines(ledger) == []


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"\xff",
        b"[" * 4000,
        b" " * 5000 + json.dumps(ROUND).encode(),
        [],
        {},
        {**ROUND, "round": 0},
        {**ROUND, "round": 2**60},
        {**ROUND, "round": "1000"},
        {**ROUND, "chain": "x"},
        {**ROUND, "signature": "B4"},
        {**ROUND, "signature": "b4" * 600},
    ],
)
def test_what_is_no_round_is_left_alone(tmp_path: Path, told: Any) -> None:
    ledger = tmp_path / "run.jsonl"
    left(ledger, told)
    assert BeaconFile().lines(ledger) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no such pipes")
def test_nobody_is_waited_for(tmp_path: Path) -> None:
    ledger = tmp_path / "run.jsonl"
    ledger.with_suffix(".anchors").mkdir()
    os.mkfifo(ledger.with_suffix(".anchors") / "beacon.json")
    assert BeaconFile().lines(ledger) == []


def test_a_ledger_holds_what_lies_beside_it(tmp_path: Path) -> None:
    session = SamplingSession(
        EngineFacts(engine="toy 1.0", model="none"),
        Settings.load(entropy_source_type="device", ledger_dir=tmp_path),
        sources={"device": ConstantEntropySource(name="device")},
    )
    host = ToyHost(session)
    host.add(3)
    host.step()
    host.flush()
    (ledger,) = tmp_path.glob("*.jsonl")
    left(ledger, ROUND)
    host.step()
    host.flush()
    session.close()
    told = [json.loads(line) for line in ledger.read_bytes().split(b"\n")[:-1]]
    (line,) = [line for line in told if line["kind"] == "anchor"]
    assert {name: line[name] for name in ROUND} == ROUND
    assert told[-1]["totals"]["anchor"] == 1
