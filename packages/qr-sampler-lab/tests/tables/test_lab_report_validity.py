# SPDX-License-Identifier: Apache-2.0
"""A report says nothing of tokens whose law it does not know, however it would like to."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from qr_sampler_lab.report.adding.sources import SourceNetwork
from qr_sampler_lab.report.analysis import Options, TokenAnalysis
from qr_sampler_lab.report.content import Report, Row
from qr_sampler_lab.report.ledgers import ReportInput
from qr_sampler_lab.report.making import report_of
from qr_sampler_lab.tables.arrow import TOKENS as TABLE_TOKENS
from qr_sampler_lab.tables.arrow import batch_of
from qr_sampler_lab.tables.blinding import BLIND_TOKENS, Blinding
from qr_sampler_lab.tables.chunking import Encoders
from qr_sampler_lab.tables.columns import COLUMNS, LABELS, Labels, TokenChunk
from qr_sampler_lab.tables.files import TableFile
from qr_sampler_lab.tables.parquet import TokenTable

TOKENS = 4_000
CONDITIONS = ("HI", "LO")


def rng() -> np.random.Generator:
    """Returns the generator of a test. Seeds are fixed: what is asserted holds for nearly all."""
    return np.random.default_rng(20)


def tokens(u: Any, **columns: Any) -> TokenChunk:
    """Returns tokens of an amplifier whose statistic is u, unless *columns* say otherwise.

    Labels are given as a text for all, or as one text for each.
    """
    u = np.asarray(u, np.float64)
    size = len(u)
    told: dict[str, Any] = {
        **{name: np.zeros(size, np.int64) for name in COLUMNS if name not in LABELS},
        **{name: np.full(size, np.nan) for name in ("lattice_step", "entropy_nats", "temperature")},
        "u": u,
        "statistic": u,
        "received_ns": np.arange(size),
        "request_ns": np.arange(size),
        "numbers": np.ones(size, np.int64),
        "emitted": np.ones(size, np.int8),
        "fallback": np.zeros(size, np.bool_),
        **dict.fromkeys(LABELS, None),
        "amplifier": "server",
        "baseline": "",
        "source": "device",
        **columns,
    }
    for name in LABELS:
        texts = told[name] if isinstance(told[name], (list, np.ndarray)) else [told[name]] * size
        names = list(dict.fromkeys(texts))
        told[name] = Labels(np.array([names.index(text) for text in texts], np.int32), names)
    return TokenChunk(**told)


def reported(*chunks: TokenChunk, **options: Any) -> Report:
    """Returns the report on chunks."""
    analysis = TokenAnalysis(Options(**{"by": ("condition",), **options}))
    analysis.add_all(chunks)
    report = report_of(ReportInput(chunks=iter(()), ledgers=[], stamps=[]), analysis)
    analysis.close()
    return report


def rows_of(report: Report, name: str, section: str = "") -> list[Row]:
    """Returns the rows of a test."""
    return [
        row
        for each in (report.primary, *report.sections)
        for row in each.rows
        if row.result.name == name and each.title.startswith(section)
    ]


def alternating(size: int = TOKENS) -> np.ndarray[Any, Any]:
    """Returns the conditions of tokens."""
    return np.array(CONDITIONS)[np.arange(size) % 2]


def test_arms_with_other_baselines_are_not_compared() -> None:
    conditions = alternating()
    low = conditions == "LO"
    # Baselines of 1,000 blocks each, whose errors are 1.5 deviations apart from each other.
    u = np.clip(rng().uniform(size=TOKENS) + np.where(low, 0.03, -0.03), 1e-9, 1 - 1e-9)
    baselines = np.where(low, "b" * 64, "a" * 64)
    assert stats.ttest_ind(u[low], u[~low]).pvalue < 1e-6, "they would seem to differ"
    report = reported(tokens(u, condition=conditions, baseline=baselines))
    for row in report.primary.rows:
        assert math.isnan(row.result.p_value)
        assert row.result.interval is None
        assert "do not cancel" in row.result.notes[-1]
    assert not rows_of(report, "e_value_any_time", "Primary")
    assert not rows_of(report, "two_sample_ks")
    figures = {figure.name: figure for figure in report.figures}
    assert not figures.keys() & {"contrast", "running_z", "distribution"}
    assert np.isnan(figures["effects"].series[0].columns["low"]).all()


def test_arms_with_one_baseline_are_compared_and_with_nothing_else() -> None:
    u = np.clip(rng().uniform(size=TOKENS) + 0.03, 1e-9, 1 - 1e-9)
    report = reported(tokens(u, condition=alternating(), baseline="a" * 64))
    (difference,) = rows_of(report, "difference_of_means", "Primary")[:1]
    assert difference.result.p_value > 1e-6
    (contrast,) = rows_of(report, "e_value_any_time", "Primary")
    assert contrast.result.p_value > 1e-6
    for row in rows_of(report, "mean") + rows_of(report, "stouffer"):
        assert math.isnan(row.result.p_value)
        assert row.result.interval is None
    assert "running_z" not in {figure.name for figure in report.figures}


def test_accepted_drafts_are_an_arm_without_a_law() -> None:
    script = rng()
    u = script.uniform(size=3 * TOKENS)
    # A draft is accepted with a probability that depends on the token, and so on u.
    kept = u[script.uniform(size=len(u)) > u]
    bonus = script.uniform(size=len(kept))
    assert stats.kstest(kept, "uniform").pvalue < 1e-9
    roles = np.repeat(["proposal", "bonus"], len(kept))
    report = reported(tokens(np.concatenate([kept, bonus]), role=roles, amplifier="upper53"))
    assert [arm["name"] for arm in report.arms] == [
        "no condition",
        "no condition, accepted drafts",
    ]
    for section in (report.primary, *report.sections):
        for row in section.rows:
            if "accepted drafts" in row.who:
                assert math.isnan(row.result.p_value), row
    of_all = [row for row in rows_of_u(report) if row.who == "no condition"]
    assert {row.result.name for row in of_all} >= {"mean", "cusum", "kolmogorov_smirnov"}
    assert all(row.result.p_value > 1e-6 for row in of_all if row.result.name != "runs")


def test_a_device_that_is_stuck_at_zero_has_a_report() -> None:
    report = reported(tokens(np.zeros(100), amplifier="upper53", role="bonus"))
    (mean,) = (row for row in rows_of(report, "mean") if row.result.about == "u")
    (law,) = (row for row in rows_of(report, "kolmogorov_smirnov") if row.result.about == "u")
    assert max(mean.result.p_value, law.result.p_value) < 1e-9


def answers_until(u: Any, low: float) -> np.ndarray[Any, Any]:
    """Returns the number of the answer of every token, when one ends with a u below *low*."""
    ends = np.append(False, u[:-1] < low)
    return np.cumsum(ends)


def test_sessions_whose_length_u_decides_are_not_compared() -> None:
    u = rng().uniform(size=TOKENS)
    answer = answers_until(u, 0.1)
    names = np.array([f"trial {number}" for number in answer])
    z = (u - 0.5) * math.sqrt(12.0)
    length = np.bincount(answer)
    means = np.bincount(answer, weights=z) / length
    slope = stats.linregress(length**-0.5, means, alternative="two-sided")
    assert slope.pvalue < 1e-6, "short answers seem to have another mean"
    report = reported(tokens(u, sequence=answer, trial=names))
    for name in ("heterogeneity", "funnel_asymmetry"):
        (row,) = rows_of(report, name)
        assert math.isnan(row.result.p_value)
        assert "u may have decided" in row.result.notes[-1]
    (together,) = rows_of(report, "stouffer")
    assert together.result.statistic == pytest.approx(z.sum() / math.sqrt(TOKENS))


def test_sessions_of_fixed_length_are_compared() -> None:
    u = rng().uniform(size=TOKENS)
    answer = np.arange(TOKENS) // 20
    names = np.array([f"trial {math.isqrt(number)}" for number in answer])
    report = reported(tokens(u, sequence=answer, trial=names))
    for name in ("heterogeneity", "funnel_asymmetry", "stouffer"):
        (row,) = rows_of(report, name)
        assert 1e-6 < row.result.p_value <= 1.0


@pytest.mark.parametrize("together", [False, True])
def test_sources_that_deviate_together_are_seen(together: bool) -> None:
    script = rng()
    size = 40_000
    u = script.uniform(size=size)
    if together:
        shifts = script.normal(scale=0.05, size=size // 400)[np.arange(size) // 400]
        u = np.clip(u + shifts, 1e-9, 1 - 1e-9)
    source = np.array(["one", "two", "three"])[script.integers(3, size=size)]
    report = reported(tokens(u, source=source), block_tokens=100)
    (pairs,) = rows_of(report, "pair_products")
    (variance,) = rows_of(report, "network_variance")
    assert pairs.who == "one, three, two"
    assert (pairs.result.p_value < 1e-6) == (variance.result.p_value < 1e-6) == together
    z = (u - 0.5) * math.sqrt(12.0)
    one, two, three = (
        [part.sum() / 10 for part in np.split(own[: len(own) // 100 * 100], len(own) // 100)]
        for own in (z[source == name] for name in ("one", "two", "three"))
    )
    scores = [stats.zscore(each, ddof=1) for each in (one, two, three)]
    products = [
        a * b for mine, other in combinations(scores, 2) for a, b in zip(mine, other, strict=False)
    ]
    assert pairs.result.effect == pytest.approx(np.mean(products), rel=1e-9)


def test_sources_do_not_go_together_because_u_ends_answers() -> None:
    script = rng()
    p_values = []
    for _ in range(200):
        u = script.uniform(size=TOKENS)
        network = SourceNetwork(20)
        codes = (answers_until(u, 0.1) % 2).astype(np.int32)
        network.add((u - 0.5) * math.sqrt(12.0), Labels(codes, ["one", "two"]))
        p_values.append(network.pair_products().p_value)
    # In stretches of time the median is below 0.35.
    assert stats.kstest(p_values, "uniform").pvalue > 1e-4


def test_a_biased_source_goes_with_no_other() -> None:
    script = rng()
    u = script.uniform(size=40_000)
    source = np.array(["one", "biased"])[script.integers(2, size=len(u))]
    u[source == "biased"] **= 0.1
    report = reported(tokens(u, source=source), block_tokens=100)
    assert rows_of(report, "network_variance")[0].result.p_value < 1e-9
    assert rows_of(report, "pair_products")[0].result.p_value > 1e-4


def test_a_lone_source_is_no_network() -> None:
    report = reported(tokens(rng().uniform(size=TOKENS)))
    assert not rows_of(report, "network_variance")


def test_rates_of_discovery_are_scipys_over_the_whole_report() -> None:
    u = rng().uniform(size=TOKENS)
    report = reported(tokens(u, condition=alternating()), block_tokens=100, exploratory=True)
    rows = [row for each in (report.primary, *report.sections) for row in each.rows]
    counted = [
        row for row in rows if math.isfinite(row.result.p_value) and not row.result.exploratory
    ]
    expected = stats.false_discovery_control([row.result.p_value for row in counted])
    assert [row.discovery_rate for row in counted] == pytest.approx(expected.tolist())
    others = [row for row in rows if row.result.exploratory]
    assert others
    assert all(math.isnan(row.discovery_rate) for row in others)


def test_a_result_that_hangs_on_its_end_is_seen() -> None:
    u = rng().uniform(size=TOKENS)
    u[-TOKENS // 10 :] = np.clip(u[-TOKENS // 10 :] + 0.2, 1e-9, 1 - 1e-9)
    report = reported(tokens(u), block_tokens=100)
    (row,) = rows_of(report, "window_sensitivity")
    assert row.result.exploratory
    z = (u - 0.5) * math.sqrt(12.0)
    assert row.result.statistic == pytest.approx(z.sum() / math.sqrt(TOKENS))
    assert row.result.statistic > 2.5
    assert row.result.effect < 0.5


@pytest.mark.parametrize("baseline", ["", "a" * 64])
@pytest.mark.parametrize("step", [0.05, 1e-12])
def test_blind_tables_say_what_law_u_has(tmp_path: Path, baseline: str, step: float) -> None:
    u = rng().integers(20, size=TOKENS) / 20 + 0.025 if step == 0.05 else rng().uniform(size=TOKENS)
    chunk = tokens(u, baseline=baseline, lattice_step=np.full(TOKENS, step))
    blinding = Blinding(b"k" * 32)
    table = TableFile(tmp_path, "tokens", BLIND_TOKENS, "parquet")
    table.add(blinding.batch(chunk))
    table.finish({"blind": True, "law": blinding.law})
    report = reported(*TokenTable(tmp_path).chunks(1_000, Encoders()))
    said = {row.result.name: math.isfinite(row.result.p_value) for row in rows_of_u(report)}
    assert said["mean"] == (not baseline)
    assert said["kolmogorov_smirnov"] == (not baseline and step < 0.05)


def rows_of_u(report: Report) -> list[Row]:
    """Returns the rows about u."""
    sections = (report.primary, *report.sections)
    return [row for each in sections for row in each.rows if row.result.about == "u"]


def test_blind_tables_that_say_nothing_have_no_known_law(tmp_path: Path) -> None:
    table = TableFile(tmp_path, "tokens", BLIND_TOKENS, "parquet")
    table.add(Blinding(b"k" * 32).batch(tokens(rng().uniform(size=TOKENS))))
    table.finish({"blind": True})
    report = reported(*TokenTable(tmp_path).chunks(1_000, Encoders()))
    assert all(math.isnan(row.result.p_value) for row in rows_of(report, "mean"))


@pytest.mark.parametrize(
    "ledgers",
    [[{"run": "a", "head": "b", "rungs": {"1 whole": "holds"}}], [{"run": [1], "rungs": 3}, 4], 7],
)
def test_tables_vouch_for_no_rung(tmp_path: Path, command: Any, ledgers: Any) -> None:
    table = TableFile(tmp_path, "tokens", TABLE_TOKENS, "parquet")
    table.add(batch_of(tokens(rng().uniform(size=100))))
    table.finish({"ledgers": ledgers})
    page = tmp_path / "report.html"
    told = command("analyze", tmp_path, "--html", page)
    assert told.exit_code == 0, told.output
    assert "1 whole" not in told.output + page.read_text("utf-8")
