# SPDX-License-Identifier: Apache-2.0
"""Answers become bytes exactly as they are written, or an error; nothing else comes out."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qr_entropy_http.decoding import UnfitAnswerError, bytes_of, largest_body
from qr_entropy_http.exchange import Answer
from qr_entropy_http.presets.model import AnswerRule

JSON_TYPE = "application/json"
DATA = st.binary(min_size=2, max_size=64).filter(lambda data: len(data) % 2 == 0)


def answer(body: bytes, content_type: str = JSON_TYPE) -> Answer:
    return Answer(200, content_type, {}, body)


def decoded(document: Any, count: int, **rule: Any) -> bytes:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return bytes_of(answer(body), AnswerRule(**rule), count)


def refusal(document: Any, count: int = 4, **rule: Any) -> str:
    with pytest.raises(UnfitAnswerError) as caught:
        decoded(document, count, **rule)
    return str(caught.value)


@given(DATA)
def test_every_form_is_what_others_write(data: bytes) -> None:
    """NumPy, base64 and format() are the judges."""
    numbers = np.frombuffer(data, dtype=np.uint8)
    bits = "".join(f"{byte:08b}" for byte in data)
    assert np.packbits([int(bit) for bit in bits]).tobytes() == data
    cases: list[tuple[Any, dict[str, Any]]] = [
        ({"d": data.hex()}, {"form": "hex", "numbers": "d"}),
        ({"d": data.hex().upper()}, {"form": "hex", "numbers": "d"}),
        ([f"{byte:02x}" for byte in data], {"form": "hex", "numbers": "[]"}),
        (base64.b64encode(data).decode(), {"form": "base64"}),
        (numbers.tolist(), {"form": "uint8", "numbers": "[]"}),
        ({"a": [{"b": str(byte)} for byte in data]}, {"form": "decimal", "numbers": "a[].b"}),
        (bits, {"form": "bits"}),
        ([f"{byte:08b}" for byte in data], {"form": "bits", "numbers": "[]"}),
        (list(bits), {"form": "bits", "numbers": "[]"}),
        ([int(bit) for bit in bits], {"form": "bits", "numbers": "[]"}),
    ]
    for order in ("big", "little"):
        words = np.frombuffer(data, dtype=">u2" if order == "big" else "<u2").tolist()
        rule = {"form": "uint16", "numbers": "[]", "bytes_per_number": 2, "byte_order": order}
        cases.append((words, rule))
    for document, rule in cases:
        assert decoded(document, len(data), **rule) == data, rule
    raw = AnswerRule(format="raw", form="raw")
    assert bytes_of(answer(data, "application/octet-stream"), raw, len(data)) == data


JSONS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["00ff", "AAAA", "12", "0101", "\u0661\u0662"]),
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(st.sampled_from(["data", "a", "b"]), inner, max_size=3)
    ),
    max_leaves=8,
)
RULES = st.sampled_from(
    [
        AnswerRule(form=form, numbers=numbers, bytes_per_number=2 if form == "uint16" else 1)
        for form in ("hex", "base64", "uint8", "uint16", "bits", "decimal")
        for numbers in ("", "[]", "data", "data[]", "data[].a")
    ]
)


@given(JSONS, RULES, st.integers(1, 8))
def test_anything_else_is_refused_and_nothing_else_is_raised(
    document: Any, rule: AnswerRule, count: int
) -> None:
    try:
        data = bytes_of(answer(json.dumps(document).encode()), rule, count)
    except UnfitAnswerError:
        return
    assert len(data) == count


@given(st.binary(max_size=200), RULES)
def test_noise_is_refused_or_decoded(body: bytes, rule: AnswerRule) -> None:
    try:
        assert len(bytes_of(answer(body), rule, 3)) == 3
    except UnfitAnswerError:
        return


@pytest.mark.parametrize(
    ("document", "rule", "words"),
    [
        ("0011 2233", {"form": "hex"}, "not hexadecimal"),
        ("001122330", {"form": "hex"}, "does not have 2 digits"),
        (["00", "f", "22", "330"], {"form": "hex", "numbers": "[]"}, "does not have 2 digits"),
        (["00f", "22333"], {"form": "hex", "numbers": "[]", "bytes_per_number": 2}, "4 digits"),
        (["1010", "1" * 28], {"form": "bits", "numbers": "[]"}, "does not have 8 digits"),
        ("0x112233", {"form": "hex"}, "not hexadecimal"),
        ("\u0660" * 8, {"form": "hex"}, "not hexadecimal"),
        ("", {"form": "hex"}, "no numbers"),
        ("AAAAAA", {"form": "base64"}, "not in base64"),
        ("AA AA AA==", {"form": "base64"}, "not in base64"),
        ("\u00e9AAA", {"form": "base64"}, "not in base64"),
        ([1, 2, 3, 256], {"form": "uint8", "numbers": "[]"}, "not 0 to 255"),
        ([1, 2, 3, -1], {"form": "uint8", "numbers": "[]"}, "not 0 to 255"),
        ([1, 2, 3, True], {"form": "uint8", "numbers": "[]"}, "is True"),
        ([1, 2, 3, 4.0], {"form": "uint8", "numbers": "[]"}, "is 4.0"),
        ([1, 2, 3, "4"], {"form": "uint8", "numbers": "[]"}, "is '4'"),
        ([1, 2, 3, None], {"form": "uint8", "numbers": "[]"}, "is None"),
        ([1, 2, 3], {"form": "uint8", "numbers": "[]"}, "has 3 random bytes instead of 4"),
        ([1, 2, 3, 4, 5], {"form": "uint8", "numbers": "[]"}, "has 5 random bytes instead of 4"),
        (["1", "2", "3", "256"], {"form": "decimal", "numbers": "[]"}, "not 0 to 255"),
        (["1", "2", "3", "+4"], {"form": "decimal", "numbers": "[]"}, "not decimal"),
        (["1", "2", "3", "0004"], {"form": "decimal", "numbers": "[]"}, "not decimal"),
        (["1", "2", "3", "\u0664"], {"form": "decimal", "numbers": "[]"}, "not decimal"),
        (["1", "2", "3", 4], {"form": "decimal", "numbers": "[]"}, "instead of a text"),
        ("0101010", {"form": "bits"}, "not whole bytes"),
        ("01010102", {"form": "bits"}, "not whole bytes"),
        ([0, 1, 2], {"form": "bits", "numbers": "[]"}, "not 0 to 1"),
        ({"a": 1}, {"form": "uint8", "numbers": "data[]"}, "'data' is missing"),
        ([1], {"form": "uint8", "numbers": "data[]"}, "is no object"),
        ({"data": 1}, {"form": "uint8", "numbers": "data[]"}, "no list"),
        ({"data": {"0": 1}}, {"form": "uint8", "numbers": "data[]"}, "no list"),
    ],
)
def test_near_misses_are_refused(document: Any, rule: dict[str, Any], words: str) -> None:
    assert words in refusal(document, **rule)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"data": [1, 2, 3, 4], "data": [5, 6, 7, 8]}', "a name twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"data": [1, 2, 3, 4]', "no JSON"),
        (b'{"data": [1, 2, 3, 4]} x', "no JSON"),
        (b"\xef\xbb\xbf[1]", "no JSON"),
        (b'"\xff"', "no JSON"),
        (b"", "no JSON"),
        (b'{"data": [' + b"9" * 5000 + b"]}", "too long"),
        (b'{"data": [NaN, 1, 2, 3]}', "NaN"),
        (b'{"data": [Infinity, 1, 2, 3]}', "Infinity"),
    ],
)
def test_bad_documents_are_refused(body: bytes, words: str) -> None:
    assert words in refusal(body, form="uint8", numbers="data[]")


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"success": False, "n": [7]}, "success = False instead of True"),
        ({"success": 1, "n": [7]}, "success = 1 instead of True"),
        ({"success": "true", "n": [7]}, "instead of True"),
        ({"n": [7]}, "'success' is missing"),
    ],
)
def test_what_an_answer_has_to_say_is_checked(document: Any, words: str) -> None:
    rule = {"form": "uint8", "numbers": "n[]", "require": {"success": True}}
    assert decoded({"success": True, "n": [7]}, 1, **rule) == b"\x07"
    assert words in refusal(document, 1, **rule)


@pytest.mark.parametrize("content_type", ["text/html", "", "text/plain", "application/jsonp"])
def test_json_has_its_type(content_type: str) -> None:
    with pytest.raises(UnfitAnswerError, match="of type"):
        bytes_of(answer(b"[1]", content_type), AnswerRule(form="uint8", numbers="[]"), 1)


def test_a_preset_may_name_other_types() -> None:
    rule = AnswerRule(form="uint8", numbers="[]", content_types=("text/plain",))
    assert bytes_of(answer(b"[1]", "text/plain"), rule, 1) == b"\x01"
    with pytest.raises(UnfitAnswerError, match="of type"):
        bytes_of(answer(b"[1]"), rule, 1)


def test_other_statuses_bring_no_numbers() -> None:
    for status in (201, 204, 206, 302, 500):
        with pytest.raises(UnfitAnswerError, match=str(status)):
            bytes_of(Answer(status, JSON_TYPE, {}, b'"00"'), AnswerRule(form="hex"), 1)


def test_raw_errors_are_no_bytes() -> None:
    rule = AnswerRule(format="raw", form="raw")
    for kind in ("text/html", JSON_TYPE):
        with pytest.raises(UnfitAnswerError, match="of type"):
            bytes_of(answer(b"1234", kind), rule, 4)
    with pytest.raises(UnfitAnswerError, match="has 3 random bytes") as caught:
        bytes_of(answer(b"123", "application/octet-stream"), rule, 4)
    assert caught.value.decoded_bytes == 3


def test_the_largest_answer_is_bounded() -> None:
    assert largest_body(AnswerRule(format="raw", form="raw"), 100) == 100
    assert largest_body(AnswerRule(form="hex", characters_per_byte=4), 100) == 16_384 + 400
