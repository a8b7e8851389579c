# SPDX-License-Identifier: Apache-2.0
"""The benchmark of laws fails where a step takes too long, and its page says what it found."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

PACKAGE = Path(__file__).parents[1]
PAGE = PACKAGE.parents[1] / "docs" / "tsd" / "vllm.md"

pytestmark = pytest.mark.skipif(
    not (PACKAGE / "benchmarks").exists() or not PAGE.exists(),
    reason="neither benchmarks nor docs are part of the source distribution",
)


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("torch", reason="needs torch, which the vllm session installs")
    monkeypatch.syspath_prepend(str(PACKAGE))
    return importlib.import_module("benchmarks.tsd_laws")


def test_the_page_states_every_gate_and_none_is_missed() -> None:
    text = PAGE.read_text("utf-8")
    assert text.count("<!-- laws -->") == text.count("<!-- /laws -->") == 1
    lines = text.partition("<!-- laws -->\n")[2].partition("\n<!-- /laws -->")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert {(int(row[2]), float(row[4])) for row in rows} == {(1, 2.0), (5, 8.0)}
    assert len(rows) == 12
    assert all(float(row[3]) <= float(row[4]) < float(row[5]) for row in rows)


@pytest.mark.parametrize(("ms", "code"), [(7.9, 0), (8.1, 1)])
def test_it_fails_where_a_gate_is_missed(
    benchmark: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    ms: float,
    code: int,
) -> None:
    def measured(filters: str, verifier: str, rows: int, kind: str) -> Any:
        slow = (rows, kind, verifier) == (5, "flat", "block")
        return benchmark.Case(filters, verifier, rows, kind, 70.0, ms if slow else 1.0)

    monkeypatch.setattr(benchmark, "measured", measured)
    monkeypatch.setattr(benchmark, "pin_to_one_cpu", lambda: None)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{benchmark.BEGIN}\nold\n{benchmark.END}\nafter\n")
    assert benchmark.main(["--check", "--write", str(page)]) == code
    assert benchmark.main([]) == 0
    told, missed = capsys.readouterr()
    assert missed.count("missed: ") == 2 * code * len(benchmark.FILTERS)
    assert f"| none | block | 5 | {ms:.2f} | 8 | 70 | slowest on flat rows |" in told
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert told.splitlines()[2] in text


def test_a_step_is_the_same_with_laws_that_sort(benchmark: Any) -> None:
    from benchmarks.logit_sets import logit_set
    from qr_sampler import FastSelector, ReferenceSelector

    for verifier in ("token", "block"):
        logits = logit_set("typical", "bfloat16", 5, 3_000).rows[:5].numpy()
        steps = [
            benchmark.Step(logits, {"top_p": 0.9}, verifier, selector)
            for selector in (FastSelector(), ReferenceSelector())
        ]
        tokens = [step() for step in steps]
        assert tokens[0] == tokens[1]
        assert 1 <= len(tokens[0]) <= 5
