# SPDX-License-Identifier: Apache-2.0
"""Reading ledgers: both versions, whatever is in the file, and a line at a time."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qr_sampler import TokenSamplingRecord
from qr_sampler.records.reader import (
    LONGEST_LINE,
    MOST_DRAWS,
    JoinedLines,
    LedgerLine,
    lines_in,
    read_ledger,
)
from qr_sampler.testing import EmittedText, check_ledger

VERSION_1 = Path(__file__).parent / "data" / "ledger_version_1.jsonl"

GENESIS = {"kind": "genesis", "schema_version": 2}
SEQUENCE = {
    "kind": "sequence",
    "sequence": "s",
    "request_key": "mine",
    "trial": "1",
    "condition": None,
    "options": {"signal_amplifier_type": "exact_sum", "temperature_strategy": "edt"},
}
DRAW = {
    "kind": "draw",
    "draw": 0,
    "source": "device",
    "source_distribution": "qr-x",
    "source_version": "1",
    "fallback": False,
    "fallback_reason": "",
    "bytes": 32,
    "requests": 1,
    "device_id": "d",
    "device_timestamp_ns": None,
    "commitment": "",
    "echo_verified": None,
    "signature": "",
    "signature_verified": None,
    "t_logits_ns": 1,
    "t_request_ns": 2,
    "t_received_ns": 3,
    "wall_time_ns": 4,
}
TOKEN = {
    "kind": "token",
    "sequence": "s",
    "position": 0,
    "token_id": 5,
    "draw": 0,
    "offset": 16,
    "block_bytes": 16,
    "block_sum": 9,
    "block_ones": 3,
    "u": 0.5,
    "statistic": 0.0,
    "temperature": 0.7,
    "entropy_nats": 1.0,
    "varentropy_nats2": 1.0,
    "rank": 0,
    "probability": 0.25,
    "candidates": 4,
}


def joined(*lines: dict[str, Any]) -> list[dict[str, Any]]:
    reader = JoinedLines()
    return [reader.joined(dict(line)) for line in lines]


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    return path


def test_the_first_version_is_read_as_it_stands() -> None:
    lines = list(read_ledger(VERSION_1))
    assert lines == [json.loads(line) for line in VERSION_1.read_bytes().split(b"\n") if line]
    kinds = ["genesis", "bypass", "token", "token", "discard", "token", "emission", "forced"]
    assert [line["kind"] for line in lines] == kinds
    # Nothing was tested then.
    assert set(lines[2]) == {"kind", *TokenSamplingRecord.columns()} - {"health"}
    first, third = lines[2]["sequence"], lines[5]["sequence"]
    texts = [
        EmittedText(
            request_key="first \u2028 request",
            sequence=first,
            tokens=(lines[2]["token_id"], lines[3]["token_id"]),
            trial="1",
            condition="toy",
        ),
        EmittedText(
            request_key="third",
            sequence=third,
            tokens=(lines[5]["token_id"], lines[7]["token_id"]),
        ),
    ]
    drawn = sum(line.get("block_bytes", 0) for line in lines)
    check_ledger(lines, texts, bytes_drawn=drawn)


def test_a_token_has_what_its_draw_and_its_sequence_say(tmp_path: Path) -> None:
    *_, token = read_ledger(write(tmp_path / "x.jsonl", GENESIS, SEQUENCE, DRAW, TOKEN))
    assert set(TokenSamplingRecord.columns()) | {"draw", "offset"} == set(token) - {"kind"}
    assert (token["request_key"], token["trial"], token["condition"]) == ("mine", "1", None)
    assert (token["amplifier"], token["temperature_strategy"]) == ("exact_sum", "edt")
    assert (token["source"], token["draw_bytes"], token["t_request_ns"]) == ("device", 32, 2)
    assert (token["emitted"], token["jit"], token["uniforms"]) == (True, True, None)
    assert (token["row_digest"], token["baseline"], token["lattice_step"]) == ("", "", None)


def test_what_a_token_says_itself_goes_before() -> None:
    own = {**TOKEN, "amplifier": "upper53", "t_logits_ns": 9, "emitted": None}
    *_, token = joined(GENESIS, SEQUENCE, DRAW, own)
    assert (token["amplifier"], token["t_logits_ns"], token["emitted"]) == ("upper53", 9, None)


def test_a_fallback_among_several_numbers_is_that_of_the_token() -> None:
    spare = {**DRAW, "draw": 1, "fallback": True, "fallback_reason": "device: unplugged"}
    uniforms = [{"draw": 0, "fallback": False}, {"draw": 1, "fallback": True}]
    *_, token = joined(GENESIS, SEQUENCE, DRAW, spare, {**TOKEN, "uniforms": uniforms})
    assert (token["fallback"], token["fallback_reason"]) == (True, "device: unplugged")
    *_, token = joined(GENESIS, SEQUENCE, DRAW, spare, {**TOKEN, "uniforms": uniforms[:1]})
    assert (token["fallback"], token["fallback_reason"]) == (False, "")


def test_suspect_bytes_of_any_number_make_their_token_suspect() -> None:
    own, spare = {**DRAW, "health": "ok"}, {**DRAW, "draw": 1, "health": "suspect"}
    uniforms = [{"draw": 0, "fallback": False}, {"draw": 1, "fallback": False}]
    *_, token = joined(GENESIS, SEQUENCE, own, spare, {**TOKEN, "uniforms": uniforms})
    assert token["health"] == "suspect"
    *_, token = joined(GENESIS, SEQUENCE, own, spare, {**TOKEN, "uniforms": uniforms[:1]})
    assert token["health"] == "ok"


def test_without_the_line_of_its_draw_nothing_is_known_of_it() -> None:
    *_, token = joined(GENESIS, SEQUENCE, TOKEN)
    assert (token["source"], token["fallback"], token["t_request_ns"]) == (None, None, None)
    assert token["request_key"] == "mine"
    *_, token = joined(GENESIS, DRAW, TOKEN)
    assert (token["source"], token["request_key"], token["trial"]) == ("device", "", None)


def test_bytes_of_no_token_belong_to_no_request() -> None:
    discard = {"kind": "discard", "sequence": "", "draw": None, "offset": None, "block_bytes": 7}
    *_, line = joined(GENESIS, SEQUENCE, DRAW, discard)
    assert (line["request_key"], line["t_request_ns"], line["jit"]) == ("", None, True)
    assert line["draw"] is None


def test_joining_twice_changes_nothing() -> None:
    once = joined(GENESIS, SEQUENCE, DRAW, TOKEN)
    assert joined(*once) == once


def test_unknown_kinds_are_kept(tmp_path: Path) -> None:
    new = {"kind": "something_new", "sequence": ["odd"], "draw": {}}
    assert list(read_ledger(write(tmp_path / "x.jsonl", GENESIS, new))) == [GENESIS, new]


def test_lines_end_at_newline_bytes_and_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    text = '{"kind":"note","text":"a\u2028b\u0085c"}\r\n\n{"kind":"last"}'
    path.write_bytes(text.encode())
    assert [line["kind"] for line in read_ledger(path)] == ["note", "last"]


@pytest.mark.parametrize(
    "torn",
    [
        b'{"kind": "token", "posi',
        b"\xff\xfe",
        b"[1, 2]",
        b'{"no": "kind"}',
        b'{"kind": 7}',
        b'{"kind": "token", "u": NaN}',
        b"[" * 100_000,
        b"\x00" * 50,
    ],
)
def test_a_line_that_is_no_record_is_reported_and_left_out(torn: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"kind":"a"}\n' + torn + b'\n{"kind":"b"}\n')
    unreadable: list[LedgerLine] = []
    assert [line["kind"] for line in read_ledger(path, unreadable.append)] == ["a", "b"]
    assert [(line.number, line.data) for line in unreadable] == [(2, torn)]
    assert len(list(read_ledger(path))) == 2


@given(st.binary(max_size=200))
def test_any_bytes_can_be_read(data: bytes) -> None:
    reader = JoinedLines()
    for line in lines_in(io.BytesIO(b'{"kind":"genesis","schema_version":2}\n' + data)):
        if line.values is not None:
            reader.joined(line.values)


KINDS = ("genesis", "draw", "sequence", "token", "discard", "forced")
FIELDS = ("schema_version", "draw", "sequence", "options", "uniforms", "offset")
HOSTILE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"kind": st.sampled_from(KINDS)},
            optional=dict.fromkeys(FIELDS, HOSTILE),
        ),
        max_size=6,
    )
)
def test_any_values_can_be_joined(lines: list[dict[str, Any]]) -> None:
    assert [line["kind"] for line in joined(GENESIS, *lines)[1:]] == [
        line["kind"] for line in lines
    ]


def test_a_line_without_end_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with path.open("wb") as file:
        file.write(b'{"kind":"a"}\n{"kind":"')
        for _ in range(3):
            file.write(b"x" * LONGEST_LINE)
        file.write(b'"}\n{"kind":"b"}\n')
    tracemalloc.start()
    try:
        found = list(read_ledger(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [line["kind"] for line in found] == ["a", "b"]
    assert peak < 4 * LONGEST_LINE


def test_memory_does_not_grow_with_the_draws() -> None:
    reader = JoinedLines()
    reader.joined(dict(GENESIS))
    for number in range(MOST_DRAWS + 1):
        reader.joined({**DRAW, "draw": number})
    sources = [reader.joined({**TOKEN, "draw": number})["source"] for number in (0, MOST_DRAWS)]
    assert sources == [None, "device"]
