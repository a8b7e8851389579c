# SPDX-License-Identifier: Apache-2.0
"""The figures of studies, against SciPy and NumPy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats

from qr_sampler.errors import ConfigError
from qr_sampler.records.files import ledgers_in
from qr_sampler_lab.analysis import Moments
from qr_sampler_lab.analysis.anytime import log_e_values
from qr_sampler_lab.experiments import comparing
from qr_sampler_lab.experiments.files.errors import StudyError
from qr_sampler_lab.experiments.protocol import Exclusions
from qr_sampler_lab.experiments.results.block_lengths import ArmMean, compare_block_lengths
from qr_sampler_lab.experiments.results.contrast import block_score, block_test, contrast_test
from qr_sampler_lab.experiments.results.figures import StudyData, study_figures
from qr_sampler_lab.experiments.results.latencies import latency_figures
from qr_sampler_lab.experiments.results.observations import (
    LedgerTail,
    Observation,
    observations_in,
)
from qr_sampler_lab.experiments.results.report import report_of, write_report
from qr_sampler_lab.experiments.results.report_text import report_text
from qr_sampler_lab.experiments.results.revealed import reveal, unblind
from qr_sampler_lab.experiments.results.selection import (
    NO_EXCLUSIONS,
    Selection,
    why_excluded,
)
from qr_sampler_lab.experiments.results.sequential import e_process_of
from qr_sampler_lab.experiments.running.conduct import Conduct, conduct
from qr_sampler_lab.experiments.study import Study


def moments_of(values: Any) -> Moments:
    moments = Moments()
    moments.add(values)
    return moments


@pytest.fixture
def samples() -> dict[str, Any]:
    rng = np.random.default_rng(8)
    return {
        "a": rng.normal(0.3, 1.2, size=40),
        "b": rng.normal(0.0, 0.9, size=25),
        "c": rng.normal(-0.1, 1.0, size=31),
    }


@pytest.mark.parametrize("side", ["two-sided", "greater", "less"])
def test_a_difference_is_welchs(samples: dict[str, Any], side: Any) -> None:
    moments = {arm: moments_of(sample) for arm, sample in samples.items()}
    result = contrast_test(moments, {"a": 1, "b": -1}, between_arms=True, alternative=side)
    oracle = stats.ttest_ind(samples["a"], samples["b"], equal_var=False, alternative=side)
    assert result.score == pytest.approx(oracle.statistic, rel=1e-12)
    assert result.degrees == pytest.approx(oracle.df, rel=1e-12)
    assert result.p_value == pytest.approx(oracle.pvalue, rel=1e-9)
    both = stats.ttest_ind(samples["a"], samples["b"], equal_var=False).confidence_interval()
    assert (result.low, result.high) == pytest.approx((both.low, both.high), rel=1e-9)
    assert result.tokens == {"a": 40, "b": 25}


def test_a_contrast_of_three_arms_is_that_of_its_parts(samples: dict[str, Any]) -> None:
    weights = {"a": 1.0, "b": -0.25, "c": -0.75}
    moments = {arm: moments_of(sample) for arm, sample in samples.items()}
    result = contrast_test(moments, weights, between_arms=True, alternative="two-sided")
    parts = {arm: weights[arm] ** 2 * np.var(s, ddof=1) / len(s) for arm, s in samples.items()}
    error = math.sqrt(sum(parts.values()))
    degrees = error**4 / sum(part**2 / (len(samples[arm]) - 1) for arm, part in parts.items())
    estimate = sum(weights[arm] * np.mean(sample) for arm, sample in samples.items())
    assert result.estimate == pytest.approx(estimate)
    assert result.p_value == pytest.approx(2 * stats.t.sf(abs(estimate / error), degrees))


def test_one_arm_is_compared_with_theory(samples: dict[str, Any]) -> None:
    moments = {"a": moments_of(samples["a"])}
    result = contrast_test(moments, {"a": 1}, between_arms=False, alternative="greater")
    score = np.mean(samples["a"]) * math.sqrt(40)
    assert result.score == pytest.approx(score)
    assert result.p_value == pytest.approx(stats.norm.sf(score))
    assert result.high - result.low == pytest.approx(2 * stats.norm.ppf(0.975) / math.sqrt(40))


def test_contrasts_need_tokens_that_differ() -> None:
    few = {"a": moments_of([1.0]), "b": moments_of([1.0, 2.0])}
    with pytest.raises(ConfigError, match="'a' has 1 tokens"):
        contrast_test(few, {"a": 1, "b": -1}, between_arms=True, alternative="two-sided")
    equal = {"a": moments_of([1.0, 1.0]), "b": moments_of([1.0, 1.0])}
    with pytest.raises(ConfigError, match="are equal"):
        contrast_test(equal, {"a": 1, "b": -1}, between_arms=True, alternative="two-sided")


def test_scores_of_blocks_have_variance_one_in_theory() -> None:
    rng = np.random.default_rng(5)
    scores = [
        block_score({"a": list(rng.normal(size=3)), "b": list(rng.normal(size=7))}, weights)
        for weights in [{"a": 1.0, "b": -1.0}] * 2_000
    ]
    told = np.array(scores, dtype=float)
    # Five standard deviations of a variance of 2,000 normal numbers, the seed being fixed.
    assert abs(told.var() - 1.0) < 5 * math.sqrt(2 / 2_000)
    assert abs(told.mean()) < 5 / math.sqrt(2_000)
    assert block_score({"a": [1.0], "b": []}, {"a": 1.0, "b": -1.0}) is None


@pytest.mark.parametrize(("effect", "prefers"), [("influence", 1), ("selection", -1)])
def test_block_lengths_tell_influence_from_selection(effect: str, prefers: int) -> None:
    sizes = (64, 1_024, 10_240)
    means = {
        "influence": [1e-3 * math.sqrt(size) for size in sizes],
        "selection": [0.05, 0.05, 0.05],
    }[effect]
    arms = [
        ArmMean(block_bytes=size, mean=mean, error=0.01)
        for size, mean in zip(sizes, means, strict=True)
    ]
    result = compare_block_lengths(arms)
    assert math.copysign(1, result.log_likelihood_ratio) == prefers
    right, wrong = result.influence_p, result.selection_p
    if prefers < 0:
        right, wrong = wrong, right
    assert right > 0.99
    assert wrong < 1e-3


def test_block_lengths_are_fitted_as_by_scipy() -> None:
    sizes, means, errors = [64, 1_024, 10_240], [0.02, 0.05, 0.09], [0.01, 0.02, 0.03]
    result = compare_block_lengths(
        [
            ArmMean(block_bytes=size, mean=mean, error=error)
            for size, mean, error in zip(sizes, means, errors, strict=True)
        ]
    )
    fitted, _ = optimize.curve_fit(
        lambda x, factor: factor * x, np.sqrt(sizes), means, sigma=errors, p0=[0.001]
    )
    assert result.influence == pytest.approx(float(fitted[0]), rel=1e-6)
    weights = np.array(errors) ** -2.0
    assert result.selection == pytest.approx(float(np.average(means, weights=weights)))
    left = (np.array(means) - result.selection) / errors
    assert result.selection_p == pytest.approx(stats.chi2.sf(float((left**2).sum()), 2))


def test_one_block_length_answers_no_question() -> None:
    with pytest.raises(ConfigError, match="one block length"):
        compare_block_lengths([ArmMean(block_bytes=64, mean=0.0, error=1.0)] * 2)


def observation(**changes: Any) -> Observation:
    values: dict[str, Any] = {
        "request_key": "request-000000",
        "alias": "arm-00000000",
        "session": "0",
        "position": 3,
        "source": "system",
        "fallback": False,
        "just_in_time": True,
        "emitted": True,
        "statistic": 0.5,
        "u": 0.75,
    }
    return Observation(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"fallback": True}, "fallback"),
        ({"just_in_time": False}, "not just in time"),
        ({"position": 1}, "first tokens"),
        ({"suspect": True}, "suspect"),
        ({"emitted": False}, "not emitted"),
    ],
)
def test_tokens_are_left_out_by_the_rule(changes: dict[str, Any], reason: str) -> None:
    told = observation(**changes)
    assert why_excluded(told, Exclusions(first_tokens=2)) == reason
    if reason != "not emitted":
        assert why_excluded(told, NO_EXCLUSIONS) == ""


def test_suspect_tokens_count_if_the_seal_says_so() -> None:
    assert why_excluded(observation(suspect=True), Exclusions(suspect_tokens="count")) == ""


@pytest.mark.parametrize("rule", ["count", "exclude"])
def test_the_primary_result_is_shown_with_and_without_suspect_tokens(
    finished_study: Study, rule: Any
) -> None:
    """Every third token is made suspect; those of the ledgers are not."""
    told = report_of(finished_study)
    assert "suspect_tokens" not in told["figures"]
    text = (finished_study.report / "report.txt").read_text()
    assert "with and without suspect tokens: the same, there are none" in text
    protocol = finished_study.sealed.seal.sealed_protocol
    exclusions = protocol.exclusions.model_copy(update={"suspect_tokens": rule})
    changed = protocol.model_copy(update={"exclusions": exclusions})
    revealed = reveal(finished_study)
    data = StudyData(changed, revealed.main_arms, revealed.sessions)
    tokens = list(observations_in(ledgers_in(finished_study.ledgers)))
    marked = [
        token._replace(suspect=number % 3 == 0, statistic=token.statistic and token.statistic + 9)
        if number % 3 == 0
        else token
        for number, token in enumerate(tokens)
    ]
    data.add(marked)
    figures = study_figures(data)
    found = figures["suspect_tokens"]
    assert found["sealed"] == rule
    in_arms = [token for token in marked if token.alias in revealed.main_arms]
    assert found["tokens"] == sum(token.suspect for token in in_arms)
    assert found[rule]["p_value"] == figures["primary"]["p_value"]
    assert found["count"]["tokens"] != found["exclude"]["tokens"]
    by_arm = {
        arm: [t.statistic for t in in_arms if t.alias == alias and not t.suspect]
        for alias, arm in revealed.main_arms.items()
    }
    oracle = stats.ttest_ind(
        by_arm["biased"], by_arm["control"], equal_var=False, alternative="greater"
    )
    assert found["exclude"]["score"] == pytest.approx(oracle.statistic)
    lines = report_text({**told, "figures": {**told["figures"], **figures}}, changed).splitlines()
    shown = [line for line in lines if "suspect tokens" in line]
    words = {"count": "counted", "exclude": "left out"}
    assert f"suspect tokens {words[rule]}, as sealed: " in shown[0]
    assert len(shown) == 2


def test_what_is_left_out_is_counted() -> None:
    selection = Selection(["arm-00000000"], Exclusions())
    selection.add(observation())
    selection.add(observation(fallback=True))
    selection.add(observation(u=None))
    selection.add(observation(alias="arm-of-a-calibration"))
    assert selection.counted == {"arm-00000000": 1}
    assert selection.excluded == {"arm-00000000": {"fallback": 1, "no score": 1}}
    assert selection.scores("mean_u", "arm-00000000") == pytest.approx([0.25 * math.sqrt(12)])


def test_a_tail_reads_what_is_new(finished_study: Study) -> None:
    (path,) = ledgers_in(finished_study.ledgers)
    whole = path.read_bytes()
    cut = whole.index(b"\n", len(whole) // 2) + 1
    path.write_bytes(whole[:cut])
    tail = LedgerTail(finished_study.ledgers)
    first = list(tail.new())
    path.write_bytes(whole)
    second = list(tail.new())
    assert first
    assert second
    assert first + second == list(observations_in([path]))
    assert not list(tail.new())


def test_a_report_is_computed_from_the_ledgers(finished_study: Study) -> None:
    report = report_of(finished_study)
    tokens = list(observations_in(ledgers_in(finished_study.ledgers)))
    arms = report["figures"]["arms"]
    by_arm = {
        arm: [token.statistic for token in tokens if token.alias == told["alias"]]
        for arm, told in arms.items()
    }
    oracle = stats.ttest_ind(
        by_arm["biased"], by_arm["control"], equal_var=False, alternative="greater"
    )
    primary = report["figures"]["primary"]
    assert primary["score"] == pytest.approx(oracle.statistic)
    assert primary["p_value"] == pytest.approx(oracle.pvalue)
    assert primary["found"] == (oracle.pvalue <= 0.01)
    assert arms["control"]["tokens"] == 6 * 8


def test_the_primary_result_comes_first(finished_study: Study) -> None:
    text = (finished_study.report / "report.txt").read_text()
    first = [line for line in text.splitlines() if line][1]
    assert first.startswith("Primary result: ")


def test_other_code_reports_only_with_a_stamp(
    finished_study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "installed_code", lambda protocol: {"qr-sampler-lab": "0" * 64})
    with pytest.raises(StudyError, match=r"the code of qr-sampler-lab.*--anyway"):
        write_report(finished_study)
    report = write_report(finished_study, anyway=True)
    assert any("the code of qr-sampler-lab" in stamp for stamp in report["stamps"])
    text = (finished_study.report / "report.txt").read_text()
    assert text.startswith("NOT AS SEALED: ")


def test_ledgers_that_changed_since_have_no_report(finished_study: Study) -> None:
    (path,) = ledgers_in(finished_study.ledgers)
    path.write_bytes(path.read_bytes() + b'{"kind":"note"}\n')
    with pytest.raises(StudyError, match="not as they were"):
        write_report(finished_study, anyway=True)


def test_a_protocol_that_changed_since_has_no_report(finished_study: Study) -> None:
    path = finished_study.protocol_path
    path.write_text(path.read_text().replace("first_tokens: 0", "").replace("0.01", "0.05"))
    for anyway in (False, True):
        with pytest.raises(StudyError, match="primary"):
            write_report(Study(finished_study.directory), anyway=anyway)


def test_arms_of_another_protocol_are_not_made_known(finished_study: Study) -> None:
    journal = finished_study.journal.path
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    path = finished_study.protocol_path
    path.write_text(path.read_text().replace("biased", "treated"))
    with pytest.raises(StudyError, match="not as it was sealed"):
        unblind(Study(finished_study.directory))


def test_secondary_endpoints_are_corrected_and_decide_nothing(
    make_study: Callable[..., Study], tmp_path: Path
) -> None:
    contrast = {"biased": 1, "control": -1}
    names = ("mean_statistic", "mean_u", "variance", "ks", "cusum")
    study = make_study(
        secondary=[
            {"name": name.replace("_", "-"), "statistic": name, "contrast": dict(contrast)}
            for name in names
        ]
    )
    conduct(study, Conduct())
    unblind(study)
    results = write_report(study)["figures"]["secondary"]
    assert [result["statistic"] for result in results] == list(names)
    raw = [result["p_value"] for result in results]
    smallest = raw.index(min(raw))
    assert results[smallest]["p_corrected"] == pytest.approx(min(1.0, 5 * min(raw)))
    assert all(result["p_corrected"] >= result["p_value"] for result in results)
    tokens = list(observations_in(ledgers_in(study.ledgers)))
    aliases = {arm: told["alias"] for arm, told in report_of(study)["figures"]["arms"].items()}
    u = {arm: [t.u for t in tokens if t.alias == alias] for arm, alias in aliases.items()}
    ks = next(result for result in results if result["statistic"] == "ks")
    assert ks["score"] == pytest.approx(stats.ks_2samp(u["biased"], u["control"]).statistic)


def draws(path: Path, latencies: dict[str, Any]) -> Path:
    """Writes a ledger of draws, those of the sources in turns."""
    lines = [
        {
            "kind": "draw",
            "source": source,
            "t_request_ns": 1_000,
            "t_received_ns": 1_000 + int(latency),
        }
        for turn in zip(*latencies.values(), strict=True)
        for source, latency in zip(latencies, turn, strict=True)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_report_says_whether_latency_tells_the_source(
    make_study: Callable[..., Study], tmp_path: Path
) -> None:
    protocol = make_study().protocol
    rng = np.random.default_rng(12)
    alike = {name: rng.lognormal(13, 0.5, size=4_000) for name in ("mock_uniform", "system")}
    told = latency_figures(protocol, [draws(tmp_path / "alike.jsonl", alike)])
    assert told is not None
    # Half, with a standard deviation of 0.8 %; the seed is fixed.
    assert told["blind"]
    assert told["balanced_accuracy"] == pytest.approx(0.5, abs=0.03)
    apart = {"mock_uniform": alike["system"] * 3, "system": alike["system"]}
    told = latency_figures(protocol, [draws(tmp_path / "apart.jsonl", apart)])
    assert told is not None
    assert not told["blind"]
    assert told["balanced_accuracy"] > 0.8
    few = {name: latencies[:2] for name, latencies in alike.items()}
    told = latency_figures(protocol, [draws(tmp_path / "few.jsonl", few)])
    assert told is not None
    assert "cannot_be_said" in told


def test_one_source_has_nothing_to_tell(make_study: Callable[..., Study], tmp_path: Path) -> None:
    arm = {"source": "system", "block_bytes": 256}
    study = make_study(
        arms=[{"name": "biased", **arm}, {"name": "control", **arm}],
        environment={"QR_MAX_KS_DISTANCE": 0.02},
    )
    assert latency_figures(study.protocol, []) is None


@pytest.mark.parametrize(("sign", "found"), [(1.0, True), (-1.0, False)])
def test_an_e_value_bets_on_the_sealed_side_as_pairs_of_tokens_do(
    make_study: Callable[..., Study], sign: float, found: bool
) -> None:
    study = make_study(
        design={"blocks": 40, "tokens_per_request": 8},
        stopping={"rule": "e_value", "tau": 0.5},
    )
    process = e_process_of(study.protocol)
    assert process is not None
    pairs = np.random.default_rng(5).normal(sign, 1.0, size=(40, 8))
    process.add(pairs.sum(axis=1) / math.sqrt(8.0))
    assert (process.result().crossed_at is not None) == found
    # After a block it stands where the process of its pairs of tokens stands.
    expected = log_e_values(320, float(pairs.sum()), tau=0.5, alternative="greater")
    assert process.result().log_e == pytest.approx(float(expected))


@pytest.mark.parametrize("side", ["greater", "less", "two-sided"])
def test_blocks_are_tested_by_their_own_spread(side: Any) -> None:
    # Drift between blocks: each has a mean of its own, which is large against its tokens' noise.
    scores = np.random.default_rng(8).normal(0.3, 4.0, size=25)
    oracle = stats.ttest_1samp(scores, 0.0, alternative=side)
    result = block_test(scores.tolist(), side)
    assert result["score"] == pytest.approx(float(oracle.statistic))
    assert result["p_value"] == pytest.approx(float(oracle.pvalue))
    assert "cannot_be_said" in block_test([1.0], side)
    assert "cannot_be_said" in block_test([1.0, 1.0], side)
