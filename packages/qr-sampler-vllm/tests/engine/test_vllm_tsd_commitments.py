# SPDX-License-Identifier: Apache-2.0
"""Canonical verification tells a source which rows its numbers decide, and the audit says whether.

The session, its ledger and the audit are the real ones; the engine is a loop over made-up logits.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qr_sampler import EntropyDraw, EntropySource, Settings
from qr_sampler.host import SamplingSession, StopConditions, TokenSequence
from qr_sampler.host.session import EngineFacts
from qr_sampler_tsd import craft_relative_psi
from qr_sampler_tsd.proposers import BigramProposer
from qr_sampler_vllm.tsd.drafter import DraftRequest
from qr_sampler_vllm.tsd.sequences import RequestRows
from qr_sampler_vllm.tsd.verification.canonical import Canonical

pytest.importorskip("qr_sampler_cli", reason="needs qr-sampler, which the vllm session installs")

from qr_sampler_cli.audit.auditor import audit_runs
from qr_sampler_cli.audit.files import ledgers_of

VOCAB = 8
STEPS = 40
PROPOSER = BigramProposer.from_payloads(
    craft_relative_psi([0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.04, 0.01], 6), {}
)
Fields = dict[str, Any]


class Told(EntropySource):
    """Remembers what it is told."""

    name = "told"
    blocks = False
    commits = True

    def __init__(self) -> None:
        self._generator = np.random.default_rng(8)
        self.commitments: list[str] = []

    def get_random_bytes(self, n: int) -> bytes:
        return self._generator.bytes(n)

    def committed_draw(self, n: int, commitment: bytes) -> EntropyDraw:
        self.commitments.append(commitment.hex())
        return self.draw(n)


def played(folder: Path, verifier: str, source: EntropySource) -> Path:
    """Plays a run of three sequences with drafts of all fates, and returns its ledger."""
    import torch

    settings = Settings.load(
        entropy_source_type=source.name,
        ledger_dir=folder,
        ledger_blocks=True,
        temperature_strategy="edt",
    )
    session = SamplingSession(
        EngineFacts(engine="loop", model="none"), settings, sources={source.name: source}
    )
    pending: dict[str, Any] = {}
    mode = Canonical(session, SimpleNamespace(pending=pending), verifier)  # type: ignore[arg-type]
    rng = np.random.default_rng(3)
    sequences = {name: begun(session) for name in "abc"}
    for step in range(STEPS):
        asked = [
            DraftRequest(name, own, len(own.tokens), PROPOSER.start([1]), int(rng.integers(1, 5)))
            for name, own in sequences.items()
            if rng.random() < 0.8
        ]
        mode.drafts(PROPOSER, asked)
        requests: list[RequestRows] = []
        first = 0
        for name, own in sequences.items():
            drafts = pending[name].drafts if name in pending else []
            kept = list(drafts[: int(rng.integers(len(drafts) + 1))])
            requests.append(RequestRows(name, own, None, first, list(own.tokens), kept))
            first += len(kept) + 1
        logits = rng.normal(0.0, 2.0, (first, VOCAB)).astype(np.float32)
        if step % 9 == 5:
            # A row that has no law ends the block before it.
            logits[rng.integers(first)] = np.nan
        verified = mode.verify(torch.from_numpy(logits), requests)
        session.record(verified.records)
        for name, own in list(sequences.items()):
            if rng.random() < 0.2:
                # Some are taken back, as after a preemption.
                session.record(own.resume(own.tokens[: len(own.tokens) - 1]))
            session.record(own.confirm())
            if rng.random() < 0.05:
                session.record(own.end("stop"))
                sequences[name] = begun(session)
                if name in pending:
                    session.record(pending.pop(name).discards("aborted"))
    for name, own in sequences.items():
        if name in pending:
            session.record(pending.pop(name).discards("aborted"))
        session.record(own.end("closed"))
    session.close()
    (path,) = (path for path in folder.glob("*.jsonl") if "." not in path.stem)
    return path


def begun(session: SamplingSession) -> TokenSequence:
    sequence = session.begin({}, StopConditions(frozenset()), ending_token=3)
    assert sequence is not None
    return sequence


@pytest.fixture(scope="module", params=["token", "block"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    source = Told()
    path = played(tmp_path_factory.mktemp(request.param), request.param, source)
    return path, source.commitments


def lines_of(path: Path) -> list[Fields]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def consistent(path: Path) -> Any:
    """The rung that judges commitments."""
    (result,) = audit_runs(ledgers_of([path]))
    return {rung.number: rung for rung in result.rungs}[4]


def test_the_audit_recomputes_every_commitment(run: Any) -> None:
    path, commitments = run
    (result,) = audit_runs(ledgers_of([path]))
    assert [rung.failures for rung in result.rungs] == [[]] * len(result.rungs)
    assert {rung.number: rung.status for rung in result.rungs}[4] == "holds"
    lines = lines_of(path)
    draws = [line for line in lines if line["kind"] == "draw"]
    told = [line["commitment"] for line in draws if line["commitment"]]
    assert sorted(told) == sorted(commitments)
    assert all(line["t_logits_ns"] is not None for line in draws if line["commitment"])
    tokens = [line for line in lines if line["kind"] == "token"]
    assert {line["outcome"] for line in tokens} == {"accepted", "corrected", "bonus"}
    assert all(line["row_digest"] for line in tokens)
    assert all(("row_draw" in line) is (line["outcome"] == "accepted") for line in tokens)
    # More rows were told of than tokens came of them: those behind rejected drafts.
    assert sum(len(line.get("rows", ())) for line in draws) > len(tokens)


def changed(path: Path, folder: Path, edit: Callable[[list[Fields]], None]) -> Path:
    """Returns a copy whose chain is computed anew after *edit* has changed its lines."""
    shutil.copytree(path.parent, folder, dirs_exist_ok=True)
    lines = lines_of(path)
    edit(lines)
    copy, prev, told = folder / path.name, "0" * 64, []
    for n, line in enumerate(lines):
        line.update(n=n, prev=prev)
        if line["kind"] == "close":
            line["head"] = prev
        told.append(json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode())
        prev = hashlib.sha256(told[-1]).hexdigest()
    copy.write_bytes(b"".join(line + b"\n" for line in told))
    return copy


def other_temperature(lines: list[Fields]) -> None:
    accepted(lines)["temperature"] += 0.5


def other_token(lines: list[Fields]) -> None:
    # The link of a later step covers the last token of this one.
    [line for line in lines if line.get("outcome") == "corrected"][2]["token_id"] ^= 1


def other_draw(lines: list[Fields]) -> None:
    line = accepted(lines)
    line["row_draw"] = next(
        each["draw"]
        for each in lines
        if each["kind"] == "draw" and each.get("rows") and each["draw"] < line["row_draw"]
    )


def another_row(lines: list[Fields]) -> None:
    committed(lines)["rows"].append("ab" * 32)


def a_row_less(lines: list[Fields]) -> None:
    committed(lines)["rows"].pop()


def other_commitment(lines: list[Fields]) -> None:
    committed(lines)["commitment"] = "ab" * 32


def accepted(lines: list[Fields]) -> Fields:
    """An accepted draft that other tokens of its sequence follow."""
    return [line for line in lines if line.get("outcome") == "accepted"][2]


def committed(lines: list[Fields]) -> Fields:
    return [line for line in lines if line.get("rows")][3]


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (other_temperature, "row_digest is not that of"),
        (other_token, "row_digest is not that of"),
        (other_draw, "was not told of its row"),
        (another_row, "is not that of its rows"),
        (a_row_less, "is not that of its rows"),
        (other_commitment, "is not that of its rows"),
    ],
)
def test_what_contradicts_a_commitment_is_exposed(
    run: Any, tmp_path: Path, edit: Callable[[list[Fields]], None], fault: str
) -> None:
    path, _ = run
    rung = consistent(changed(path, tmp_path, edit))
    assert rung.status == "fails"
    told = " ".join(failure.what for failure in rung.failures)
    assert fault in told
    # What is only copied stays right.
    (tmp_path / "same").mkdir()
    assert consistent(changed(path, tmp_path / "same", lambda lines: None)).status == "holds"


def test_a_source_that_takes_no_commitment_is_told_nothing(tmp_path: Path) -> None:
    source = Told()
    source.commits = False
    path = played(tmp_path, "block", source)
    assert source.commitments == []
    assert consistent(path).status == "holds"
    assert not any(line.get("rows") or line.get("row_digest") for line in lines_of(path))
