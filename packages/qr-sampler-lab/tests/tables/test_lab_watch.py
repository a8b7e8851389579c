# SPDX-License-Identifier: Apache-2.0
"""Watching a ledger: what it shows is what the ledger says, and sealed ones show counts only."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qr_sampler_cli.audit.reading.lines import NotALedgerError
from qr_sampler_cli.audit.schema.token_lines import Token
from qr_sampler_lab.analysis import ville_boundary
from qr_sampler_lab.tables.columns import TokenChunk
from qr_sampler_lab.tables.errors import TablesError
from qr_sampler_lab.tables.reading import token_chunks
from qr_sampler_lab.watch.display import shade
from qr_sampler_lab.watch.following import Follower
from qr_sampler_lab.watch.screen import follow, print_once
from qr_sampler_lab.watch.state import WatchState
from qr_sampler_lab.watch.tokens import as_numbers, decoder_of

SEAL = "5e" * 32


def test_the_present_state_is_what_the_records_say(arms: Any, command: Any) -> None:
    path = arms()
    told = command("watch", path, "--once")
    assert told.exit_code == 0, told.output
    chunk = TokenChunk.concatenated(token_chunks([path]))
    n, z = len(chunk), float(chunk.statistic.sum()) / math.sqrt(len(chunk))
    limit = float(ville_boundary(n, tau=0.1)) / math.sqrt(n)
    for words in (
        f"tokens {n:,}",
        f"fallback {int(chunk.fallback.sum()):,}",
        f"z {z:+.2f}",
        f"±{limit:.2f}",
        "left after",
        "ended",
        "fallback to backup: device: unplugged",
    ):
        assert words in told.output
    latest = chunk[chunk.sequence == chunk.sequence.max()]
    assert " ".join(map(str, latest.token_id.tolist())) in told.output
    assert "\x1b" not in told.output
    assert command("watch", path.parent, "--once").exit_code == 0


def test_a_growing_ledger_is_followed(arms: Any, tmp_path: Path) -> None:
    data = arms().read_bytes()
    path = tmp_path / "growing.jsonl"
    tokens = TokenChunk.concatenated(token_chunks([arms("again")]))
    first = data.index(b"\n", 5000) + 7
    path.write_bytes(data[:first])
    follower, state = Follower(path), WatchState()

    def look() -> int:
        for file, record in follower.look():
            state.take(record, file.path)
        state.settle()
        return state.counts["tokens"]

    assert look() == data[: data.rindex(b"\n", 0, first)].count(b'"kind":"token"')
    rng = np.random.default_rng(1)
    at = first
    while at < len(data):
        size = int(rng.integers(1, 40_000))
        with path.open("ab") as file:
            file.write(data[at : at + size])
        at += size
        whole = data[: data.rindex(b"\n", 0, at) + 1] if at < len(data) else data
        assert look() == whole.count(b'{"kind":"token"')
        assert bool(state.open_files) == (b'"kind":"close"' not in whole)
    assert look() == len(tokens)


@pytest.mark.parametrize("color", [False, True])
def test_it_ends_when_it_is_interrupted(
    arms: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], color: bool
) -> None:
    path = arms(steps=40)
    looks = []

    def interrupted(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            raise KeyboardInterrupt

    state = WatchState()
    if not color:
        with pytest.raises(TablesError, match="no terminal; use --once"):
            follow(Follower(path), state, as_numbers, wait=interrupted)
        return
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    follow(Follower(path), state, as_numbers, wait=interrupted)
    shown = capsys.readouterr().out
    assert len(looks) == 3
    assert f"tokens {state.counts['tokens']:,}" in shown
    assert "\x1b[48;2;" in shown, "tokens are shaded"
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor is back"


def test_sealed_ledgers_show_counts_only(tmp_path: Path, host: Any, command: Any) -> None:
    made = host(tmp_path / "sealed", ledger_seal=SEAL)
    for _ in range(30):
        while len(made.running) < 4:
            made.add(9, request_key="secret arm HI")
        made.step()
    made.close()
    told = command("watch", tmp_path / "sealed", "--once").output
    assert "sealed: results are not shown" in told
    assert "tokens 120" in told
    for word in ("z +", "z -", "e-value", "secret arm", "latency", "device", "backup"):
        assert word not in told


def test_a_ledger_whose_genesis_is_unreadable_may_be_sealed(
    tmp_path: Path, host: Any, command: Any
) -> None:
    made = host(tmp_path, ledger_seal=SEAL)
    made.add(5)
    made.step()
    made.close()
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes().replace(b'"model":', b'"modal":', 1))
    told = command("watch", path, "--once")
    assert told.exit_code == 0
    assert "results are not shown" in told.output
    assert "z " not in told.output


def test_accepted_drafts_are_no_evidence(arms: Any) -> None:
    state, follower = WatchState(), Follower(arms())
    drafts = 0
    for file, record in follower.look():
        if isinstance(record, Token) and record.position % 2:
            record.role = "proposal"
            drafts += 1
        state.take(record, file.path)
    state.settle()
    assert drafts
    assert state.evidence.result().n == state.counts["tokens"] - drafts


def test_terminals_are_not_steered(tmp_path: Path, host: Any, command: Any) -> None:
    made = host(tmp_path / "ledgers")
    made.add(4, request_key="\x1b]0;owned\x07 [bold]")
    for _ in range(4):
        made.step()
    made.close()
    told = command("watch", tmp_path / "ledgers", "--once").output
    assert "\x1b" not in told
    assert "\\x1b]0;owned" in told
    assert "[bold]" in told


def test_bad_files_are_named(arms: Any, tmp_path: Path, command: Any) -> None:
    path = arms(steps=10)
    for name, data, reason in (
        ("empty.jsonl", b"", "is not a ledger"),
        ("binary.jsonl", b"\x00\xff" * 50, "is not a ledger"),
    ):
        bad = tmp_path / name
        bad.write_bytes(data)
        told = command("watch", bad, "--once")
        assert told.exit_code == 2
        assert reason in told.output
    assert "cannot be read" in command("watch", tmp_path / "absent.jsonl", "--once").output
    (tmp_path / "bare").mkdir()
    with pytest.raises(NotALedgerError, match=r"has no \*.jsonl"):
        Follower(tmp_path / "bare")
    no_model = command("watch", path, "--once", "--model", path)
    assert no_model.exit_code == 2
    assert "takes the directory of a model" in no_model.output


def test_strange_lines_are_counted_in_bounded_memory(
    arms: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("qr_sampler_lab.watch.following.READ_BYTES", 1000)
    monkeypatch.setattr("qr_sampler_lab.watch.following.LONGEST_LINE", 5000)
    lines = arms(steps=10).read_bytes().split(b"\n")
    path = tmp_path / "strange.jsonl"
    path.write_bytes(b"\n".join([*lines[:-1], b"x" * 100_000, b"\xff\xfe", lines[4], b""]))
    follower, state = Follower(path), WatchState()
    print_once(follower, state, as_numbers)
    assert "2 lines are no records" in capsys.readouterr().out
    assert state.counts["tokens"] == sum(b'{"kind":"token"' in line for line in [*lines, lines[4]])
    path.write_bytes(b"")
    print_once(follower, state, as_numbers)
    assert "it was cut or replaced while it was watched" in capsys.readouterr().out


def test_shades_tell_both_sides() -> None:
    assert shade(0.5) is None
    low, high = shade(0.01), shade(0.99)
    assert low is not None
    assert high is not None
    assert low[2] > low[0]
    assert high[0] > high[2]
    assert shade(0.3) != shade(0.01)


def test_a_tokenizer_makes_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tokenizer:
        def decode(self, ids: list[int]) -> str:
            return {1: "one ", 2: "two\n"}[ids[0]] if ids[0] < 3 else [][ids[0]]

    class Transformers:
        class AutoTokenizer:
            @staticmethod
            def from_pretrained(path: str, **options: object) -> Tokenizer:
                assert options == {"local_files_only": True, "trust_remote_code": False}
                if not list(Path(path).iterdir()):
                    raise OSError("no tokenizer here\nand more")
                return Tokenizer()

    monkeypatch.setattr(
        "qr_sampler_lab.watch.tokens.import_package", lambda name, **options: Transformers
    )
    with pytest.raises(TablesError, match=r"no tokenizer that can be loaded: no tokenizer here$"):
        decoder_of(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    decode = decoder_of(tmp_path)
    assert [decode(1), decode(2), decode(7)] == ["one ", "two\n", "7 "]
