# SPDX-License-Identifier: Apache-2.0
"""Ledgers of version 1, which have no chain, are audited as far as their records go."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

LEDGER = Path(__file__).parent / "data" / "ledger_v1.jsonl"
"""A ledger of the toy host, with forks, aborts, preemptions and overlapping steps."""


@pytest.fixture
def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LEDGER.read_text("utf-8").split("\n") if line]


@pytest.fixture
def rejudged(audit: Any, tmp_path: Path) -> Any:
    def judged(lines: list[dict[str, Any]]) -> Any:
        path = tmp_path / "ledger.jsonl"
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        return audit(path)

    return judged


def tokens(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["kind"] == "token"]


def test_it_is_judged_as_far_as_it_goes(audit: Any) -> None:
    rungs = audit(LEDGER)
    assert [rung.failures for rung in rungs.values()] == [[]] * 6
    assert "version 1 has no chain" in " ".join(rungs[1].unsaid)
    assert [rungs[number].status for number in (1, 2, 3)] == [
        "cannot be said",
        "cannot be said",
        "holds",
    ]


@pytest.mark.parametrize(
    ("rung", "field", "value"),
    [
        (4, "u", 0.5),
        (4, "block_sum", 7),
        (4, "statistic", 0.0),
        (4, "token_id", 12_345),
        (4, "row_digest", "0" * 64),
        (2, "position", 99),
        (3, "t_logits_ns", 2**62),
        (1, "rank", "first"),
    ],
)
def test_what_contradicts_the_records_is_exposed(
    lines: list[dict[str, Any]], rejudged: Any, rung: int, field: str, value: Any
) -> None:
    tokens(lines)[7][field] = value
    assert rejudged(lines)[rung].status == "fails"


def test_a_hole_in_a_sequence_is_exposed(lines: list[dict[str, Any]], rejudged: Any) -> None:
    ((name, _),) = Counter(line["sequence"] for line in tokens(lines)).most_common(1)
    lines.remove([line for line in tokens(lines) if line["sequence"] == name][1])
    assert rejudged(lines)[2].status == "fails"


def test_more_bytes_than_a_draw_has_are_exposed(lines: list[dict[str, Any]], rejudged: Any) -> None:
    tokens(lines)[5]["draw_bytes"] -= 1
    assert rejudged(lines)[2].status == "fails"


def test_lines_that_lack_something_are_named(lines: list[dict[str, Any]], rejudged: Any) -> None:
    del tokens(lines)[5]["draw_bytes"], tokens(lines)[6]["rank"]
    lines.append({"kind": "gap", "reason": "refused", "missing_lines": 3, "wall_time_ns": 1})
    lines.append({"kind": "weather"})
    rungs = rejudged(lines)
    told = " ".join(failure.what for failure in rungs[1].failures)
    assert "lacks 'draw_bytes'" in told
    assert "required field `rank`" in told
    assert "'weather'" in " ".join(rungs[1].notes)
