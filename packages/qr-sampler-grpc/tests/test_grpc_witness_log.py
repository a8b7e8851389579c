# SPDX-License-Identifier: Apache-2.0
"""What a server notes of its answers: chained, private, and never in the way of an answer."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from qr_sampler import ConfigError
from qr_sampler.records.files.append_file import AppendFile
from qr_sampler_grpc.device import Device
from qr_sampler_grpc.device.witness_log import WitnessLog
from qr_sampler_grpc.direct.server import serve_direct
from qr_sampler_grpc.direct.source import DirectSource
from qr_sampler_grpc.protocol.attestation import SigningKey
from qr_sampler_grpc.server import serve
from qr_sampler_grpc.source import QuantumGrpcSource
from qr_sampler_grpc.testing.keys import make_key_pair
from qr_sampler_grpc.testing.patience import eventually

ANSWER = {
    "sequence_id": 7,
    "generation_timestamp_ns": 5,
    "device_id": "dev",
    "commitment": b"c" * 32,
    "data_sha256": b"d" * 32,
}


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a file, each of which has to name the digest of the one before."""
    lines = path.read_bytes().split(b"\n")[:-1]
    records = [json.loads(line) for line in lines]
    first = (records[0]["continues"] or {}).get("head") or "0" * 64
    heads = [first, *(hashlib.sha256(line).hexdigest() for line in lines)]
    assert [line["prev"] for line in records] == heads[:-1]
    assert [line["n"] for line in records] == list(range(len(lines)))
    return records


@pytest.mark.parametrize("mode", ["unary", "server_streaming", "bidi_streaming"])
def test_every_answer_is_in_the_log(tmp_path: Path, mode: str) -> None:
    path, pair = tmp_path / "log" / "witness.jsonl", make_key_pair(tmp_path)
    with (
        WitnessLog(path, "dev 1") as log,
        serve(
            os.urandom,
            "127.0.0.1:0",
            device_id="dev 1",
            signing_key=SigningKey(pair.private),
            witness_log=log,
        ) as server,
    ):
        source = QuantumGrpcSource(server.address, mode=mode)
        draws = [source.committed_draw(n, bytes([n]) * 32) for n in (16, 200, 17)]
        source.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first, *answers, last = lines_of(path)
    assert (first["kind"], first["device_id"], first["seal"]) == ("witness", "dev 1", None)
    assert (last["kind"], last["totals"]["answer"], last["lost"]) == ("close", 3, 0)
    for draw, answer, n in zip(draws, answers, (16, 200, 17), strict=True):
        assert answer == {
            "kind": "answer",
            "n": answer["n"],
            "prev": answer["prev"],
            "sequence_id": draw.sequence_id,
            "commitment": (bytes([n]) * 32).hex(),
            "data_sha256": hashlib.sha256(draw.data).hexdigest(),
            "device_id": "dev 1",
            "generation_timestamp_ns": draw.device_timestamp_ns,
        }


def test_answers_over_a_bare_socket_are_in_the_log_too(tmp_path: Path, socket_path: Path) -> None:
    path, address = tmp_path / "witness.jsonl", f"unix://{socket_path}"
    with WitnessLog(path) as log, serve_direct(Device(os.urandom, witness_log=log), address):
        source = DirectSource(address)
        draw = source.draw(16)
        source.close()
    digests = [line.get("data_sha256") for line in lines_of(path)]
    assert digests == [None, hashlib.sha256(draw.data).hexdigest(), None]


def test_a_log_that_was_ended_is_continued_in_another_file(tmp_path: Path) -> None:
    path = tmp_path / "witness.jsonl"
    for _ in range(2):
        with WitnessLog(path) as log:
            log.note(**ANSWER)
    first, second = lines_of(path), lines_of(tmp_path / "witness_0002.jsonl")
    assert second[0]["continues"]["lines"] == len(first) == 3
    assert [line["kind"] for line in second] == ["witness", "answer", "close"]


def test_a_log_that_was_cut_off_goes_on_in_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "witness.jsonl"
    with WitnessLog(path) as log:
        log.note(**ANSWER)
    whole = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join((*whole[:2], b'{"kind":"ans')))
    with WitnessLog(path) as log:
        log.note(**ANSWER)
    lines = path.read_bytes().split(b"\n")[:-1]
    gap = json.loads(lines[3])
    assert (gap["kind"], gap["torn_bytes"], gap["reason"]) == ("gap", len(lines[2]), "torn")
    assert gap["prev"] == hashlib.sha256(lines[1]).hexdigest()


def test_an_answer_never_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, path = threading.Event(), tmp_path / "witness.jsonl"
    append = AppendFile.append

    def stalls(file: AppendFile, data: bytes) -> Any:
        if b'"kind":"answer"' in data:
            held.wait()
        return append(file, data)

    monkeypatch.setattr(AppendFile, "append", stalls)
    with WitnessLog(path, capacity=3) as log:
        log.note(**ANSWER)
        assert eventually(lambda: not log._waiting)
        # The disk holds the first one; these return all the same.
        for _ in range(5):
            log.note(**ANSWER)
        # What waits for the disk may be lost, too.
        assert log.lost == 3
        held.set()
    lines = lines_of(path)
    assert [line["kind"] for line in lines] == ["witness", *["answer"] * 4, "gap", "close"]
    assert (lines[5]["reason"], lines[5]["missing"]) == ("overflow", {"answer": 2})
    assert lines[-1]["lost"] == 2


def test_a_log_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written; name another file"):
        WitnessLog(tmp_path / "file" / "witness.jsonl")
