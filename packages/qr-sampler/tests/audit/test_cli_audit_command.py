# SPDX-License-Identifier: Apache-2.0
"""The command itself: exit statuses, JSON, what clients received, keys, and several files."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from qr_sampler_cli.main import app


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["audit", *map(str, arguments)])


def told(*arguments: object) -> Any:
    return json.loads(invoke(*arguments, "--json").stdout)


def received(path: Path, answers: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(answer)}\n" for answer in answers))
    return path


def test_it_says_what_holds(run: Any, save: Any) -> None:
    result = invoke(save(run().whole()))
    assert result.exit_code == 0
    assert "1 whole: holds (every line is intact" in result.stdout
    assert "6 re-derived: cannot be said" in result.stdout
    assert "it needs the model" in result.stdout


def test_it_says_what_fails(run: Any, chain: Any, save: Any) -> None:
    lines = chain(run().whole())
    del lines[5]
    path = save(lines)
    result = invoke(path)
    assert result.exit_code == 1
    assert f"fails: {path}:6: it does not follow the line before" in result.stdout
    assert told(path)["verdict"] == "fails"


def test_it_says_what_is_no_ledger(tmp_path: Path) -> None:
    assert invoke().exit_code == 2
    result = invoke(tmp_path / "absent.jsonl")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "cannot be read" in result.stderr


def test_the_data_are_those_of_the_rungs(run: Any, save: Any) -> None:
    data = told(save(run().whole()))
    assert data["verdict"] == "cannot be said"
    (audited,) = data["runs"]
    assert [rung["rung"] for rung in audited["rungs"]] == [1, 2, 3, 4, 5, 6]
    assert audited["schema_version"] == 2
    assert (
        audited["head"]
        == hashlib.sha256(save(run().whole()).read_bytes().split(b"\n")[-2]).hexdigest()
    )


def test_terminals_are_not_steered(run: Any, save: Any) -> None:
    lines = run().whole()
    lines[0]["run_id"] = "\x1b[31m" * 4
    assert "\x1b" not in invoke(save(lines)).stdout


def test_what_clients_received_is_compared(run: Any, save: Any, tmp_path: Path) -> None:
    made = run()
    path = save(made.whole())
    same = received(tmp_path / "same", made.received)
    assert invoke(path, "--emitted", same).exit_code == 0
    first, *others = made.received
    another = {**first, "token_ids": [*first["token_ids"][:-1], 1]}
    result = invoke(path, "--emitted", received(tmp_path / "another", [another, *others]))
    assert result.exit_code == 1
    assert f"they differ from position {len(first['token_ids']) - 1} on" in result.stdout
    result = invoke(path, "--emitted", received(tmp_path / "fewer", others))
    assert "no answer was received for 'request of sequence-0'" in result.stdout
    more = [*made.received, {"request_key": "unheard of", "token_ids": [1]}]
    result = invoke(path, "--emitted", received(tmp_path / "more", more))
    assert "no sequence has the 1 tokens received for 'unheard of'" in result.stdout
    twice = [first, another, *others]
    result = invoke(path, "--emitted", received(tmp_path / "twice", twice))
    assert "no sequence has" in result.stdout


@pytest.mark.parametrize(
    "text", ["[]\n", "{}\n", "nothing\n", '{"request_key":1,"token_ids":[]}\n']
)
def test_other_files_of_answers_are_refused(run: Any, save: Any, tmp_path: Path, text: str) -> None:
    answers = tmp_path / "answers"
    answers.write_text(text)
    result = invoke(save(run().whole()), "--emitted", answers)
    assert result.exit_code == 2
    assert "line 1" in result.stderr
    assert invoke(save(run().whole()), "--emitted", tmp_path / "absent").exit_code == 2


class Rotated:
    """A run whose ledger goes on in a second file."""

    def __init__(self, run: Any, chain: Any, tmp_path: Path) -> None:
        made = run(3, committed=False)
        row = made.begin("sequence")
        made.step([row], discarded=False)
        made.close(continued_in="second.jsonl")
        first = chain(made.lines)
        head = hashlib.sha256(first[-1]).hexdigest()
        genesis = {**made.lines[0], "monotonic_ns": made.now, "wall_time_ns": made.wall}
        genesis["continues"] = {"file": "first.jsonl", "lines": len(first), "head": head}
        made.lines[:] = [genesis, made._clock()]
        made.step([row], discarded=False)
        made.end(row)
        made.lines.append(made._clock())
        made.close()
        self.first, self.second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
        self.first.write_bytes(b"".join(line + b"\n" for line in first))
        self.second.write_bytes(b"".join(line + b"\n" for line in chain(made.lines, head)))


def test_files_that_continue_each_other_are_one(run: Any, chain: Any, tmp_path: Path) -> None:
    rotated = Rotated(run, chain, tmp_path)
    (audited,) = told(tmp_path)["runs"]
    assert audited["files"] == [str(rotated.first), str(rotated.second)]
    assert [rung["status"] for rung in audited["rungs"][:4]] == ["holds"] * 4


def test_a_part_of_a_ledger_says_what_is_missing(run: Any, chain: Any, tmp_path: Path) -> None:
    rotated = Rotated(run, chain, tmp_path)
    for path, text in (
        (rotated.first, "'second.jsonl', which goes on"),
        (rotated.second, "'first.jsonl', which this"),
    ):
        result = invoke(path)
        assert result.exit_code == 0
        assert text in result.stdout
        (audited,) = told(path)["runs"]
        assert audited["rungs"][0]["status"] == "cannot be said"


def test_a_changed_first_file_is_not_continued(run: Any, chain: Any, tmp_path: Path) -> None:
    rotated = Rotated(run, chain, tmp_path)
    rotated.first.write_bytes(rotated.first.read_bytes().rpartition(b'{"kind":"close"')[0])
    result = invoke(tmp_path)
    assert result.exit_code == 1
    assert f"fails: {rotated.second}:1: it continues 'first.jsonl' after" in result.stdout


def test_a_copy_of_a_ledger_is_a_second_beginning(run: Any, save: Any) -> None:
    lines = run().whole()
    result = invoke(save(lines), save(lines, "copy.jsonl"))
    assert result.exit_code == 1
    assert "begins a second time" in result.stdout


class Signed:
    """A ledger whose draws a device has signed."""

    def __init__(self, run: Any, save: Any, tmp_path: Path) -> None:
        ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
        serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
        key = ed25519.Ed25519PrivateKey.from_private_bytes(b"k" * 32)
        self.pem = tmp_path / "key.pem"
        form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.pem.write_bytes(key.public_key().public_bytes(*form))
        self.lines = run(4).whole()
        for line in self.lines:
            if line["kind"] == "draw":
                line["sequence_id"] = line["draw"] + 7
                line["signature"] = base64.b64encode(key.sign(self.message(line))).decode()
                line["signature_verified"] = True
        self.save = save

    def message(self, draw: dict[str, Any]) -> bytes:
        device, commitment = draw["device_id"].encode(), bytes.fromhex(draw["commitment"])
        return (
            b"qr-entropy-v2: "
            + struct.pack(">qqI", draw["sequence_id"], draw["device_timestamp_ns"], len(device))
            + device
            + struct.pack(">I", len(commitment))
            + commitment
            + bytes.fromhex(draw["data_sha256"])
        )

    def audit(self) -> Any:
        (audited,) = told(self.save(self.lines), "--keys", self.pem)["runs"]
        return audited["rungs"][4]


def test_signatures_are_verified_from_records(run: Any, save: Any, tmp_path: Path) -> None:
    signed = Signed(run, save, tmp_path)
    rung = signed.audit()
    assert rung["failed"] == 0
    assert "signature" not in json.dumps(rung["cannot_be_said"])
    without_key = told(save(signed.lines))["runs"][0]["rungs"][4]
    assert "--keys names no public key" in json.dumps(without_key)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data_sha256", "f" * 64),
        ("commitment", "e" * 64),
        ("device_timestamp_ns", 1),
        ("device_id", "QRNG 8"),
        ("sequence_id", 1),
        ("signature", "AAAA"),
        ("signature", "no base64!"),
    ],
)
def test_what_was_not_signed_is_exposed(
    run: Any, save: Any, tmp_path: Path, field: str, value: Any
) -> None:
    signed = Signed(run, save, tmp_path)
    [line for line in signed.lines if line["kind"] == "draw"][2][field] = value
    rung = signed.audit()
    assert rung["failed"] == 1
    assert "draw 2: no key given has signed it" in rung["failures"][0]["what"]


@pytest.mark.parametrize(("field", "value"), [("sequence_id", None), ("requests", 2)])
def test_what_cannot_be_verified_is_said(
    run: Any, save: Any, tmp_path: Path, field: str, value: Any
) -> None:
    signed = Signed(run, save, tmp_path)
    [line for line in signed.lines if line["kind"] == "draw"][2][field] = value
    rung = signed.audit()
    assert rung["failed"] == 0
    assert "signatures of draws" in json.dumps(rung["cannot_be_said"])


class SignedByDevice:
    """A ledger whose draws a device has signed that signs nothing but its bytes, by ECDSA."""

    def __init__(self, run: Any, save: Any, tmp_path: Path) -> None:
        ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")
        hashes = pytest.importorskip("cryptography.hazmat.primitives.hashes")
        serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
        utils = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.utils")
        key = ec.generate_private_key(ec.SECP256R1())
        self.pem = tmp_path / "device.pem"
        form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.pem.write_bytes(key.public_key().public_bytes(*form))
        self.save, self.lines = save, run(4).whole()
        for line in self.draws():
            digest = bytes.fromhex(line["data_sha256"])
            signature = key.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
            numbers = utils.decode_dss_signature(signature)
            raw = b"".join(number.to_bytes(32, "big") for number in numbers)
            line["signature"] = base64.b64encode(raw).decode()
            line["sequence_id"], line["device_timestamp_ns"] = None, None

    def draws(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["kind"] == "draw"]

    def audit(self) -> Any:
        (audited,) = told(self.save(self.lines), "--keys", self.pem)["runs"]
        return audited["rungs"][4]


def test_signatures_of_the_bytes_are_verified_from_records(
    run: Any, save: Any, tmp_path: Path
) -> None:
    signed = SignedByDevice(run, save, tmp_path)
    rung = signed.audit()
    assert rung["failed"] == 0
    assert f"{len(signed.draws())} draws are signed by a key given" in json.dumps(rung)
    assert "signature" not in json.dumps(rung["cannot_be_said"])


@pytest.mark.parametrize(
    ("field", "value"),
    [("data_sha256", "f" * 64), ("signature", "AAAA"), ("signature", "A" * 86 + "==")],
)
def test_bytes_that_the_device_has_not_signed_are_exposed(
    run: Any, save: Any, tmp_path: Path, field: str, value: str
) -> None:
    signed = SignedByDevice(run, save, tmp_path)
    signed.draws()[2][field] = value
    rung = signed.audit()
    assert rung["failed"] == 1
    assert "draw 2: no key given has signed it" in rung["failures"][0]["what"]


def test_a_signature_that_is_there_twice_is_exposed(run: Any, save: Any, tmp_path: Path) -> None:
    signed = SignedByDevice(run, save, tmp_path)
    first, second = signed.draws()[:2]
    second["signature"], second["data_sha256"] = first["signature"], first["data_sha256"]
    assert "has the same signed answer already" in json.dumps(signed.audit()["failures"])


def test_keys_of_both_kinds_leave_open_who_signed_what_is_incomplete(
    run: Any, save: Any, tmp_path: Path
) -> None:
    signed = SignedByDevice(run, save, tmp_path)
    server = Signed(run, save, tmp_path)
    signed.pem.write_bytes(signed.pem.read_bytes() + server.pem.read_bytes())
    assert signed.audit()["failed"] == 0
    signed.draws()[2]["data_sha256"] = "f" * 64
    rung = signed.audit()
    assert rung["failed"] == 0
    assert "signatures of draws whose sequence_id" in json.dumps(rung["cannot_be_said"])


def test_other_keys_are_refused(run: Any, save: Any, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    path = save(run().whole())
    for text in ("", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"):
        (tmp_path / "key.pem").write_text(text)
        result = invoke(path, "--keys", tmp_path / "key.pem")
        assert (result.exit_code, result.stdout) == (2, "")
    assert invoke(path, "--keys", tmp_path / "absent.pem").exit_code == 2
