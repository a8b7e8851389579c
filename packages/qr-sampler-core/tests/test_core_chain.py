# SPDX-License-Identifier: Apache-2.0
"""Lines are JSON that any language reads, and each names the digest of the one before it."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qr_sampler.records.chain import ZERO_HEAD, head_of, line_of

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = (
    st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.none()
)
VALUES = st.recursive(
    NUMBERS | TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=20
)
FIELDS = st.dictionaries(TEXTS.filter(lambda name: name not in ("kind", "n", "prev")), VALUES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Has what a record has: a kind that is no field, and fields of every type."""

    kind: ClassVar[str] = "record"
    u: float
    name: str = "line\nbreak \u2028 é"
    missing: int | None = None
    inner: dict[str, Any] = field(default_factory=dict)


class Structure(msgspec.Struct):
    """The same as a structure."""

    u: float
    name: str = "line\nbreak \u2028 é"
    missing: int | None = None
    inner: dict[str, Any] = {}


@given(FIELDS, st.integers(0, 2**63 - 1))
def test_a_line_says_what_it_was_made_of(fields: dict[str, Any], n: int) -> None:
    line = line_of("note", n, ZERO_HEAD, fields)
    assert b"\n" not in line
    said = json.loads(line)
    assert list(said) == ["kind", "n", "prev", *fields]
    assert said == {"kind": "note", "n": n, "prev": ZERO_HEAD, **fields}


@pytest.mark.parametrize("make", [Record, Structure])
def test_records_keep_the_order_of_their_fields(make: type) -> None:
    said = json.loads(line_of("record", 7, "ab" * 32, make(u=0.1)))
    assert list(said.items()) == [
        ("kind", "record"),
        ("n", 7),
        ("prev", "ab" * 32),
        ("u", 0.1),
        ("name", "line\nbreak \u2028 é"),
        ("missing", None),
        ("inner", {}),
    ]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_come_back_bit_for_bit(number: float) -> None:
    said = json.loads(line_of("record", 0, ZERO_HEAD, {"u": number}))["u"]
    assert (said, math.copysign(1, said)) == (number, math.copysign(1, number))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda value: {"u": value},
        lambda value: {"u": None, "deep": [{"er": (1, value)}]},
        lambda value: Record(u=value),
        lambda value: Record(u=0.5, inner={"u": [value]}),
        lambda value: Structure(u=value),
        lambda value: {"records": [Structure(u=0.5), Record(u=value)]},
    ],
)
def test_what_is_no_number_is_refused_and_not_left_out(value: float, wrap: Any) -> None:
    with pytest.raises(ValueError, match=f"'record' would hold {value}"):
        line_of("record", 0, ZERO_HEAD, wrap(value))


def test_a_text_may_say_null() -> None:
    assert json.loads(line_of("note", 0, ZERO_HEAD, {"null": "null", "u": 0.5}))["u"] == 0.5


@pytest.mark.parametrize("fields", [{"u": object()}, {"u": 1j}, [1], ["u"], "text", 1.5, None])
def test_what_json_has_no_counterpart_for_is_refused(fields: object) -> None:
    with pytest.raises(TypeError):
        line_of("note", 0, ZERO_HEAD, fields)


def test_half_a_character_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogate"):
        line_of("note", 0, ZERO_HEAD, {"text": "\ud800"})


def test_a_line_without_fields_is_whole() -> None:
    assert json.loads(line_of("note", 2, ZERO_HEAD, {})) == {
        "kind": "note",
        "n": 2,
        "prev": ZERO_HEAD,
    }


@given(st.lists(FIELDS, min_size=1, max_size=20))
def test_a_chain_is_checked_with_the_standard_library(notes: list[dict[str, Any]]) -> None:
    lines, head = [], ZERO_HEAD
    for n, fields in enumerate(notes):
        lines.append(line_of("note", n, head, fields))
        head = head_of(lines[-1])
    expected = ZERO_HEAD
    for n, line in enumerate(b"\n".join(lines).split(b"\n")):
        said = json.loads(line)
        assert (said["n"], said["prev"]) == (n, expected)
        expected = hashlib.sha256(line).hexdigest()
    assert head == expected
