# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler baseline --check``: what has changed is found, and chance is not taken for it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner, Result

from qr_entropy_sources.mock_uniform import MockUniformSource
from qr_sampler.amplification import Baseline, BaselineMeasurement
from qr_sampler_cli.baseline.check_report import verdict
from qr_sampler_cli.baseline.comparison import (
    ALPHA,
    Figure,
    compared,
    described_differences,
)
from qr_sampler_cli.main import app

BLOCK_BYTES = 64


def measured(data: np.ndarray, latencies: np.ndarray | None = None) -> BaselineMeasurement:
    """A measurement of blocks, shape ``(N, 64)``."""
    return BaselineMeasurement(
        source="device",
        source_distribution="lamps",
        source_version="1",
        block_bytes=data.shape[1],
        byte_counts=np.bincount(data.ravel(), minlength=256).tolist(),
        block_sums=data.sum(axis=1, dtype=int).tolist(),
        block_ones=np.unpackbits(data, axis=1).sum(axis=1, dtype=int).tolist(),
        latencies_ns=[] if latencies is None else latencies.astype(int).tolist(),
        settings={"port": "a"},
        conditioning="none",
    )


def good(rng: np.random.Generator, blocks: int) -> np.ndarray:
    return rng.integers(0, 256, (blocks, BLOCK_BYTES), dtype=np.uint8)


def latencies(rng: np.random.Generator, blocks: int) -> np.ndarray:
    return rng.lognormal(13.0, 0.5, blocks)


def by_name(figures: list[Figure]) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures}


def test_figures_are_those_of_scipy() -> None:
    rng = np.random.default_rng(1)
    old, new = good(rng, 900), np.minimum(good(rng, 300), 250)
    then, now = measured(old).baseline(), measured(new).baseline()
    found = by_name(compared(then, now, []))
    sums = old.sum(axis=1, dtype=int), new.sum(axis=1, dtype=int)
    welch = stats.ttest_ind(sums[0], sums[1], equal_var=False)
    normal = 2.0 * stats.norm.sf(abs(welch.statistic))
    # The variance of block sums is that of all blocks, over N and not N - 1 in one of its parts.
    assert found["byte mean"].p_value == pytest.approx(normal, rel=0.05)
    smirnov = stats.ks_2samp(*sums)
    assert found["law of block sums"].now == pytest.approx(smirnov.statistic, rel=1e-12)
    asymptotic = stats.kstwobign.sf(smirnov.statistic * math.sqrt(900 * 300 / 1_200))
    assert found["law of block sums"].p_value == pytest.approx(asymptotic, rel=1e-9)
    counts = [np.bincount(each.ravel(), minlength=256) for each in (old, new)]
    table = np.array(counts)[:, counts[0] + counts[1] > 0]
    expected = stats.chi2_contingency(table, correction=False)
    independent = min(
        1.0,
        *(min(b.byte_correlation_factor, b.bit_correlation_factor) for b in (then, now)),
    )
    assert found["byte histogram"].now == pytest.approx(independent * expected.statistic)
    tail = stats.chi2.sf(independent * expected.statistic, expected.dof)
    assert found["byte histogram"].p_value == pytest.approx(tail, rel=1e-8)


@pytest.mark.heavy
def test_the_law_of_late_draws_allows_for_the_error_of_the_quantile() -> None:
    """Of 600 pairs with a fixed seed 5 % are below 5 %, give or take 0.9 %.

    Without the factor 1 + n / m the variance would be a third, and 26 % of them were.
    """
    rng = np.random.default_rng(2)
    data = good(rng, 200)
    now = measured(data[:9]).baseline()
    small = 0
    for _ in range(600):
        then = measured(data, latencies(rng, 200)).baseline()
        figures = by_name(compared(then, now, latencies(rng, 400).tolist()))
        small += figures["latency, 50% within (ms)"].p_value < 0.05
    assert 0.01 < small / 600 < 0.10


@pytest.mark.heavy
def test_the_same_device_has_not_changed() -> None:
    """Of 300 pairs with a fixed seed at most 2 are called changed; 0.3 are expected."""
    rng = np.random.default_rng(20_261_130)
    changed = 0
    for _ in range(300):
        old = measured(good(rng, 400), latencies(rng, 400)).baseline()
        new = measured(good(rng, 200)).baseline()
        figures = compared(old, new, latencies(rng, 200).tolist())
        assert len(figures) == 25
        changed += any(figure.has_changed for figure in figures)
    assert changed <= 2


def slow(rng: np.random.Generator, blocks: int) -> np.ndarray:
    """Blocks whose common level follows the block before, with a correlation of 0.6 of the sums."""
    level = np.convolve(rng.normal(0.0, 10.0, blocks + 39), 0.8 ** np.arange(40), mode="valid")
    return np.clip(good(rng, blocks) + level[:, np.newaxis], 0, 255).astype(np.uint8)


@pytest.mark.heavy
def test_a_device_that_always_drifts_has_not_changed() -> None:
    """Of 60 pairs with a fixed seed at most one is; 12 were, as if the blocks were independent."""
    rng = np.random.default_rng(20_261_201)
    changed = 0
    for _ in range(60):
        old, new = (measured(slow(rng, blocks)).baseline() for blocks in (1_000, 400))
        changed += any(figure.has_changed for figure in compared(old, new, []))
    assert changed <= 1


def drifting(rng: np.random.Generator) -> np.ndarray:
    """Blocks whose common level follows the block before."""
    level, rows = 0.0, []
    for _ in range(1_000):
        level = 0.9 * level + rng.normal(0.0, 6.0)
        rows.append(np.clip(rng.integers(0, 256, BLOCK_BYTES) + level, 0, 255))
    return np.array(rows).astype(np.uint8)


CHANGES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "byte mean": lambda rng: np.packbits(rng.random((1_000, 8 * BLOCK_BYTES)) < 0.51, axis=1),
    "ones": lambda rng: np.packbits(rng.random((1_000, 8 * BLOCK_BYTES)) < 0.51, axis=1),
    "ones of bit 0": lambda rng: np.where(
        rng.random((1_000, BLOCK_BYTES)) < 0.05, good(rng, 1_000) | 1, good(rng, 1_000)
    ).astype(np.uint8),
    "byte histogram": lambda rng: np.where((some := good(rng, 1_000)) == 100, 101, some).astype(
        np.uint8
    ),
    "correlation at lag 1": drifting,
    "sd of block means": drifting,
    "law of block sums": drifting,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_found_by_the_figure_that_shows_it(name: str) -> None:
    rng = np.random.default_rng(7)
    then = measured(good(rng, 2_000)).baseline()
    found = by_name(compared(then, measured(CHANGES[name](rng)).baseline(), []))
    assert found[name].adjusted < 1e-6


def test_slower_draws_are_a_change_of_their_own_kind() -> None:
    rng = np.random.default_rng(3)
    then = measured(good(rng, 1_000), latencies(rng, 1_000)).baseline()
    now = measured(good(rng, 500)).baseline()
    found = compared(then, now, (1.5 * latencies(rng, 500)).tolist())
    changed = [figure for figure in found if figure.has_changed]
    assert {figure.kind for figure in changed} == {"latency"}
    assert len(changed) == 2


def test_latencies_of_a_coarse_clock_have_not_changed() -> None:
    rng = np.random.default_rng(3)
    ticks = np.full(1_000, 1e6)
    then, now = measured(good(rng, 1_000), ticks).baseline(), measured(good(rng, 500)).baseline()
    found = by_name(compared(then, now, ticks[:500].tolist()))
    assert found["latency, 50% within (ms)"].p_value == 1.0
    assert found["latency, 95% within (ms)"].p_value == 1.0
    for factor in (0.9, 1.1):
        found = by_name(compared(then, now, (factor * ticks[:500]).tolist()))
        assert found["latency, 50% within (ms)"].adjusted < ALPHA


def test_quantiles_of_no_latency_are_not_compared() -> None:
    rng = np.random.default_rng(3)
    then = measured(good(rng, 100), latencies(rng, 100)).baseline()
    assert then.fingerprint is not None
    claimed = then.fingerprint.model_copy(update={"timed_blocks": 0})
    figures = compared(then.model_copy(update={"fingerprint": claimed}), then, [1])
    assert {figure.kind for figure in figures} == {"bytes"}


def test_few_bytes_have_no_histogram() -> None:
    rng = np.random.default_rng(3)
    then, now = measured(good(rng, 30)).baseline(), measured(good(rng, 5)).baseline()
    assert "byte histogram" not in by_name(compared(then, now, []))


def test_what_a_source_says_of_itself_is_compared() -> None:
    rng = np.random.default_rng(4)
    then = measured(good(rng, 30)).baseline()
    assert described_differences(then, then) == []
    fingerprint = then.fingerprint
    assert fingerprint is not None
    told = fingerprint.model_copy(
        update={
            "settings": {"port": "b", "mode": "raw"},
            "conditioning": "sha256",
            "device_ids": ("QWR4",),
        }
    )
    now = then.model_copy(update={"source_version": "2", "fingerprint": told})
    found = {each.name: (each.then, each.now) for each in described_differences(then, now)}
    assert found == {
        "version": ("1", "2"),
        "conditioning": ("none", "sha256"),
        "device": ("", "QWR4"),
        "setting mode": ("(none)", "raw"),
        "setting port": ("a", "b"),
    }
    assert verdict(9, 99, [], described_differences(then, now)).startswith("Changed: version, ")


@pytest.fixture
def frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QR_MOCK_UNIFORM_SEED", "5")
    arguments = ["--output=b.json", "--source=mock_uniform", "--blocks=400", "--block-bytes=64"]
    assert CliRunner().invoke(app, ["baseline", *arguments]).exit_code == 0
    return tmp_path / "b.json"


def check(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["baseline", "--check=b.json", *arguments])


@pytest.mark.usefixtures("frozen")
def test_a_check_of_the_same_device() -> None:
    result = check()
    # With its seed it delivers the same bytes again.
    assert result.exit_code == 0, result.output
    assert "mock_uniform: 400 new blocks of 64 bytes beside 400 of the baseline" in result.stdout
    last = result.stdout.splitlines()[-1]
    latency = "Changed: latency" in last
    assert latency or "Nothing has changed that 400 blocks could show" in last
    assert [path.name for path in Path.cwd().iterdir()] == ["b.json"]


@pytest.mark.usefixtures("frozen")
def test_a_check_of_a_changed_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_MOCK_UNIFORM_MEAN", "120")
    result = check("--blocks=300")
    assert result.exit_code == 1
    last = result.stdout.splitlines()[-1]
    assert last.startswith("Changed: byte mean, ")
    assert "setting mean" in last


def test_a_file_without_a_fingerprint_is_compared_as_far_as_it_goes(frozen: Path) -> None:
    old = Baseline.load(frozen).model_copy(update={"fingerprint": None})
    frozen.unlink()
    old.save(frozen)
    result = check()
    assert result.exit_code == 0
    assert "The file has no fingerprint" in result.stdout
    assert "ones of bit" not in result.stdout


@pytest.mark.usefixtures("frozen")
def test_a_check_that_is_interrupted_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = 0
    real = MockUniformSource.get_random_bytes

    def failing(self: MockUniformSource, n: int) -> bytes:
        nonlocal drawn
        drawn += 1
        if drawn == 21:
            raise KeyboardInterrupt
        return real(self, n)

    monkeypatch.setattr(MockUniformSource, "get_random_bytes", failing)
    assert check("--blocks=120").exit_code != 0
    assert Path("b.json.check.partial").exists()
    before = Path("b.json.check.partial").read_text("utf-8")
    monkeypatch.setenv("QR_MOCK_UNIFORM_MEAN", "120")
    assert "with other settings or another conditioning" in check("--blocks=120").stderr
    monkeypatch.delenv("QR_MOCK_UNIFORM_MEAN")
    assert Path("b.json.check.partial").read_text("utf-8") == before
    assert "resuming after 20 blocks" in check("--blocks=120").stderr


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source=system"], "is a baseline of 'mock_uniform', not of --source=system"),
        (["--blocks=99"], "99 new blocks beside 400 of b.json: the laws of a comparison hold"),
        (["--block-bytes=65"], "has blocks of 64 bytes; omit --block-bytes"),
        (["--output=c.json"], "give --output for a new baseline, or --check"),
    ],
)
def test_mistakes_are_reported(arguments: list[str], message: str) -> None:
    result = check(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "give --output" in CliRunner().invoke(app, ["baseline"]).stderr


def test_figures_say_what_counts_as_changed() -> None:
    figure = Figure(name="x", kind="bytes", then=0.0, now=1.0, p_value=1e-9, adjusted=ALPHA)
    assert not figure.has_changed
    assert dataclasses.replace(figure, adjusted=ALPHA / 2).has_changed
    assert not dataclasses.replace(figure, adjusted=math.nan).has_changed


def test_the_baseline_says_for_how_many_tokens_it_is_enough(frozen: Path) -> None:
    arguments: list[Any] = ["--output=d.json", "--source=mock_uniform", "--blocks=30"]
    text = CliRunner().invoke(app, ["baseline", *arguments, "--block-bytes=64"]).stdout
    assert "error of a comparison   sqrt(1/N + 1/30) sd with N tokens" in text
    assert "too short               for more than 3 tokens, a tenth of the blocks" in text
    assert set(json.loads(frozen.read_text("utf-8"))["fingerprint"]) == {
        "bit_planes",
        "block_sum_autocorrelation",
        "byte_histogram",
        "conditioning",
        "device_ids",
        "latency_ms",
        "settings",
        "timed_blocks",
    }
