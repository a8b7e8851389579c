# SPDX-License-Identifier: Apache-2.0
"""The page of benchmarks states every gate, and its verdicts follow from its numbers."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PACKAGE = Path(__file__).parents[1]
PAGE = PACKAGE.parents[1] / "docs" / "benchmarks.md"

pytestmark = pytest.mark.skipif(
    not (PACKAGE / "benchmarks").exists() or not PAGE.exists(),
    reason="neither benchmarks nor docs are part of the source distribution",
)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(PACKAGE))
    return importlib.import_module("benchmarks.page")


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(PACKAGE))
    return importlib.import_module("benchmarks.gates")


def generated(page: Any) -> str:
    text = PAGE.read_text("utf-8")
    assert text.count(page.BEGIN) == text.count(page.END) == 1
    return text.partition(page.BEGIN)[2].partition(page.END)[0]


def verdicts(page: Any) -> Iterator[dict[str, str]]:
    lines = [line.strip("| ").split(" | ") for line in generated(page).splitlines() if "|" in line]
    header = next(cells for cells in lines if cells[-1] == "verdict")
    for cells in lines:
        if len(cells) == len(header) and cells[-1] in ("pass", "MISSED"):
            yield dict(zip(header, cells, strict=True))


def test_every_gate_has_its_row_with_its_bound(page: Any, gates: Any) -> None:
    shown = [(row["measured"], row["rows"], float(row["gate"])) for row in verdicts(page)]
    wanted = [
        (gate.claim.what, "-" if gate.batch == gates.PLAIN_BATCH else str(gate.batch), gate.bound)
        for gate in gates.gates()
    ]
    assert shown == wanted


def test_every_verdict_follows_from_its_number(page: Any) -> None:
    for row in verdicts(page):
        worst, bound = (float(row[name].replace(",", "")) for name in ("worst set", "gate"))
        assert 0.0 <= float(row["best set"].replace(",", "")) <= worst
        # A number that rounds to its bound may have been on either side of it.
        if worst != bound or bound == 0.0:
            assert row["verdict"] == ("pass" if worst <= bound else "MISSED"), row


def test_the_page_names_its_command_its_plot_and_the_state_of_the_gpu(page: Any) -> None:
    assert "uv run nox -s bench" in PAGE.read_text("utf-8")
    text = generated(page)
    assert page.PLOT in text
    assert (PAGE.parent / page.PLOT).exists()
    assert page.NO_ACCELERATOR in text or "host waits" in text


def test_outcomes_are_judged_by_the_worst_value(page: Any, gates: Any) -> None:
    gate = gates.gates()[0]
    good = gates.Outcome(gate, (gate.bound / 2, gate.bound))
    bad = gates.Outcome(gate, (gate.bound / 2, 1.01 * gate.bound))
    assert (good.passed, bad.passed) == (True, False)
    table = page.gate_table([good, bad]).splitlines()
    assert [line.split(" | ")[-1] for line in table[2:]] == ["pass |", "MISSED |"]


def test_only_what_stands_between_the_markers_is_replaced(page: Any, tmp_path: Path) -> None:
    place = tmp_path / "page.md"
    place.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n", "utf-8")
    page.update(place, "new")
    assert place.read_text("utf-8") == f"before\n{page.BEGIN}\n\nnew\n\n{page.END}\nafter\n"
    place.write_text("no markers", "utf-8")
    with pytest.raises(ValueError, match="put them back"):
        page.update(place, "new")
