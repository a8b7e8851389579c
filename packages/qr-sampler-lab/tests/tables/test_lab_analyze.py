# SPDX-License-Identifier: Apache-2.0
"""Reports: what they refuse, what they say, and that it is what the statistics say."""

from __future__ import annotations

import csv
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from qr_sampler_lab.report.adding.arms import split
from qr_sampler_lab.report.adding.paths import MOST_POINTS, SumPath
from qr_sampler_lab.tables.columns import TokenChunk
from qr_sampler_lab.tables.export import export_tables
from qr_sampler_lab.tables.reading import token_chunks


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory, arms_in: Any) -> Path:
    """A ledger of two arms, one of whose sources is biased."""
    return Path(arms_in(tmp_path_factory.mktemp("ledger"), steps=500))


def analyzed(command: Any, *arguments: object) -> dict[str, Any]:
    result = command("analyze", *arguments, "--json")
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.output)
    return told


def of(report: dict[str, Any], test: str, about: str, arm: str) -> dict[str, Any]:
    (found,) = (
        row
        for row in report["tests"]
        if (row["test"], row["about"], row["arm"]) == (test, about, arm)
    )
    return dict(found)


def test_arms_are_compared_as_scipy_would(ledger: Path, command: Any) -> None:
    report = analyzed(command, ledger, "--by", "condition")
    chunk = TokenChunk.concatenated(token_chunks([ledger]))
    conditions = np.array(chunk.condition.texts())
    kept = chunk.emitted != 0
    low, high = (chunk.u[kept & (conditions == c)] for c in ("baseline-LO", "intention-HI"))
    names = [arm["name"] for arm in report["arms"]]
    assert [arm["tokens"] for arm in report["arms"]] == [len(low), len(high)]
    who = " against ".join(names)
    expected = stats.ttest_ind(low, high, equal_var=False)
    found = of(report, "difference_of_means", "u", who)
    assert found["p_value"] == pytest.approx(expected.pvalue, rel=1e-9)
    assert found["section"].startswith("Primary")
    assert found["p_value"] < 1e-9, "the biased source shows"
    ks = of(report, "two_sample_ks", "u", who)
    assert ks["statistic"] > 0.1
    mean = of(report, "mean", "u", names[1])
    z = (high.mean() - 0.5) * math.sqrt(12 * len(high))
    assert mean["statistic"] == pytest.approx(z, rel=1e-9)
    assert [arm["mean_u"] for arm in report["arms"]] == pytest.approx([low.mean(), high.mean()])


def test_a_fallback_is_an_arm_of_its_own_where_sources_are(ledger: Path, command: Any) -> None:
    report = analyzed(command, ledger)
    names = [arm["name"] for arm in report["arms"]]
    assert [name for name in names if "backup (fallback)" in name]
    by_condition = analyzed(command, ledger, "--by", "condition")
    tests = {row["test"] for row in by_condition["tests"]}
    assert {"mean_without_flagged", "mean_with_flagged"} <= tests
    assert sum(arm["fallback"] for arm in by_condition["arms"]) > 0


def test_a_control_is_named(ledger: Path, command: Any) -> None:
    report = analyzed(command, ledger, "--by", "condition", "--control", "baseline-LO")
    primary = [row for row in report["tests"] if row["section"].startswith("Primary")]
    assert {row["arm"].split(" against ")[0][:12] for row in primary} == {"intention-HI"}
    wrong = command("analyze", ledger, "--control", "nobody")
    assert wrong.exit_code == 2
    assert "the control 'nobody' is the name of 0 arms" in wrong.output


def test_one_arm_is_compared_with_the_law_of_ideal_bytes(
    tmp_path: Path, host: Any, command: Any
) -> None:
    made = host(tmp_path)
    made.add(3)
    for _ in range(4):
        made.step()
    made.close()
    report = analyzed(command, tmp_path, "--by", "run")
    primary = {row["test"] for row in report["tests"] if row["section"].startswith("Primary")}
    assert {"mean", "e_value_any_time"} <= primary


def test_discards_are_counted_per_arm(
    tmp_path: Path, arms_in: Any, lines: Any, command: Any
) -> None:
    path = arms_in(tmp_path, steps=60, overlapping=True)
    report = analyzed(command, path, "--by", "condition")
    told = lines(path)
    conditions = {
        line["sequence"]: line["condition"] for line in told if line["kind"] == "sequence"
    }
    discarded = [conditions[line["sequence"]] for line in told if line["kind"] == "discard"]
    assert set(discarded) == {"intention-HI", "baseline-LO"}
    found = of(report, "discards", "rows", "all arms")
    tokens = {arm["name"].split(",")[0]: arm["tokens"] for arm in report["arms"]}
    table = [[discarded.count(name), tokens[name]] for name in sorted(tokens)]
    assert found["p_value"] == pytest.approx(stats.fisher_exact(np.array(table)).pvalue, rel=1e-9)
    assert found["n"] == sum(map(sum, table))


def test_tables_give_the_same_report(ledger: Path, tmp_path: Path, command: Any) -> None:
    export_tables([ledger], tmp_path / "tables")
    report = analyzed(command, ledger)
    again = analyzed(command, tmp_path / "tables")
    # Tables of tokens do not say what was discarded.
    expected = [row for row in report["tests"] if row["test"] != "discards"]
    for mine, other in zip(again["tests"], expected, strict=True):
        for name in mine.keys() - {"p_holm", "q_bh"}:
            known = mine[name] if isinstance(mine[name], str) else pytest.approx(mine[name])
            assert other[name] == known, (mine["test"], name)
    assert any("Read from tables" in stamp for stamp in again["stamps"])
    assert again["ledgers"][0]["head"] == report["ledgers"][0]["head"]
    assert report["ledgers"][0]["rungs"]["1 whole"] != "fails"


@pytest.mark.parametrize("what", ["u", "removed", "version 1"])
def test_ledgers_that_fail_are_refused(
    ledger: Path, tmp_path: Path, command: Any, what: str
) -> None:
    lines = ledger.read_bytes().split(b"\n")
    index = next(at for at, line in enumerate(lines) if b'"kind":"token"' in line)
    if what == "u":
        lines[index] = re.sub(rb'"rank":\d+', b'"rank":77', lines[index])
    elif what == "removed":
        del lines[index]
    else:
        path = Path(__file__).resolve().parents[3] / "qr-sampler/tests/audit/data/ledger_v1.jsonl"
        if not path.exists():
            pytest.skip("the file is in the repository only")
        lines = path.read_bytes().split(b"\n")
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(b"\n".join(lines))
    refused = command("analyze", bad)
    assert refused.exit_code == 2
    assert re.search("fails rung 1|no chain", refused.output)
    report = analyzed(command, bad, "--anyway", "--by", "run")
    assert any(stamp.startswith("NOT ADMITTED") for stamp in report["stamps"])


class Parser(HTMLParser):
    """Collects what a page would load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and value and not value.startswith("#"):
                self.links.append(value)
            assert not name.startswith("on"), "no event runs a script"


def test_the_page_is_self_contained_and_labels_are_text(
    tmp_path: Path, host: Any, command: Any
) -> None:
    evil = '<script>alert("x")</script>'
    made = host(tmp_path / "ledgers")
    for index in range(60):
        while len(made.running) < 4:
            made.add(9, condition=evil if index % 2 else "$\\frac{_a", trial=f"=cmd{index}")
        made.step()
    made.close()
    page = tmp_path / "report.html"
    done = command(
        "analyze",
        tmp_path / "ledgers",
        "--html",
        page,
        "--csv",
        tmp_path / "csv",
        "--exploratory",
        "--block-tokens",
        8,
    )
    assert done.exit_code == 0, done.output
    text = page.read_text("utf-8")
    parser = Parser()
    parser.feed(text)
    assert "script" not in parser.tags
    assert parser.links == []
    assert parser.tags.count("svg") >= 6
    assert "&lt;script&gt;" in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    for reference in re.findall(r"url\(#([^)]+)\)", text):
        assert reference in ids
    assert "Exploratory" in text
    assert page.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("seal", ["", "5e" * 32])
def test_a_report_on_a_sealed_study_says_that_it_explores(
    tmp_path: Path, host: Any, command: Any, seal: str
) -> None:
    made = host(tmp_path, ledger_seal=seal)
    made.add(5)
    made.step()
    made.close()
    stamps = analyzed(command, tmp_path, "--by", "run")["stamps"]
    assert sum("sealed study" in stamp for stamp in stamps) == bool(seal)


def test_labels_steer_no_terminal(tmp_path: Path, host: Any, command: Any) -> None:
    evil = ("\x1b]0;owned\x07[bold]", "\u202e[/]\x9b31m", "中文")
    made = host(tmp_path / "ledgers")
    for _ in range(30):
        while len(made.running) < 4:
            label = evil[len(made.requests) % 3]
            made.add(9, condition=label, trial=label, request_key=f"{label}{len(made.requests)}")
        made.step()
    made.close()
    page = tmp_path / "report.html"
    for arguments in (
        ("analyze", tmp_path / "ledgers", "--by", "condition", "--html", page),
        ("analyze", tmp_path / "ledgers", "--control", "nobody"),
        ("watch", tmp_path / "ledgers", "--once"),
    ):
        shown = command(*arguments)
        assert shown.exit_code == (2 if "--control" in arguments else 0), shown.output
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", shown.output), arguments
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", page.read_text("utf-8"))
    assert "中文" in page.read_text("utf-8")


def test_every_figure_is_a_table_too(ledger: Path, tmp_path: Path, command: Any) -> None:
    done = command("analyze", ledger, "--by", "condition", "--csv", tmp_path / "csv")
    assert done.exit_code == 0, done.output
    names = {path.stem for path in (tmp_path / "csv").iterdir()}
    figures = {"contrast", "running_z", "effects", "distribution", "funnel", "blocks", "latency"}
    assert names == {"tests", "arms"} | figures
    with (tmp_path / "csv" / "running_z.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    chunk = TokenChunk.concatenated(token_chunks([ledger]))
    mine = (np.array(chunk.condition.texts()) == "intention-HI") & (chunk.emitted != 0)
    z = np.cumsum(chunk.statistic[mine]) / np.sqrt(np.arange(1, mine.sum() + 1))
    told = [row for row in rows if row["series"].startswith("intention-HI")]
    assert len(told) > 100
    for row in told:
        assert float(row["y"]) == pytest.approx(z[int(float(row["x"])) - 1], abs=1e-9)
    with (tmp_path / "csv" / "tests.csv").open(newline="") as file:
        assert {row["test"] for row in csv.DictReader(file)} >= {"mean", "cusum", "ones"}


def test_the_terminal_shows_one_page_with_the_primary_comparison_first(
    ledger: Path, command: Any
) -> None:
    shown = command("analyze", ledger, "--by", "condition").output
    lines = [line for line in shown.splitlines() if line.strip()]
    assert lines[0].endswith("tokens of 2 arms")
    assert next(line for line in lines if "?" in line).startswith("Primary")
    assert shown.count("answers are of unequal lengths") == 1, "what is not said has its reason"
    assert "\x1b" not in shown


def test_too_many_arms_and_unknown_columns_are_named(
    ledger: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = command("analyze", ledger, "--by", "colour")
    assert wrong.exit_code == 2
    assert "cannot be split by 'colour'; use any of" in wrong.output
    monkeypatch.setattr("qr_sampler_lab.report.analysis.MOST_ARMS", 1)
    many = command("analyze", ledger)
    assert many.exit_code == 2
    assert "more than 1 arms" in many.output


def test_chunks_make_no_difference(ledger: Path) -> None:
    chunk = TokenChunk.concatenated(token_chunks([ledger]))
    for columns in ((), ("condition",), ("condition", "source", "trial")):
        parts = list(split(chunk, columns))
        together = np.sort(np.concatenate([indices for _, indices in parts]))
        assert together.tolist() == list(range(len(chunk)))
        assert len({key for key, _ in parts}) == len(parts)
        for key, indices in parts:
            for name, text in zip(columns, key.texts, strict=True):
                assert set(getattr(chunk, name)[indices].texts()) == {text}
            assert set(chunk.block_bytes[indices].tolist()) == {key.block_bytes}


def test_paths_are_thinned_out_and_exact() -> None:
    scores = np.random.default_rng(5).normal(size=50_000)
    path = SumPath()
    for part in np.array_split(scores, 17):
        path.add(part)
    counts, sums = path.points()
    assert MOST_POINTS / 2 < len(counts) <= MOST_POINTS
    assert np.allclose(sums, np.cumsum(scores)[counts - 1], rtol=0, atol=1e-9)
    assert path.total == pytest.approx(scores.sum())
