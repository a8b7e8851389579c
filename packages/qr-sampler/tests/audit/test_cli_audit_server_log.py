# SPDX-License-Identifier: Apache-2.0
"""Every answer of a log is found, whatever its digest ends with."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qr_sampler.errors import ConfigError
from qr_sampler_cli.audit.findings import Places, ladder
from qr_sampler_cli.audit.rungs.server_log import ServerLog, ServerLogWitness


def test_every_answer_is_found(tmp_path: Path) -> None:
    path, prev = tmp_path / "witness.jsonl", "0" * 64
    answers: list[dict[str, Any]] = []
    with path.open("wb") as file:
        for n in range(2000):
            told: dict[str, Any] = {"kind": "answer" if n else "witness", "n": n, "prev": prev}
            if n:
                digest = hashlib.sha256(str(n).encode()).hexdigest()
                answers.append(
                    {
                        "sequence_id": n,
                        "commitment": "",
                        "data_sha256": digest,
                        "device_id": "d",
                        "generation_timestamp_ns": n,
                    }
                )
                told.update(answers[-1])
            line = json.dumps(told).encode()
            prev = hashlib.sha256(line).hexdigest()
            file.write(line + b"\n")
    log = ServerLog(path)
    assert len(log) == len(answers)
    for place, answer in enumerate(answers):
        draw: Any = SimpleNamespace(**answer, device_timestamp_ns=answer["generation_timestamp_ns"])
        assert log.find(draw) == place
        draw.sequence_id = None
        assert log.find(draw) == place
        draw.sequence_id = -1
        assert log.find(draw) is None


def answered(log: Any, numbers: range) -> list[Any]:
    """Has a server write answers down, and returns the draws that they belong to."""
    draws = []
    for n in numbers:
        told = {"sequence_id": n, "commitment": b"", "device_id": "d"}
        digest = hashlib.sha256(str(n).encode()).digest()
        log.note(**told, generation_timestamp_ns=1000 + n, data_sha256=digest)
        fields = {**told, "commitment": "", "data_sha256": digest.hex(), "requests": 1}
        times = {"device_timestamp_ns": 1000 + n, "t_request_ns": n, "t_received_ns": n}
        draws.append(SimpleNamespace(**fields, **times, draw=n))
    return draws


def unsaid_of(path: Path, draws: list[Any]) -> tuple[int, dict[str, int]]:
    """Returns how many draws fail, and what cannot be said of how many."""
    places = Places()
    places.begin("ledger.jsonl")
    rung = ladder(places)[4]
    witness = ServerLogWitness(rung, ServerLog(path))
    for draw in draws:
        witness.draw(draw, 1)
    witness.finish()
    return rung.failed, {what: each.count for what, each in rung.unsaid.items()}


def test_a_server_that_was_started_again_is_one_witness(tmp_path: Path) -> None:
    witness_log = pytest.importorskip("qr_sampler_grpc.device.witness_log")
    path, draws = tmp_path / "witness.jsonl", []
    for numbers in (range(5), range(5, 9), range(9, 12)):
        with witness_log.WitnessLog(path, "d") as log:
            draws += answered(log, numbers)
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "witness.jsonl",
        "witness_0002.jsonl",
        "witness_0003.jsonl",
    ]
    assert unsaid_of(path, draws) == (0, {})
    forged = SimpleNamespace(**{**vars(draws[2]), "data_sha256": "0" * 64})
    assert unsaid_of(path, [forged]) == (1, {})
    changed = tmp_path / "witness_0003.jsonl"
    changed.write_bytes(changed.read_bytes().replace(b'"witness.jsonl"', b'"another.jsonl"'))
    with pytest.raises(ConfigError, match="it continues none of the files before it"):
        ServerLog(path)
    changed.unlink()
    later = {
        "whether draws before the beginning of the log were answered": 5,
        "whether draws after the end of the log were answered": 3,
    }
    assert unsaid_of(tmp_path / "witness_0002.jsonl", draws) == (0, later)
