# SPDX-License-Identifier: Apache-2.0
"""Reading a ledger and holding it against the emitted tokens, on ledgers written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qr_sampler_cli.generation.ledger_reader import Ledger, LedgerError, ledger_files, read_ledger
from qr_sampler_cli.generation.reconciliation import Emission, find_discrepancies, summarize
from qr_sampler_cli.generation.token_table import token_table


def token(key: str, position: int, token_id: int, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "token",
        "request_key": key,
        "position": position,
        "token_id": token_id,
        "u": 0.25,
        "temperature": 0.7,
        "entropy_nats": 1.5,
        "rank": 0,
        "probability": 0.5,
        "source": "device",
        "fallback": False,
        "t_logits_ns": 900,
        "t_request_ns": 1_000_000,
        "t_received_ns": 3_000_000,
        "wall_time_ns": 5,
        **changes,
    }


GENESIS = {"kind": "genesis", "run_id": "abc"}


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    return path


def ledger_of(
    directory: Path, *lines: dict[str, Any], keys: tuple[str, ...] = ("a", "b")
) -> Ledger:
    write(directory / "run.jsonl", GENESIS, *lines)
    return read_ledger(directory, keys)


A = Emission(request_key="a", token_ids=(7, 8))
B = Emission(request_key="b", token_ids=(9,))
COMPLETE = (token("a", 0, 7), token("b", 0, 9), token("a", 1, 8))


def test_complete_ledger_has_no_discrepancies(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, *COMPLETE)
    assert find_discrepancies([A, B], ledger) == ()


def test_kinds_that_are_not_tokens_are_kept_and_not_counted(tmp_path: Path) -> None:
    discard = {**token("a", 2, 3), "kind": "discard"}
    ledger = ledger_of(tmp_path, *COMPLETE, discard, {"kind": "something_new", "x": 1})
    assert find_discrepancies([A, B], ledger) == ()
    assert [line.kind for line in ledger.lines] == [
        "genesis", "token", "token", "token", "discard", "something_new",
    ]  # fmt: skip
    assert ledger.count("discard") == 1


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(
            (token("a", 0, 7), token("b", 0, 9)),
            ["request a, token 1: 0 records instead of 1"],
            id="missing",
        ),
        pytest.param(
            (*COMPLETE, token("a", 1, 8)),
            ["request a, token 1: 2 records instead of 1"],
            id="duplicate",
        ),
        pytest.param(
            (token("a", 0, 7), token("a", 1, 5), token("b", 0, 9)),
            ["request a, token 1: the engine emitted token id 8, its record says 5"],
            id="other token",
        ),
        pytest.param(
            (*COMPLETE, token("a", 2, 4)),
            ["request a: a record of token 2, which was not emitted"],
            id="beyond the end",
        ),
        pytest.param(
            (*COMPLETE, token("a", -1, 4)),
            ["request a: a record of token -1, which was not emitted"],
            id="before the beginning",
        ),
        pytest.param(
            (*COMPLETE, token("c", 0, 4), token("c", 1, 4)),
            ["2 token records of request c, which was not part of this run"],
            id="stranger",
        ),
        pytest.param(
            (token("a", 0, 8), token("a", 1, 7), token("b", 0, 9)),
            [
                "request a, token 0: the engine emitted token id 7, its record says 8",
                "request a, token 1: the engine emitted token id 8, its record says 7",
            ],
            id="swapped",
        ),
    ],
)
def test_each_discrepancy_is_named(
    tmp_path: Path, lines: tuple[dict[str, Any], ...], expected: list[str]
) -> None:
    assert list(find_discrepancies([A, B], ledger_of(tmp_path, *lines))) == expected


def test_records_of_two_requests_are_not_mixed_up(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, token("b", 0, 7), token("b", 1, 8), token("a", 0, 9))
    assert len(find_discrepancies([A, B], ledger)) == 4


def test_request_without_tokens_is_a_discrepancy(tmp_path: Path) -> None:
    nothing = Emission(request_key="b", token_ids=())
    ledger = ledger_of(tmp_path, token("a", 0, 7), token("a", 1, 8))
    assert find_discrepancies([A, nothing], ledger) == ("request b: the engine emitted no token",)


def test_request_that_was_ended_before_its_first_token_is_none(tmp_path: Path) -> None:
    nothing = Emission(request_key="b", token_ids=(), interrupted=True)
    ledger = ledger_of(tmp_path, token("a", 0, 7), token("a", 1, 8))
    assert find_discrepancies([A, nothing], ledger) == ()
    ledger = ledger_of(tmp_path, token("a", 0, 7), token("a", 1, 8), token("b", 0, 9))
    assert find_discrepancies([A, nothing], ledger) == (
        "request b: a record of token 0, which was not emitted",
    )


def test_ledger_of_a_run_leaves_out_other_files(tmp_path: Path) -> None:
    write(tmp_path / "old.jsonl", GENESIS, token("a", 0, 1))
    before = ledger_files(tmp_path)
    write(tmp_path / "other engine.jsonl", GENESIS, token("z", 0, 1))
    write(tmp_path / "ours.jsonl", GENESIS, *COMPLETE)
    ledger = read_ledger(tmp_path, ("a", "b"), ignore=before)
    assert [record.request_key for record in ledger.tokens] == ["a", "b", "a"]


def test_directory_that_does_not_exist_holds_nothing(tmp_path: Path) -> None:
    assert read_ledger(tmp_path / "absent", ("a",)).lines == ()


def test_lines_keep_separators_that_python_takes_for_line_ends(tmp_path: Path) -> None:
    odd = {**token("a", 0, 7), "condition": "x\u2028y\x0cz"}
    path = tmp_path / "run.jsonl"
    path.write_text(json.dumps(odd, ensure_ascii=False) + "\n", "utf-8")
    assert read_ledger(tmp_path, ("a",)).lines[0].values["condition"] == "x\u2028y\x0cz"


@pytest.mark.parametrize(
    "torn",
    [
        b'{"kind": "token", "request_',
        b"[1, 2]",
        b'{"request_key": "a"}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"kind": "tok{"kind": "token", "request_key": "a", "position": 3}',
    ],
)
@pytest.mark.parametrize("place", [0, 2, 4])
def test_lines_that_are_no_record_are_left_out_with_their_place(
    tmp_path: Path, torn: bytes, place: int
) -> None:
    lines = [json.dumps(line).encode() for line in (GENESIS, *COMPLETE)]
    lines.insert(place, torn)
    path = tmp_path / "run.jsonl"
    # The last line is torn where it has no end.
    path.write_bytes(b"\n".join(lines))
    ledger = read_ledger(tmp_path, ("a", "b"))
    assert ledger.unreadable == (f"{path}:{place + 1}",)
    assert [line.kind for line in ledger.lines] == ["genesis", "token", "token", "token"]
    assert find_discrepancies([A, B], ledger) == ()


def test_empty_and_foreign_files_are_nobodys(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "blank.jsonl").write_text("\n\n", "utf-8")
    (tmp_path / "begun.jsonl").write_text(json.dumps(GENESIS) + "\n", "utf-8")
    (tmp_path / "notes.jsonl").write_text('{"mine": 1}\nno JSON\n', "utf-8")
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    assert read_ledger(tmp_path, ("a",)) == Ledger()
    ledger = ledger_of(tmp_path, *COMPLETE)
    assert find_discrepancies([A, B], ledger) == ()
    assert ledger.unreadable == ()


def test_a_ledger_of_several_files_and_beginnings_is_one(tmp_path: Path) -> None:
    # An engine begins its file anew when somebody has moved it away.
    write(tmp_path / "1.jsonl", GENESIS, COMPLETE[0])
    write(tmp_path / "2.jsonl", GENESIS, COMPLETE[1], GENESIS, COMPLETE[2])
    ledger = read_ledger(tmp_path, ("a", "b"))
    assert ledger.count("genesis") == 3
    assert find_discrepancies([A, B], ledger) == ()


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(LedgerError, match=r"folder\.jsonl cannot be read"):
        read_ledger(tmp_path, ("a",))


def test_token_record_of_another_version_names_what_it_lacks(tmp_path: Path) -> None:
    incomplete = token("a", 0, 7)
    del incomplete["u"], incomplete["rank"]
    ledger = ledger_of(tmp_path, incomplete)
    with pytest.raises(LedgerError, match="lacks u, rank"):
        _ = ledger.tokens


def test_summary_of_a_clean_run(tmp_path: Path) -> None:
    lines = (
        token("a", 0, 7, u=0.2, t_received_ns=2_000_000),
        token("a", 1, 8, u=0.9, t_received_ns=3_500_000),
        token("b", 0, 9, u=0.4, t_received_ns=9_000_000),
    )
    summary = summarize([A, B], ledger_of(tmp_path, *lines), primary_source="device")
    assert summary.all_primary
    assert summary.line() == (
        "3 tokens | 100.0 % from device | 0.0 % fallback | mean u 0.5000 | median draw 2.500 ms"
    )


def test_summary_counts_fallback(tmp_path: Path) -> None:
    lines = (
        token("a", 0, 7),
        token("a", 1, 8, source="system", fallback=True),
        token("b", 0, 9),
    )
    summary = summarize([A, B], ledger_of(tmp_path, *lines), primary_source="device")
    assert not summary.all_primary
    assert (summary.primary_tokens, summary.fallback_tokens) == (2, 1)
    assert "66.7 % from device | 33.3 % fallback" in summary.line()


def test_source_that_is_neither_primary_nor_fallback_counts_as_neither(tmp_path: Path) -> None:
    lines = (*COMPLETE[:2], token("a", 1, 8, source="imposter"))
    summary = summarize([A, B], ledger_of(tmp_path, *lines), primary_source="device")
    assert not summary.all_primary
    assert "66.7 % from device | 0.0 % fallback" in summary.line()


def test_one_fallback_among_many_is_not_rounded_away(tmp_path: Path) -> None:
    count = 100_000
    emission = Emission(request_key="a", token_ids=(7,) * count)
    summary = summarize([emission], Ledger(), primary_source="device")
    nearly = type(summary)(
        tokens=count,
        primary_source="device",
        primary_tokens=count - 1,
        fallback_tokens=1,
        mean_u=0.5,
        median_draw_ms=1.0,
    )
    assert "99.9 % from device | 0.1 % fallback" in nearly.line()


def test_summary_without_records_claims_nothing() -> None:
    summary = summarize([A], Ledger(), primary_source="device")
    assert not summary.all_primary
    assert summary.line() == (
        "2 tokens | 0.0 % from device | 0.0 % fallback | mean u n/a | median draw n/a"
    )


def test_summary_of_no_tokens_is_not_all_primary() -> None:
    summary = summarize([], Ledger(), primary_source="device")
    assert not summary.all_primary
    assert summary.line().startswith("0 tokens | n/a from device | n/a fallback")


FORCED = {"kind": "forced", "request_key": "a", "position": 1, "token_id": 8, "reason": "gone"}


def test_a_forced_token_is_accounted_for_by_its_record(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, token("a", 0, 7), token("b", 0, 9), FORCED)
    assert find_discrepancies([A, B], ledger) == ()
    assert ledger.without_entropy("a") == {1: "forced"}
    assert ledger.without_entropy("b") == {}
    summary = summarize([A, B], ledger, primary_source="device")
    assert (summary.tokens, summary.primary_tokens) == (3, 2)
    assert not summary.all_primary


def test_a_forced_record_of_another_token_is_a_discrepancy(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, token("a", 0, 7), token("b", 0, 9), {**FORCED, "token_id": 5})
    (finding,) = find_discrepancies([A, B], ledger)
    assert finding == ("request a, token 1: the engine emitted token id 8, its record says 5")


def emission(key: str, position: int, emitted: bool, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "emission",
        "request_key": key,
        "position": position,
        "emitted": emitted,
        **changes,
    }


UNKNOWN = {"emitted": None}


def test_a_token_that_may_have_been_emitted_fits_both(tmp_path: Path) -> None:
    """A request was aborted; only its client knows how many tokens it got."""
    ledger = ledger_of(tmp_path, token("a", 0, 7), token("a", 1, 8, **UNKNOWN))
    for tokens in ((7,), (7, 8)):
        assert find_discrepancies([Emission(request_key="a", token_ids=tokens)], ledger) == ()
    (found,) = find_discrepancies([Emission(request_key="a", token_ids=(7, 5))], ledger)
    assert "the engine emitted token id 5, its record says 8" in found


@pytest.mark.parametrize(("kind", "fields"), [("forced", {}), ("undecided", {"reason": "nan"})])
def test_what_no_entropy_decided_is_a_record_of_an_emitted_token(
    kind: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    line = {"kind": kind, "request_key": "a", "position": 1, "token_id": 8, **fields}
    ledger = ledger_of(tmp_path, token("a", 0, 7), line)
    assert find_discrepancies([A], ledger) == ()
    assert ledger.without_entropy("a") == {1: kind}
    table = token_table(
        (7, 8), ("a", "b"), ledger.tokens, without_entropy=ledger.without_entropy("a"), fancy=False
    )
    assert [str(cell) for cell in table.columns[3].cells] == ["0.250000", kind.upper()]


def test_what_shows_later_settles_what_could_not_be_told(tmp_path: Path) -> None:
    lines = [token("a", 0, 7), token("a", 1, 9, **UNKNOWN), emission("a", 1, emitted=False)]
    ledger = ledger_of(
        tmp_path, *lines, token("a", 1, 8, **UNKNOWN), emission("a", 1, emitted=True)
    )
    assert find_discrepancies([A], ledger) == ()
    assert [record.token_id for record in ledger.tokens] == [7, 8]
    short = Emission(request_key="a", token_ids=(7,))
    assert find_discrepancies([short], ledger) == (
        "request a: a record of token 1, which was not emitted",
    )
    assert find_discrepancies([short], ledger_of(tmp_path, *lines)) == ()


def test_samples_of_one_request_are_settled_each_by_itself(tmp_path: Path) -> None:
    lines = [token("a", 0, 7, sequence=name, **UNKNOWN) for name in "xy"]
    ledger = ledger_of(tmp_path, *lines, emission("a", 0, emitted=False, sequence="x"))
    assert [line.values["sequence"] for line, _ in ledger.settled()] == ["y"]
