# SPDX-License-Identifier: Apache-2.0
"""Ledgers without text: the chain closes, statistics go on, and no token can be found out."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qr_sampler import ConfigError, EntropySource, Settings
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.records.chain import BLINDED_KINDS, blinds, head_of, line_of
from qr_sampler.records.files import LedgerWriter, ledgers_in
from qr_sampler.records.reader import read_ledger
from qr_sampler.records.redaction import redact
from qr_sampler.testing.toy_host import VOCAB_SIZE, ToyHost, play_script


class Device(EntropySource):
    """Takes commitments, or does not."""

    name = "device"
    blocks = False

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self.commits = bool(seed % 2)

    def get_random_bytes(self, n: int) -> bytes:
        return self._random.randbytes(n)


def written(folder: Path, seed: int) -> list[list[bytes]]:
    """Returns the lines of the files of a run in which everything happens."""
    loaded = Settings.load(
        entropy_source_type="device",
        sample_count=16,
        max_ks_distance=1.0,
        ledger_dir=folder,
        ledger_max_bytes=20_000,
    )
    facts = EngineFacts(engine="toy", model="none")
    host = ToyHost(SamplingSession(facts, loaded, sources={"device": Device(seed)}), seed=seed)
    play_script(host, seed=seed, steps=30)
    paths = sorted(ledgers_in(folder), key=lambda path: ("_" in path.name, path.name))
    return [path.read_bytes().split(b"\n")[:-1] for path in paths]


@pytest.fixture(scope="module", params=[0, 1], ids=["plain", "with commitments"])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return written(tmp_path_factory.mktemp("ledger"), request.param)


def closes(lines: list[bytes]) -> str:
    """Returns the head of redacted lines, whose chain is checked as the page about it says."""
    prev = None
    for n, line in enumerate(lines):
        record = json.loads(line)
        assert record["n"] == n
        assert prev in (None, record["prev"])
        is_redacted = record["kind"] == "redacted"
        prev = record["sha256"] if is_redacted else hashlib.sha256(line).hexdigest()
    assert prev is not None
    return str(prev)


def test_the_chain_closes_with_the_digests_of_the_originals(files: list[list[bytes]]) -> None:
    assert len(files) > 1
    heads = []
    for lines in files:
        published = list(redact(lines))
        heads.append(closes(published))
        assert heads[-1] == head_of(lines[-1])
        close = json.loads(published[-1])
        kinds = Counter(
            record["of"] if record["kind"] == "redacted" else record["kind"]
            for record in map(json.loads, published[:-1])
        )
        assert close["totals"] == dict(kinds)
    for lines, head in zip(files[1:], heads, strict=False):
        assert json.loads(lines[0])["continues"]["head"] == head


def everything_in(value: Any) -> Iterator[tuple[str, Any]]:
    for name, own in value.items() if isinstance(value, dict) else ():
        yield name, own
        yield from everything_in(own)
    for own in value if isinstance(value, list) else ():
        yield from everything_in(own)


def test_nothing_is_left_that_depends_on_tokens(files: list[list[bytes]]) -> None:
    hidden = {"token_id", "token_ids", "row_digest", "link", "blind", "salt"}
    before: set[str] = set()
    for lines in files:
        for line, original in zip(redact(lines), map(json.loads, lines), strict=True):
            record = json.loads(line)
            before |= {name for name, _ in everything_in(original)}
            names = dict(everything_in(record))
            if record["kind"] == "draw":
                assert not record["commitment"]
                continue
            assert not hidden & set(names)
            if record["kind"] == "redacted":
                assert "commitment" not in record["fields"]
                assert "signature" not in record["fields"]
    assert {"token_id", "token_ids", "blind"} <= before


def test_the_digest_of_a_line_does_not_tell_its_token(files: list[list[bytes]]) -> None:
    """Without a blind it would: there are only so many tokens."""

    def found(line: bytes, values: dict[str, Any]) -> list[int]:
        digest = head_of(line)
        rest = {key: own for key, own in values.items() if key not in ("kind", "n", "prev")}
        return [
            token_id
            for token_id in range(VOCAB_SIZE)
            if head_of(
                line_of("token", values["n"], values["prev"], {**rest, "token_id": token_id})
            )
            == digest
        ]

    tried = 0
    for line in (line for lines in files for line in lines):
        values = json.loads(line)
        if values["kind"] != "token":
            continue
        known = {name: own for name, own in values.items() if name != "blind"}
        assert found(line, known) == []
        rest = {key: own for key, own in known.items() if key not in ("kind", "n", "prev")}
        unblinded = line_of("token", values["n"], values["prev"], rest)
        assert found(unblinded, known) == [values["token_id"]], "the attack does not work at all"
        tried += 1
    assert tried > 50


def test_blinds_are_all_different() -> None:
    made = blinds(10_000)
    assert len(set(made)) == len(made) == 10_000
    assert {len(blind) for blind in made} == {16}
    assert blinds(0) == []


def test_statistics_read_what_is_left(files: list[list[bytes]], tmp_path: Path) -> None:
    for lines in files:
        whole, open_ = tmp_path / "whole.jsonl", tmp_path / "open.jsonl"
        whole.write_bytes(b"\n".join([*lines, b""]))
        open_.write_bytes(b"\n".join([*redact(lines), b""]))
        for original, left in zip(read_ledger(whole), read_ledger(open_), strict=True):
            assert left["kind"] == original["kind"]
            if original["kind"] == "token":
                assert left["token_id"] is None
                same = ("u", "statistic", "source", "condition", "rank", "draw", "sequence")
                assert [left[name] for name in same] == [original[name] for name in same]
                assert left["t_received_ns"] == original["t_received_ns"]


def test_redacting_twice_changes_nothing(files: list[list[bytes]]) -> None:
    for lines in files:
        once = list(redact(lines))
        assert list(redact(once)) == once


def test_what_names_tokens_in_a_sequence_is_left_out() -> None:
    stop = {"token_ids": [7], "max_tokens": 3, "stop_strings": False}
    fields = {"logit_bias": {"7": 1.0}, "bad_words": [[7]], "repetition_penalty": 1.5}
    line = line_of("sequence", 0, "0" * 64, {"fields": fields, "stop": stop}, "x" * 16)
    (left,) = map(json.loads, redact([line]))
    assert left["fields"] == {
        "fields": {"repetition_penalty": 1.5},
        "stop": {"max_tokens": 3, "stop_strings": False},
    }


def test_lines_of_unknown_kinds_lose_everything() -> None:
    line = line_of("poem", 0, "0" * 64, {"text": "hello"}, "x" * 16)
    (left,) = map(json.loads, redact([line]))
    assert left == {
        "kind": "redacted",
        "n": 0,
        "prev": "0" * 64,
        "sha256": head_of(line),
        "of": "poem",
        "fields": {},
    }


@pytest.mark.parametrize("kind", sorted(BLINDED_KINDS))
def test_fields_of_later_versions_are_left_out(kind: str) -> None:
    own = {"sequence": "s", "draw": 1, "commitment": "ab", "text": "hello", "logprobs": [[7, 0.1]]}
    (left,) = map(json.loads, redact([line_of(kind, 0, "0" * 64, own, "x" * 16)]))
    assert left["of"] == kind
    assert not {"text", "logprobs", "commitment"} & set(left["fields"])
    assert {"sequence", "draw"} & set(left["fields"])


@pytest.mark.parametrize("value", ["[]", "{}", "7", "null", '["token"]'])
def test_odd_values_are_no_traceback(value: str) -> None:
    start = f'{{"kind":{value},"n":0,"prev":"","blind":"b"}}'.encode()
    (left,) = map(json.loads, redact([start]))
    assert left["fields"] == {}
    fields = f'{{"kind":"sequence","n":0,"prev":"","blind":"b","fields":{value},"stop":{value}}}'
    (left,) = map(json.loads, redact([fields.encode()]))
    assert left["fields"] == {"fields": {}, "stop": {}}


def test_torn_lines_are_overwritten() -> None:
    torn = line_of("token", 0, "0" * 64, {"token_id": 7}, "x" * 16)
    for length in range(1, len(torn) + 1):
        gap = line_of("gap", 0, "0" * 64, {"torn_bytes": length})
        assert list(redact([torn[:length], gap])) == [b"x" * length, gap]
    assert list(redact([b"\xff[7]", b"[7]", b"{}"])) == [b"x" * 4, b"x" * 3, b"x" * 2]


def test_lines_that_could_be_guessed_are_refused() -> None:
    with pytest.raises(ConfigError, match="has no blind"):
        list(redact([line_of("token", 3, "0" * 64, {"token_id": 7})]))


@given(st.lists(st.sampled_from([*sorted(BLINDED_KINDS), "clock", "close", "poem"]), max_size=9))
def test_lines_that_tell_of_tokens_have_blinds(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str]
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "run.jsonl"
    writer = LedgerWriter(path, blinded=BLINDED_KINDS)
    for kind in kinds:
        writer.write([(kind, {"own": 1})])
    writer.release()
    written = b"".join(file.read_bytes() for file in ledgers_in(path.parent))
    lines = [json.loads(line) for line in written.splitlines()]
    assert {line["kind"] for line in lines} == set(kinds)
    assert [("blind" in line) for line in lines] == [
        line["kind"] in BLINDED_KINDS for line in lines
    ]
