# SPDX-License-Identifier: Apache-2.0
"""The shipped protocols, each carried out by its commands on the toy host."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from typer.testing import CliRunner

from qr_sampler_lab.commands.experiment import experiment
from qr_sampler_lab.experiments.beginning import new_study, shipped_protocols
from qr_sampler_lab.experiments.protocol import read_protocol
from qr_sampler_lab.experiments.sealing import seal_study
from qr_sampler_lab.experiments.study import Study

SHIPPED = ("block-length", "known-effect", "null-control", "tripolar")


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(experiment, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def sealed(directory: Path, name: str, *, mean: float = 127.6, **design: int) -> Path:
    """Seals a shipped protocol for the toy host, with another size and another bias."""
    new_study(directory, name)
    (directory / "model").mkdir()
    (directory / "model" / "toy-model.json").write_text("{}")
    text = (directory / "PROTOCOL.yaml").read_text()
    planned = read_protocol(directory / "PROTOCOL.yaml").design
    for key, value in design.items():
        old = f"{key}: {getattr(planned, key)}"
        assert old in text
        text = text.replace(old, f"{key}: {value}")
    text = text.replace("QR_MOCK_UNIFORM_MEAN: 127.6", f"QR_MOCK_UNIFORM_MEAN: {mean}")
    (directory / "PROTOCOL.yaml").write_text(text)
    seal_study(Study(directory), witness=None)
    return directory


def carried_out(directory: Path) -> dict[str, Any]:
    """Runs, unblinds, reports, bundles and verifies; returns the figures."""
    invoke("run", directory, "--no-anchors", "--at-once", 64)
    invoke("unblind", directory, "--yes")
    text = invoke("report", directory)
    assert "Primary result: " in text
    invoke("bundle", directory, "--to", directory.parent / "bundle")
    told = json.loads(invoke("verify", directory.parent / "bundle", "--json"))
    assert told["verdict"] != "fails"
    figures: dict[str, Any] = json.loads((directory / "report" / "report.json").read_text())
    return figures["figures"]


@pytest.mark.parametrize("name", SHIPPED)
def test_protocols_are_read_and_have_the_power_that_they_want(name: str) -> None:
    protocol = read_protocol(shipped_protocols()[name])
    assert protocol.name == name
    assert protocol.primary.compares_arms
    tokens = protocol.tokens_per_arm
    error = math.sqrt(sum(w**2 / tokens[arm] for arm, w in protocol.primary.contrast.items()))
    tail = protocol.primary.alpha / (2 if protocol.primary.side == "two-sided" else 1)
    # Normal theory with variances of 1, the other tail neglected.
    power = stats.norm.sf(stats.norm.isf(tail) - protocol.primary.smallest_effect / error)
    assert power >= protocol.primary.power


def test_all_shipped_protocols_are_tested() -> None:
    assert set(shipped_protocols()) == set(SHIPPED)


def test_the_null_control_finds_nothing(tmp_path: Path, code_is_digested_once: None) -> None:
    figures = carried_out(
        sealed(tmp_path / "study", "null-control", blocks=20, tokens_per_request=8)
    )
    # With 160 tokens an arm a score of 6.2 has a probability below 1e-8 by Student's law.
    assert abs(figures["primary"]["score"]) < 6.5
    assert figures["primary"]["found"] == (figures["primary"]["p_value"] <= 0.01)


def test_the_known_effect_is_found(tmp_path: Path, code_is_digested_once: None) -> None:
    # Ten times the bias, so that few tokens suffice: 1.369 is 12.2 standard errors of 160 tokens an
    # arm, and 3.1 are needed. It is missed with a probability below 1e-18.
    directory = sealed(
        tmp_path / "study", "known-effect", mean=128.5, blocks=10, tokens_per_request=16
    )
    primary = carried_out(directory)["primary"]
    assert primary["found"]
    assert primary["estimate"] == pytest.approx(1.369, abs=6.5 * math.sqrt(2 / 160))


def test_intentions_have_sessions_and_calibrations(
    tmp_path: Path, code_is_digested_once: None
) -> None:
    directory = sealed(
        tmp_path / "study", "tripolar", blocks=2, requests_per_session=2, tokens_per_request=4
    )
    figures = carried_out(directory)
    assert {arm: told["tokens"] for arm, told in figures["arms"].items()} == {
        "high": 16,
        "low": 16,
        "baseline": 16,
    }
    assert [result["name"] for result in figures["secondary"]] == ["high-baseline", "low-baseline"]


def test_instructions_are_shown_before_sessions(
    tmp_path: Path, code_is_digested_once: None
) -> None:
    directory = sealed(
        tmp_path / "study", "tripolar", blocks=1, requests_per_session=1, tokens_per_request=2
    )
    shown = CliRunner().invoke(experiment, ["run", str(directory), "--no-anchors"]).output
    for word in ("high numbers", "low numbers", "Intend nothing"):
        assert word in shown
    assert "p_value" not in shown


def test_block_lengths_show_that_bytes_are_biased(
    tmp_path: Path, code_is_digested_once: None
) -> None:
    directory = sealed(
        tmp_path / "study", "block-length", mean=128.5, blocks=15, tokens_per_request=16
    )
    told = carried_out(directory)["block_lengths"]
    assert [arm["block_bytes"] for arm in told["arms"]] == [64, 1_024, 10_240]
    # A bias of every byte is influence. Ten times that of the protocol makes z 0.11, 0.43 and 1.37,
    # with errors of 0.065: the log likelihood ratio is 102 on average with a standard deviation of
    # 14, so that it is negative with a probability below 1e-12.
    assert told["log_likelihood_ratio"] > 0
    assert told["influence"] == pytest.approx(1 / 73.9, abs=6.5 * 0.065 / 101)
    assert told["selection_p"] < 1e-3


def test_exit_statuses_say_what_a_bundle_is(bundle: Path, tmp_path: Path) -> None:
    def status(*arguments: object) -> int:
        return CliRunner().invoke(experiment, [str(argument) for argument in arguments]).exit_code

    assert status("verify", bundle) == 0
    assert status("verify", tmp_path / "nothing") == 2
    (bundle / "data" / "report" / "report.txt").write_text("Found!")
    assert status("verify", bundle) == 1
    assert status("verify", bundle, "--json") == 1
    assert status("run", tmp_path / "nothing") == 2


@pytest.mark.heavy
def test_a_page_shows_the_tokens_of_each_alias(finished_study: Study, tmp_path: Path) -> None:
    invoke("report", finished_study.directory, "--html")
    page = (finished_study.report / "analysis.html").read_text()
    report = json.loads((finished_study.report / "report.json").read_text())
    for told in report["figures"]["arms"].values():
        assert told["alias"] in page
    invoke("bundle", finished_study.directory, "--to", tmp_path / "bundle")
    told = json.loads(invoke("verify", tmp_path / "bundle", "--json"))
    (figures,) = [claim for claim in told["claims"] if claim["name"] == "figures"]
    assert figures["status"] == "cannot be said"
    assert "analysis.html" in figures["cannot_be_said"][0]
