# SPDX-License-Identifier: Apache-2.0
"""What a protocol is worth: its power against an oracle, its warnings, its text."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from scipy import stats

from qr_sampler.amplification.baseline import Baseline
from qr_sampler.entropy.draw import JitClass
from qr_sampler.errors import ConfigError
from qr_sampler_lab.experiments.checking import remarks
from qr_sampler_lab.experiments.checking.power import effective_tokens, power_of
from qr_sampler_lab.experiments.checking.preregistration import preregistration
from qr_sampler_lab.experiments.checking.remarks import remarks_on
from qr_sampler_lab.experiments.environment import engine_environment, engine_settings, files_in
from qr_sampler_lab.experiments.protocol import Protocol, parse_protocol
from qr_sampler_lab.experiments.study import Study

TEXT = """
protocol: 1
name: study
title: Three arms
kind: formal
hypotheses: [They differ., They differ much.]
model: {path: model}
environment: {QR_FALLBACK_MODE: end_request}
arms:
  - {name: high, source: system, block_bytes: 10240, intention: HI, instructions: Wish!}
  - {name: low, source: system, block_bytes: 10240, intention: LO}
  - {name: idle, source: sham, sham: true, block_bytes: 10240}
prompts: [{file: a.txt}]
design: {blocks: 100, tokens_per_request: 20, order: drand}
primary: {contrast: {high: 1, low: -1}, alpha: 0.01, smallest_effect: 0.1, side: greater}
"""

E_VALUE = TEXT + "stopping: {rule: e_value, tau: 0.1}\n"


def protocol(*changes: tuple[str, str], text: str = TEXT) -> Protocol:
    """Returns the protocol with parts replaced."""
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return parse_protocol(text.encode())


def warnings_of(tmp_path: Path, *changes: tuple[str, str], text: str = TEXT) -> str:
    """Returns all remarks on a study, errors marked with an exclamation mark."""
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "model").mkdir(exist_ok=True)
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "a.txt").write_text("Once")
    (tmp_path / "PROTOCOL.yaml").write_text(text)
    study = Study(tmp_path)
    found = remarks_on(study, power_of(study.protocol))
    return "\n".join(("! " if remark.prevents else "") + remark.text for remark in found)


@pytest.mark.parametrize(
    ("weights", "tokens", "variance"),
    [
        ({"a": 1.0}, {"a": 500}, 1 / 500),
        ({"a": 1.0, "b": -1.0}, {"a": 500, "b": 250}, 1 / 500 + 1 / 250),
        ({"a": 1.0, "b": -0.5, "c": -0.5}, {"a": 100, "b": 200, "c": 400}, 0.011875),
    ],
)
def test_effective_tokens(
    weights: dict[str, float], tokens: dict[str, int], variance: float
) -> None:
    assert effective_tokens(weights, tokens) == pytest.approx(1 / variance, rel=1e-12)


@pytest.mark.parametrize("side", ["greater", "less", "two-sided"])
def test_power_is_that_of_the_z_test(side: str) -> None:
    planned = protocol(("side: greater", f"side: {side}"))
    found = power_of(planned)
    shift = 0.1 / (1 / 2_000 + 1 / 2_000) ** 0.5
    # Oracle: SciPy's normal law; on one side the sign of the effect is that of the side.
    if side == "two-sided":
        critical = stats.norm.isf(0.005)
        expected = stats.norm.sf(critical - shift) + stats.norm.cdf(-critical - shift)
    else:
        expected = stats.norm.sf(stats.norm.isf(0.01) - shift)
    assert found.power == pytest.approx(expected, rel=1e-9)
    enough = protocol(
        ("side: greater", f"side: {side}"), ("blocks: 100", f"blocks: {found.blocks_needed}")
    )
    fewer = protocol(
        ("side: greater", f"side: {side}"), ("blocks: 100", f"blocks: {found.blocks_needed - 1}")
    )
    assert power_of(fewer).power < 0.8 <= power_of(enough).power


def test_power_of_an_e_process_is_simulated_and_lower() -> None:
    fixed, anytime = power_of(protocol()), power_of(protocol(text=E_VALUE))
    assert 0.2 < anytime.power < fixed.power
    assert re.search("2000 simulated runs, 95 % interval", anytime.method)
    assert anytime.blocks_needed == fixed.blocks_needed


def test_a_good_protocol_is_only_labelled(tmp_path: Path) -> None:
    found = warnings_of(tmp_path)
    assert "class P of system: pseudo-random" in found
    assert "class P of sham" in found
    assert "!" not in found
    rest = [line for line in found.splitlines() if "class P" not in line]
    assert [line.partition(":")[0] for line in rest] == ["underpowered"]


WARNINGS = {
    "underpowered": ("blocks: 100", "blocks: 5", "with probability 0.0"),
    "theory": ("high: 1, low: -1", "high: 1", "compares with theory"),
    "weights": ("high: 1, low: -1", "high: 2, low: -2", "do not add up to 1 and -1"),
    "frequency": ("intention: LO", "intention: LO, per_block: 2", "different frequency"),
    "secret": ("drand", "secret", "tried secrets"),
    "lengths": ("order: drand", "order: drand, fixed_length: false", "answers end where u"),
    "variable": ("end_request", "end_request, QR_TOP_KK: 3", "QR_TOP_KK is no setting of ours"),
    "fallback": ("end_request", "mock_uniform", "QR_FALLBACK_MODE is mock_uniform"),
    "lattice": (
        "name: low, source: system, block_bytes: 10240",
        "name: low, source: system, block_bytes: 300, amplifier: bit_zscore",
        "arm 'low': with 300 bytes and bit_zscore",
    ),
    "prompt": ("a.txt", "b.txt", "! .*b.txt cannot be read"),
    "model": ("path: model", "path: modell", "! the model modell"),
    "source": ("source: sham", "source: shamm", "! arm 'idle': .*unknown entropy source 'shamm'"),
    "option": ("sham: true", "options: {qr_top_p: 2}", "! arm 'idle': qr_top_p=2"),
    "setting": ("end_request", "end_request, QR_MAX_KS_DISTANCE: 9", "! QR_MAX_KS_DISTANCE"),
    "no baseline": ("end_request", "end_request, QR_BASELINE_FILE: b.json", "! .*b.json"),
}


@pytest.mark.parametrize(("old", "new", "reason"), WARNINGS.values(), ids=list(WARNINGS))
def test_warnings(tmp_path: Path, old: str, new: str, reason: str) -> None:
    changes = [(old, new)]
    if "lattice" in reason or "300 bytes" in reason:
        # Such short blocks are refused unless the operator lets them be, and visible at this N.
        changes += [
            ("end_request", "end_request, QR_MAX_KS_DISTANCE: 0.1"),
            ("blocks: 100", "blocks: 4000"),
        ]
    assert re.search(reason, warnings_of(tmp_path, *changes))


def test_one_arm_is_not_randomised(tmp_path: Path) -> None:
    one = re.sub(r"  - \{name: (low|idle).*\n", "", TEXT).replace(", low: -1", "")
    assert "nothing is randomised" in warnings_of(tmp_path, text=one)


def baseline(blocks: int) -> Baseline:
    return Baseline(
        source="system",
        source_distribution="qr-entropy-sources",
        source_version="0",
        byte_mean=127.4,
        byte_std=73.9,
        ones_fraction=0.4999,
        byte_correlation_factor=1.0,
        bit_correlation_factor=1.0,
        blocks=blocks,
        block_bytes=10_240,
        block_sums=(),
        wall_time_ns=0,
    )


def test_a_baseline_is_below_the_study_and_long_enough(tmp_path: Path) -> None:
    changes = (
        ("end_request", "end_request, QR_BASELINE_FILE: base.json, QR_MAX_KS_DISTANCE: 0.1"),
        ("high: 1, low: -1", "high: 1"),
    )
    baseline(1_000).save(tmp_path / "base.json")
    # sqrt(1 + 2,000 / 1,000)
    expected = "of 1,000 blocks is too short for 2,000 tokens: .* factor of 1.73"
    assert re.search(expected, warnings_of(tmp_path, *changes))
    assert "too short" not in warnings_of(tmp_path, changes[0])
    (tmp_path / "base.json").unlink()
    baseline(100_000).save(tmp_path / "base.json")
    assert "too short" not in warnings_of(tmp_path, *changes)
    planned = protocol(*changes)
    assert files_in(planned) == {"QR_BASELINE_FILE": "base.json"}
    assert engine_settings(planned, tmp_path).baseline_file == tmp_path / "base.json"


def test_other_classes_of_sources_are_labelled(monkeypatch: pytest.MonkeyPatch) -> None:
    arm = protocol().arms[0]
    for label, told in ((JitClass.BEACON, "public"), (JitClass.UNKNOWN, "age")):
        kind = SimpleNamespace(jit_class=label)
        monkeypatch.setattr(
            remarks, "ENTROPY_SOURCES", SimpleNamespace(load=lambda name, k=kind: k)
        )
        (found,) = remarks._of_source(arm)
        assert told in found.text
    kind = SimpleNamespace(jit_class=JitClass.ATTESTED)
    monkeypatch.setattr(remarks, "ENTROPY_SOURCES", SimpleNamespace(load=lambda name: kind))
    assert list(remarks._of_source(arm)) == []


def test_the_environment_of_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_TOP_K", "7")
    planned = protocol(
        ("end_request", "end_request, QR_FOLLOW_REQUEST: true, QR_DEVICE_FILE_PATH: /dev/zero")
    )
    assert engine_environment(planned, tmp_path) == {
        "QR_ENTROPY_SOURCE_TYPE": "system",
        "QR_REQUEST_ENTROPY_SOURCES": "sham",
        "QR_SAMPLE_COUNT": "10240",
        "QR_SIGNAL_AMPLIFIER_TYPE": "zscore_mean",
        "QR_FALLBACK_MODE": "end_request",
        "QR_FOLLOW_REQUEST": "true",
        "QR_DEVICE_FILE_PATH": "/dev/zero",
    }
    settings = engine_settings(planned, tmp_path)
    assert (settings.top_k, settings.follow_request) == (0, True)
    with pytest.raises(ConfigError, match="QR_SAMPLE_COUNT"):
        engine_settings(
            protocol(("block_bytes: 10240, intention: HI", "block_bytes: 99999, intention: HI")),
            tmp_path,
        )


def test_the_text_says_everything_that_decides() -> None:
    text = (
        E_VALUE
        + """
secondary:
  - {name: shape, statistic: ks, contrast: {high: 1, idle: -1}, about: another law}
correction: bh
exclusions: {first_tokens: 3}
schedule: [{phase: calibration, arm: idle, at: every_block, requests: 2}]
"""
    )
    planned = protocol(("drand", "drand, unit: session, requests_per_session: 4"), text=text)
    told = preregistration(planned, power_of(planned))
    for part in (
        "2. They differ much.",
        "Unit of randomisation: session, in 100 permuted blocks",
        "1 x `high`, 1 x `low`, 1 x `idle`",
        "A session has 4 requests of one arm",
        "a public round of drand after the seal",
        "Calibration: 2 requests of `idle`, every block",
        "N of `high`: 6,800 tokens at most",
        "the e-value of the primary endpoint reaches 100 (tau = 0.1)",
        "| `idle` | sham | 10,240 B | zscore_mean | baseline, sham |",
        "Instructions of `high`: Wish!",
        "Setting: `QR_FALLBACK_MODE=end_request`",
        "Primary: mean of the amplifier's statistic, +1 `high` -1 `low`, greater",
        "Secondary, `shape`: distribution of u (Kolmogorov-Smirnov), +1 `high` -1 `idle`",
        "The first 3 tokens of every answer",
        "its e-value reaches 100",
        "corrected after Benjamini and Hochberg",
    ):
        assert part in told, part
    assert "To consider" not in told
    assert "pilot" not in told
    pilot = preregistration(protocol(("formal", "pilot")), power_of(protocol()))
    assert "no test of the hypotheses" in pilot
    assert "if its p-value is below 0.01" in pilot
