# SPDX-License-Identifier: Apache-2.0
"""The audit of ledgers whose text was left out: what it can say of them, and what it cannot."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from qr_sampler import EntropySource, Settings
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.records.files import ledgers_in
from qr_sampler.records.redaction import redact
from qr_sampler.testing import ToyHost, play_script
from qr_sampler_cli.audit.auditor import AuditedRun, audit_runs
from qr_sampler_cli.audit.files import ledgers_of
from qr_sampler_cli.audit.rungs.emitted import ReceivedTokens


class Device(EntropySource):
    name = "device"
    blocks = False
    commits = True

    def __init__(self) -> None:
        self._random = Random(1)

    def get_random_bytes(self, n: int) -> bytes:
        return self._random.randbytes(n)


def host_in(folder: Path, **settings: Any) -> ToyHost:
    loaded = Settings.load(
        entropy_source_type="device",
        sample_count=16,
        max_ks_distance=1.0,
        ledger_dir=folder,
        **settings,
    )
    facts = EngineFacts(engine="toy", model="none")
    return ToyHost(SamplingSession(facts, loaded, sources={"device": Device()}), seed=1)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ToyHost]:
    folder = tmp_path_factory.mktemp("ledger")
    host = host_in(folder)
    play_script(host, seed=1)
    return folder, host


PAGE = Path(__file__).resolve().parents[4] / "docs" / "ledger.md"


@pytest.mark.skipif(not PAGE.exists(), reason="the page is in the repository only")
@pytest.mark.parametrize("program", ["python", "perl"])
def test_programs_of_the_page_find_the_head_of_the_original(
    recorded: tuple[Path, ToyHost], published: Path, lines: list[bytes], program: str
) -> None:
    if shutil.which("perl") is None:
        pytest.skip("this machine has no Perl")
    text = re.findall(rf"```{program}\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)[0]
    command = {"python": [sys.executable, "-I", "-c"], "perl": ["perl", "-e"]}[program]

    def told(path: Path) -> str:
        run = [*command, text, str(path)]
        return subprocess.run(run, capture_output=True, text=True, timeout=60).stdout

    head = audited(recorded[0]).head
    assert told(published) == f"{len(lines)} lines, head {head}\n"
    published.write_bytes(b"\n".join([*lines[:9], *lines[10:], b""]))
    assert told(published) == ""


@pytest.mark.skipif(not PAGE.exists(), reason="the page is in the repository only")
def test_a_program_of_the_page_compares_prompts(tmp_path: Path) -> None:
    (text,) = [
        text
        for text in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
        if "prompts.jsonl" in text
    ]
    host = host_in(tmp_path, ledger_prompts=True)
    for count in range(3):
        host.add(2, prompt=[count] * count, request_key=str(count))
    for _ in range(4):
        host.step()
    host.close()
    (ledger,) = ledgers_in(tmp_path)

    def told() -> str:
        run = [sys.executable, "-I", "-c", text, str(ledger)]
        return subprocess.run(run, capture_output=True, text=True, timeout=60).stdout

    assert told() == "3 of 3 sequences have the prompt of their prompt_digest\n"
    (sidecar,) = tmp_path.glob("*.prompts.jsonl")
    sidecar.write_bytes(sidecar.read_bytes().replace(b"[2,2]", b"[2,3]"))
    assert told() == "2 of 3 sequences have the prompt of their prompt_digest\n"


@pytest.fixture
def lines(recorded: tuple[Path, ToyHost]) -> list[bytes]:
    (ledger,) = ledgers_in(recorded[0])
    return list(redact(ledger.read_bytes().split(b"\n")[:-1]))


@pytest.fixture
def published(recorded: tuple[Path, ToyHost], tmp_path: Path, lines: list[bytes]) -> Path:
    (ledger,) = ledgers_in(recorded[0])
    (tmp_path / ledger.name).write_bytes(b"\n".join([*lines, b""]))
    return tmp_path / ledger.name


def audited(path: Path, received: ReceivedTokens | None = None) -> AuditedRun:
    (run,) = audit_runs(ledgers_of([path]), received=received)
    return run


def test_the_chain_holds_and_says_how_much_is_redacted(
    recorded: tuple[Path, ToyHost], published: Path
) -> None:
    original, run = audited(recorded[0]), audited(published)
    assert [rung.failures for rung in run.rungs] == [[]] * 6
    assert (run.head, run.lines, run.tokens) == (original.head, original.lines, original.tokens)
    whole, complete, in_time, consistent = run.rungs[:4]
    assert in_time.status == "holds"
    # What is before a redacted line is in its digest, which nothing here shows.
    assert [what[:35] for what in whole.unsaid] == ["whether the lines before a redacted"]
    count = published.read_bytes().count(b'{"kind":"redacted"')
    assert count > 200
    assert any(note.startswith(f"{count:,} lines are redacted: ") for note in whole.notes)
    assert complete.unsaid == {} or list(complete.unsaid) == list(original.rungs[1].unsaid)
    assert consistent.status == "cannot be said"
    assert "row digests, links and commitments of redacted lines" in consistent.unsaid
    assert "tokens of redacted lines, whose ids are left out" in run.rungs[5].unsaid


def test_a_past_written_anew_before_a_redacted_line_does_not_hold(
    published: Path, lines: list[bytes]
) -> None:
    last = max(index for index, line in enumerate(lines) if b'"redacted"' in line[:20])
    genesis = {**json.loads(lines[0]), "engine": "another"}
    anew = [json.dumps(genesis, separators=(",", ":")).encode()]
    for line in lines[1:last]:
        record = json.loads(line)
        record["prev"] = head_before(anew[-1])
        anew.append(json.dumps(record, separators=(",", ":")).encode())
    bridge = {**json.loads(lines[last]), "prev": head_before(anew[-1])}
    anew.append(json.dumps(bridge, separators=(",", ":")).encode())
    published.write_bytes(b"\n".join([*anew, *lines[last + 1 :], b""]))
    run = audited(published)
    # Its head is that of the original, and no line betrays it.
    assert run.head == hashlib.sha256(lines[-1]).hexdigest()
    assert run.rungs[0].failures == []
    assert run.rungs[0].status == "cannot be said"


def head_before(line: bytes) -> str:
    """Returns what the line behind *line* has to name."""
    record: dict[str, str] = json.loads(line)
    return record["sha256"] if record["kind"] == "redacted" else hashlib.sha256(line).hexdigest()


def changed(lines: Iterable[bytes], kind: str, change: Any) -> list[bytes]:
    """Returns *lines* with a change in the first whose original is of a kind."""
    made, done = [], False
    for line in lines:
        record = json.loads(line)
        if not done and record.get("of") == kind:
            change(record)
            line, done = json.dumps(record, separators=(",", ":")).encode(), True
        made.append(line)
    assert done
    return made


def test_what_follows_from_what_is_left_is_still_judged(
    published: Path, lines: list[bytes]
) -> None:
    def shift(record: dict[str, Any]) -> None:
        record["fields"]["u"] = (record["fields"]["u"] + 0.5) % 1.0

    published.write_bytes(b"\n".join([*changed(lines, "token", shift), b""]))
    assert [rung.number for rung in audited(published).rungs if rung.failed] == [4]


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(sha256="0" * 64),
        lambda record: record["fields"].pop("u"),
        lambda record: record["fields"].update(more=1),
        lambda record: record.update(of="genesis"),
        lambda record: record.update(of="poem"),
    ],
)
def test_other_changes_break_the_chain_or_the_form(
    published: Path, lines: list[bytes], change: Any
) -> None:
    published.write_bytes(b"\n".join([*changed(lines, "token", change), b""]))
    assert audited(published).rungs[0].status == "fails"


def test_lines_that_are_not_redacted_are_protected_as_before(
    published: Path, lines: list[bytes]
) -> None:
    edited = [
        line.replace(b'"synchronized":', b'"synchronized": ') if b'"clock"' in line[:20] else line
        for line in lines
    ]
    published.write_bytes(b"\n".join([*edited, b""]))
    assert audited(published).rungs[0].status == "fails"


def test_of_received_tokens_only_their_number_can_be_compared(
    recorded: tuple[Path, ToyHost], published: Path, tmp_path: Path
) -> None:
    host = recorded[1]
    texts = [request for request in host.requests if request.sequence is not None]
    answers = [
        {"request_key": each.sequence.request_key, "token_ids": each.output}
        for each in texts
        if each.sequence is not None and each.finished and not each.first
    ]

    def judged(received: list[dict[str, Any]]) -> Any:
        path = tmp_path / "received.json"
        path.write_text("".join(json.dumps(answer) + "\n" for answer in received))
        return audited(published, ReceivedTokens(path)).rungs[1]

    rung = judged(answers)
    assert "whether clients received tokens whose ids are redacted" in rung.unsaid
    short = [{**answers[0], "token_ids": answers[0]["token_ids"] + [1]}, *answers[1:]]
    assert judged(short).failed > rung.failed
