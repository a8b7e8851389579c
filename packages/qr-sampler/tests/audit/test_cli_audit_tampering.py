# SPDX-License-Identifier: Apache-2.0
"""What is done to a ledger after it was written is exposed, at the line where it was done."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from qr_sampler_cli.audit.files import NotALedgerError
from qr_sampler_cli.audit.schema.lines import KINDS

PROPERTY = settings(
    derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
"""Of tests whose fixtures only make and judge files."""

UNCOVERED = {("close", "wall_time_ns")}
"""What only the head of the file covers: no line follows that would name its digest."""

UNSAID = {("close", "continued_in"), ("close", "kind")}
"""What makes it another ledger whose end is not there."""


def where(rung: Any) -> list[int]:
    """Returns the lines of the failures."""
    return [int(failure.where.rpartition(":")[2]) for failure in rung.failures]


def holds(rungs: dict[int, Any]) -> bool:
    return all(rungs[number].status == "holds" for number in (1, 2, 3, 4))


def changed(value: Any) -> Any:
    """Returns another value of the same type."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2
    if isinstance(value, str):
        return ("1" if value[:1] == "0" else "0") + value[1:]
    if isinstance(value, list):
        return [*value, 1]
    return {**value, "more": 1}


def edited(line: bytes, field: str, value: Any) -> bytes:
    fields = {**json.loads(line), field: value}
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("amplifier", ["zscore_mean", "bit_zscore"])
@pytest.mark.parametrize("committed", [True, False])
def test_honest_runs_hold(
    run: Any, save: Any, audit: Any, seed: int, amplifier: str, committed: bool
) -> None:
    rungs = audit(save(run(seed, amplifier=amplifier, committed=committed).whole()))
    assert holds(rungs)
    assert {rungs[number].status for number in (5, 6)} == {"cannot be said"}


def test_every_kind_is_known(run: Any) -> None:
    # What is redacted is no longer protected: see the tests of such ledgers.
    kinds = (KINDS - {"redacted"}) | {"weather"}
    assert {line["kind"] for line in run().of_every_kind()} == kinds


def test_a_run_of_every_kind_is_whole(run: Any, save: Any, audit: Any) -> None:
    rungs = audit(save(run().of_every_kind()))
    assert [rungs[number].status for number in (1, 3, 4)] == ["holds"] * 3
    assert "kind 'weather'" in " ".join(rungs[1].notes)
    # Its gap says that lines of the clock are lost.
    assert list(rungs[2].unsaid) == ["clock lines are missing where a gap says that they were lost"]


def test_every_field_of_every_kind(run: Any, chain: Any, save: Any, audit: Any) -> None:
    lines = chain(run().of_every_kind())
    seen: set[tuple[str, str]] = set()
    for index, line in enumerate(lines):
        fields = json.loads(line)
        for field, value in fields.items():
            name = (fields["kind"], field)
            if name in seen or name in UNCOVERED:
                continue
            seen.add(name)
            tampered = [*lines]
            tampered[index] = edited(line, field, changed(value))
            whole = audit(save(tampered))[1]
            if name in UNSAID:
                assert whole.status != "holds"
            else:
                assert index + 1 in where(whole), name
    assert len(seen) > 150


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-5, 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
EXTREMES = st.sampled_from(
    [10**400, 2**63 - 1, -1, 0, 5e-324, 1e308, -5.5, "0" * 64, "random_walk"]
)
values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.text(), scalars, max_size=2)


@PROPERTY
@given(data=st.data(), value=values)
def test_any_value_anywhere(
    run: Any, chain: Any, save: Any, audit: Any, data: Any, value: Any
) -> None:
    lines = chain(run(3).whole(sequences=2, steps=2))
    index = data.draw(st.integers(0, len(lines) - 2))
    field = data.draw(st.sampled_from([*json.loads(lines[index]), "another"]))
    tampered = edited(lines[index], field, value)
    assume(tampered != lines[index])
    lines[index] = tampered
    assert index + 1 in where(audit(save(lines))[1])


@PROPERTY
@given(data=st.data(), edits=st.integers(1, 3), order=st.randoms(use_true_random=False))
def test_nothing_that_a_recomputed_chain_holds_is_too_much(
    run: Any, chain: Any, save: Any, audit: Any, data: Any, edits: int, order: Any
) -> None:
    lines = run(3).of_every_kind()
    for _ in range(edits):
        line = data.draw(st.sampled_from(lines))
        field = data.draw(st.sampled_from(sorted(line.keys() - {"kind", "n", "prev"} or ["more"])))
        line[field] = data.draw(EXTREMES | values)
    if data.draw(st.booleans()):
        order.shuffle(lines)
    with contextlib.suppress(UnicodeEncodeError):
        rungs = audit(save(lines))
        assert {rungs[number].status for number in (5, 6)} & {"cannot be said"}


@PROPERTY
@given(data=st.data())
def test_any_byte(run: Any, chain: Any, save: Any, audit: Any, data: Any) -> None:
    lines = chain(run(4).whole(sequences=2, steps=2))
    index = data.draw(st.integers(0, len(lines) - 2))
    at = data.draw(st.integers(0, len(lines[index]) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b not in (10, lines[index][at])))
    lines[index] = lines[index][:at] + bytes([byte]) + lines[index][at + 1 :]
    assert index + 1 in where(audit(save(lines))[1])


@PROPERTY
@given(data=st.data())
def test_a_deleted_line(run: Any, chain: Any, save: Any, audit: Any, data: Any) -> None:
    lines = chain(run(5).whole(sequences=2, steps=3))
    index = data.draw(st.integers(0, len(lines) - 2))
    del lines[index]
    assert index + 1 in where(audit(save(lines))[1])


@PROPERTY
@given(data=st.data())
def test_an_inserted_line(run: Any, chain: Any, save: Any, audit: Any, data: Any) -> None:
    lines = chain(run(6).whole(sequences=2, steps=3))
    index = data.draw(st.integers(0, len(lines)))
    lines.insert(index, lines[data.draw(st.integers(0, len(lines) - 1))])
    found = where(audit(save(lines))[1])
    # A copy beside its original cannot be told from it.
    assert {index, index + 1, index + 2} & set(found)


@PROPERTY
@given(data=st.data())
def test_swapped_lines(run: Any, chain: Any, save: Any, audit: Any, data: Any) -> None:
    lines = chain(run(7).whole(sequences=2, steps=3))
    first = data.draw(st.integers(0, len(lines) - 2))
    second = data.draw(st.integers(first + 1, len(lines) - 1))
    lines[first], lines[second] = lines[second], lines[first]
    assert first + 1 in where(audit(save(lines))[1])


def test_a_ledger_cut_at_any_byte(run: Any, chain: Any, tmp_path: Path, audit: Any) -> None:
    lines = chain(run(8).whole(sequences=2, steps=1))
    data = b"".join(line + b"\n" for line in lines)
    path = tmp_path / "cut.jsonl"
    for size in range(len(lines[0]) + 1, len(data) - 1, 7):
        path.write_bytes(data[:size])
        rungs = audit(path)
        whole = data[:size].count(b"\n")
        assert {rungs[number].status for number in (1, 2, 3, 4)} <= {"holds", "cannot be said"}
        assert f":{whole} is no close" in " ".join(rungs[1].unsaid)
        assert (data[size - 1 : size] != b"\n") == (
            "after the last newline" in str(rungs[1].unsaid)
        )


def test_a_ledger_cut_in_its_first_line_is_none(
    run: Any, chain: Any, tmp_path: Path, audit: Any
) -> None:
    (first, *_) = chain(run().whole())
    path = tmp_path / "cut.jsonl"
    path.write_bytes(first[:-1])
    with pytest.raises(NotALedgerError, match="is not a ledger"):
        audit(path)


def test_a_splice(run: Any, chain: Any, save: Any, audit: Any) -> None:
    ours, theirs = chain(run(1).whole()), chain(run(2).whole())
    for at in range(1, min(len(ours), len(theirs)) - 1):
        if ours[at - 1] != theirs[at - 1]:
            assert set(where(audit(save([*ours[:at], *theirs[at:]]))[1])) & {at, at + 1}


def test_another_run_appended(run: Any, chain: Any, save: Any, audit: Any) -> None:
    ours = chain(run(1).whole())
    rungs = audit(save([*ours, *chain(run(2).whole())]))
    assert where(rungs[1])[:1] == [len(ours) + 1]
    assert "a second genesis" in str(rungs[1].failures)


def test_another_run_under_this_name(run: Any, save: Any, audit: Any) -> None:
    lines = run(1).whole()
    lines[0]["run_id"] = "another" * 4
    rungs = audit(save(lines))
    assert where(rungs[1]) == [1]
    assert "the file is named after run 01234567" in rungs[1].failures[0].what


@pytest.mark.parametrize("forked", [7, 8])
def test_a_file_of_a_forked_process_is_named_after_it(
    run: Any, save: Any, audit: Any, forked: int
) -> None:
    lines = run(1).whole()
    name = f"20261130T120000Z-dp0-6-{lines[0]['run_id'][:8]}-fork6-fork{forked}_0002.jsonl"
    lines[0]["pid"] = 7
    assert where(audit(save(lines, name))[1]) == ([] if forked == 7 else [1])


def test_a_recomputed_chain_is_no_origin(run: Any, save: Any, audit: Any) -> None:
    lines = run(1, committed=False).whole()
    for line in lines:
        if line["kind"] == "sequence":
            line["condition"] = "LO"
    rungs = audit(save(lines))
    # Nothing in the records contradicts it, and the report says so.
    assert holds(rungs)
    assert rungs[5].status == "cannot be said"
    assert "whoever holds it could have computed its chain anew" in " ".join(rungs[5].unsaid)
    assert "without an anchor it proves no origin" in " ".join(rungs[1].notes)


Edit = Callable[[list[dict[str, Any]]], None]


def each(kind: str, **fields: Any) -> Edit:
    """Returns an edit of the fourth line of a kind."""

    def edit(lines: list[dict[str, Any]]) -> None:
        line = [line for line in lines if line["kind"] == kind][3]
        line.update({name: make(line[name]) for name, make in fields.items()})

    return edit


def shifted(*names: str, by: int, kind: str = "draw") -> Edit:
    return each(kind, **dict.fromkeys(names, lambda value: value + by))


CONSISTENT_EDITS: dict[str, tuple[int, Edit]] = {
    "u": (4, each("token", u=lambda u: 1 - u)),
    "a slightly other u": (4, each("token", u=lambda u: u + 1e-11)),
    "statistic": (4, each("token", statistic=lambda z: z + 0.1)),
    "lattice step": (4, each("token", lattice_step=lambda step: step * 2)),
    "sum": (4, each("token", block_sum=lambda total: total + 1)),
    "impossible ones": (4, each("token", block_ones=lambda ones: 9_999)),
    "token": (4, each("token", token_id=lambda token: token + 1)),
    "temperature": (4, each("token", temperature=lambda t: 0.5)),
    "entropy": (4, each("token", entropy_nats=lambda h: h + 0.1)),
    "rank": (4, each("token", rank=lambda rank: 99)),
    "candidates": (4, each("token", candidates=lambda count: 41)),
    "position": (2, each("token", position=lambda position: position + 1)),
    "offset": (2, each("token", offset=lambda offset: offset + 1)),
    "block": (2, each("token", block_bytes=lambda size: size + 1)),
    "draw": (2, each("token", draw=lambda draw: draw + 50)),
    "bytes of a draw": (2, each("draw", bytes=lambda size: size + 1)),
    "number of a draw": (2, each("draw", draw=lambda draw: draw - 1)),
    "end": (2, each("end", tokens=lambda tokens: tokens + 1)),
    "link": (4, each("end", link=lambda link: link[::-1])),
    "commitment": (4, each("draw", commitment=lambda digest: digest[::-1])),
    "fallback": (4, each("draw", fallback=lambda flag: True)),
    "unflagged source": (4, each("draw", source=lambda name: "system")),
    "version": (4, each("draw", source_version=lambda name: "1.1")),
    "logits after the request": (3, shifted("t_logits_ns", by=2_000_000)),
    "logits before the token before": (3, shifted("t_logits_ns", by=-60_000_000)),
    "answer before the request": (3, shifted("t_received_ns", by=-9_000_000)),
    "wall": (3, shifted("wall_time_ns", by=2_000_000_000)),
    "device": (3, shifted("device_timestamp_ns", by=4_000_000)),
    "older than the run": (
        3,
        shifted("t_logits_ns", "t_request_ns", "t_received_ns", by=-9_000_000_000_000 // 2),
    ),
}
"""Edits after which the chain was computed anew, and the rung that exposes each."""


@pytest.mark.parametrize("name", CONSISTENT_EDITS)
def test_an_edit_that_contradicts_the_records(run: Any, save: Any, audit: Any, name: str) -> None:
    lines = run(2).whole(sequences=4, steps=12)
    rung, edit = CONSISTENT_EDITS[name]
    edit(lines)
    rungs = audit(save(lines))
    assert rungs[1].status == "holds"
    assert rungs[rung].status == "fails"


def test_a_lost_end_of_a_run_is_missed(run: Any, save: Any, audit: Any) -> None:
    lines = run(2).whole()
    for kind in ("end", "draw"):
        fewer = [*lines]
        fewer.remove([line for line in lines if line["kind"] == kind][-1])
        rungs = audit(save(fewer))
        assert rungs[2].status == "fails", kind


def test_a_copy_of_a_sequence_under_new_names_is_exposed(run: Any, save: Any, audit: Any) -> None:
    made = run(2, committed=False)
    first = made.lines.copy()
    row = made.begin("original")
    for _ in range(3):
        made.step([row], discarded=False)
    made.end(row)
    original = made.lines[len(first) :]
    for line in original:
        copy = {**line, "sequence": "copy"} if "sequence" in line else dict(line)
        if "draw" in copy:
            copy["draw"] += 3
        made.lines.append(copy)
    for line in made.lines:
        line.pop("device_timestamp_ns", None)
        if line["kind"] == "draw":
            line["device_timestamp_ns"] = None
    made.lines.append(made._clock())
    made.close()
    complete = audit(save(made.lines))[2]
    assert complete.failed == sum(
        line["bytes"] >= 16 for line in original if line["kind"] == "draw"
    )
    assert "is the same draw" in complete.failures[0].what


def test_the_same_bytes_at_another_time_are_a_remark(run: Any, save: Any, audit: Any) -> None:
    lines = run(2, committed=False).whole()
    draws = [line for line in lines if line["kind"] == "draw" and line["bytes"] >= 16]
    draws[1]["data_sha256"] = draws[0]["data_sha256"]
    complete = audit(save(lines))[2]
    assert complete.status == "holds"
    assert complete.notes == ["1 draws have the bytes of another one, asked for later"]
