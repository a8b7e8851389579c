# SPDX-License-Identifier: Apache-2.0
"""What a server of the kit signs and writes down is verified from records alone."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from qr_sampler import Settings
from qr_sampler.entropy import EntropySource
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.records.redaction import redact
from qr_sampler.testing import ToyHost, play_script
from qr_sampler_cli.main import app

pytest.importorskip("qr_sampler_grpc", reason="qr-sampler-grpc is an extra of this package")
from qr_sampler_grpc.direct.source import DirectSource
from qr_sampler_grpc.source import QuantumGrpcSource
from qr_sampler_grpc.testing.keys import KeyPair, make_key_pair
from qr_sampler_grpc.testing.patience import NO_BREAKER, PATIENT_MS

ROOT = Path(__file__).resolve().parents[4]
TEMPLATE = ROOT / "servers" / "qrng_template_server.py"
pytestmark = pytest.mark.skipif(not TEMPLATE.exists(), reason="it is in the repository only")


@contextmanager
def template_server(*arguments: str | Path) -> Iterator[str]:
    """Runs the template server in a process of its own, and yields its address."""
    command = [sys.executable, str(TEMPLATE), "--address=127.0.0.1:0", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().rpartition(" ")[2].strip()
        finally:
            process.terminate()
        assert process.wait(60) == 0


def source_of(address: str, beside: str, pair: KeyPair, mode: str) -> EntropySource:
    """Returns a source for the server, by gRPC or over the socket beside it."""
    if mode == "direct":
        return DirectSource(
            beside, public_key=str(pair.public), timeout_ms=PATIENT_MS, breaker=NO_BREAKER
        )
    return QuantumGrpcSource(
        address,
        mode=mode,
        public_key=str(pair.public),
        timeout_ms=PATIENT_MS,
        breaker=NO_BREAKER,
    )


def play(folder: Path, source: EntropySource) -> Path:
    """Has a host write a ledger with draws from the source."""
    session = SamplingSession(
        EngineFacts(engine="toy 1.0", model="none"),
        Settings.load(
            entropy_source_type=source.name,
            fallback_mode="error",
            sample_count=64,
            ledger_dir=folder,
        ),
        sources={source.name: source},
    )
    play_script(ToyHost(session, seed=1), seed=1)
    session.close()
    source.close()
    (path,) = folder.glob("*.jsonl")
    return path


def saved(lines: list[dict[str, Any]], folder: Path, name: str) -> Path:
    """Writes lines in a chain that is computed anew."""
    prev, told = "0" * 64, []
    for n, line in enumerate(lines):
        fields = {**line, "n": n, "prev": prev}
        told.append(json.dumps(fields, separators=(",", ":")).encode())
        prev = hashlib.sha256(told[-1]).hexdigest()
    path = folder / name
    path.write_bytes(b"\n".join((*told, b"")))
    return path


class Recorded:
    """A run with a server that signs and writes down what it answers."""

    def __init__(self, folder: Path, mode: str) -> None:
        self.pair = make_key_pair(folder)
        self.witness = folder / "witness.jsonl"
        options = ("--signing-key", self.pair.private, "--witness-log", self.witness)
        # The folders of tests have longer names than a socket may have.
        with tempfile.TemporaryDirectory(prefix="qr") as short:
            beside = f"unix://{short}/direct.sock"
            with template_server(*options, "--direct", beside) as address:
                source = source_of(address, beside, self.pair, mode)
                self.ledger = play(folder / "ledger", source)
        lines = self.ledger.read_bytes().split(b"\n")[:-1]
        self.lines = [json.loads(line) for line in lines]
        self.draws = [line for line in self.lines if line["kind"] == "draw"]

    def audit(self, lines: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
        """Returns rung 5 of lines whose chain is computed anew."""
        return self.judged(saved(lines, folder, self.ledger.name))

    def judged(self, path: Path, *more: str) -> dict[str, Any]:
        options = [f"--keys={self.pair.public}", f"--witness={self.witness}", *more]
        told = CliRunner().invoke(app, ["audit", str(path), "--json", *options])
        (run,) = json.loads(told.stdout)["runs"]
        assert run["rungs"][1]["failed"] == 0
        rung: dict[str, Any] = run["rungs"][4]
        return rung


@pytest.fixture(
    scope="module",
    params=["unary", "server_streaming", "bidi_streaming", "direct"],
    name="recorded",
)
def _recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("run"), request.param)


def test_every_signature_is_verified_from_records(recorded: Recorded) -> None:
    rung = recorded.judged(recorded.ledger)
    assert len(recorded.draws) > 50
    assert rung["failures"] == []
    assert f"{len(recorded.draws):,} draws are signed by a key given" in rung["notes"]
    (unsaid,) = rung["cannot_be_said"]
    assert "without anchors" in unsaid["what"]


def test_the_program_of_the_page_checks_the_log(recorded: Recorded, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "ledger.md").read_text("utf-8")
    script = tmp_path / "check.py"
    script.write_text(page.split("```python\n")[1].split("```")[0])
    told = subprocess.run(
        [sys.executable, "-I", str(script), str(recorded.witness)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.stdout.startswith(f"{len(recorded.draws) + 2} lines, head ")


@pytest.mark.parametrize(
    "field", ["data_sha256", "commitment", "device_timestamp_ns", "device_id", "sequence_id"]
)
def test_one_flipped_bit_fails(recorded: Recorded, tmp_path: Path, field: str) -> None:
    lines = [dict(line) for line in recorded.lines]
    line = [line for line in lines if line["kind"] == "draw"][17]
    value = line[field]
    if isinstance(value, int):
        line[field] = value ^ 1
    elif field == "device_id":
        line[field] = value[:-1] + chr(ord(value[-1]) ^ 1)
    else:
        line[field] = f"{int(value, 16) ^ 1:064x}"
    rung = recorded.audit(lines, tmp_path)
    failures = [failure["what"] for failure in rung["failures"]]
    assert "draw 17: no key given has signed it" in failures
    # The device is another one than the log is of.
    missed = f"draw 17: the log of the server holds no such answer: {recorded.witness}"
    assert (missed in failures) == (field != "device_id")


def test_redacted_draws_are_not_held_against_anybody(recorded: Recorded, tmp_path: Path) -> None:
    lines = recorded.ledger.read_bytes().split(b"\n")[:-1]
    path = tmp_path / recorded.ledger.name
    path.write_bytes(b"\n".join([*redact(lines), b""]))
    rung = recorded.judged(path)
    assert rung["failures"] == []
    unsaid = {each["what"]: each["count"] for each in rung["cannot_be_said"]}
    assert unsaid["who delivered the bytes of redacted draws"] == len(recorded.draws)


def test_draws_in_another_order_than_the_server_has_seen_fail(
    recorded: Recorded, tmp_path: Path
) -> None:
    lines = [dict(line) for line in recorded.lines]
    draws = [line for line in lines if line["kind"] == "draw"]
    for name in ("t_logits_ns", "t_request_ns", "t_received_ns"):
        draws[3][name], draws[9][name] = draws[9][name], draws[3][name]
    failures = recorded.audit(lines, tmp_path)["failures"]
    assert "has this answer after one that was asked for later" in str(failures)


def test_a_draw_that_is_there_twice_fails(recorded: Recorded, tmp_path: Path) -> None:
    lines = [dict(line) for line in recorded.lines]
    draws = [line for line in lines if line["kind"] == "draw"]
    kept = ("draw", "bytes", "kind", "n", "prev")
    draws[9].update({name: value for name, value in draws[3].items() if name not in kept})
    path = saved(lines, tmp_path, recorded.ledger.name)
    told = CliRunner().invoke(app, ["audit", str(path), f"--witness={recorded.witness}"])
    assert "another draw has the same answer in the log of the server" in told.stdout


def test_bytes_that_were_signed_once_serve_no_second_draw(
    recorded: Recorded, tmp_path: Path
) -> None:
    lines = [dict(line) for line in recorded.lines]
    draws = [line for line in lines if line["kind"] == "draw"]
    signed = ("sequence_id", "device_timestamp_ns", "commitment", "data_sha256", "signature")
    draws[9].update({name: draws[3][name] for name in signed})
    path = saved(lines, tmp_path, recorded.ledger.name)
    arguments = ["audit", str(path), "--json", f"--keys={recorded.pair.public}"]
    (run,) = json.loads(CliRunner().invoke(app, arguments).stdout)["runs"]
    rung = run["rungs"][4]
    assert rung["failed"] == 1
    assert "has the same signed answer already" in rung["failures"][0]["what"]


def test_a_log_that_was_changed_is_no_witness(recorded: Recorded, tmp_path: Path) -> None:
    lines = recorded.witness.read_bytes().split(b"\n")
    changed = tmp_path / "witness.jsonl"
    for told, words in (
        ([*lines[:9], *lines[10:]], "line n 10 does not follow"),
        ([lines[0], lines[1].replace(b'"device_id":"t', b'"device_id":"T'), *lines[2:]], "line n"),
        ([b"{", *lines], "a line that is none of such a file"),
        ([b"[" * 2**20, b""], "a line that is none of such a file"),
    ):
        changed.write_bytes(b"\n".join(told))
        result = CliRunner().invoke(app, ["audit", str(recorded.ledger), f"--witness={changed}"])
        assert result.exit_code == 2
        assert words in result.output
    absent = f"--witness={tmp_path / 'none'}"
    assert CliRunner().invoke(app, ["audit", str(recorded.ledger), absent]).exit_code == 2


def test_answers_that_a_log_has_lost_are_not_held_against_anybody(
    recorded: Recorded, tmp_path: Path
) -> None:
    lines = [json.loads(line) for line in recorded.witness.read_bytes().split(b"\n")[:-1]]
    # As if the disk had refused five answers in the middle, and the server had ended early.
    gap = {"kind": "gap", "reason": "refused", "missing": {"answer": 5}, "torn_bytes": 0}
    path = saved([*lines[:20], gap, *lines[25:40]], tmp_path, "witness.jsonl")
    told = CliRunner().invoke(app, ["audit", str(recorded.ledger), f"--witness={path}", "--json"])
    rung = json.loads(told.stdout)["runs"][0]["rungs"][4]
    assert rung["failures"] == []
    unsaid = {each["what"]: each["count"] for each in rung["cannot_be_said"]}
    assert unsaid["what was in answers that the log has lost"] == 5
    later = "whether draws after the end of the log were answered"
    assert unsaid[later] == len(recorded.draws) - 39
