# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler tsd``: what it runs, what it prints, how it ends."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from qr_sampler.errors import ConfigError
from qr_sampler_cli.main import app
from qr_sampler_cli.parsing.number_lists import numbers, whole_numbers

pytest.importorskip("qr_sampler_tsd", reason="qr-sampler-tsd is an extra of this package")
import numpy as np

from qr_sampler_cli.tsd import equipment
from qr_sampler_cli.tsd.report import as_data, refuted
from qr_sampler_tsd import Role, SeededUniforms
from qr_sampler_tsd.experiments import ChiSquare, Equipment, M0Settings, run_m0
from qr_sampler_tsd.tsu import SimTSU

QUICK = ("--steps=300", "--dense-seconds=0.01")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hides the operator's own variables, and makes `runs` a temporary folder."""
    for name in os.environ:
        if name.upper().startswith("QR_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["tsd", *map(str, arguments)])


def run_directory(output: str) -> Path:
    (line,) = (line for line in output.splitlines() if line.startswith("run directory: "))
    return Path(line.removeprefix("run directory: "))


def test_m0(tmp_path: Path) -> None:
    result = run("m0", *QUICK, "--vocab=200", "--K=16", "--L=2", "--verifier=block")
    assert result.exit_code == 0, result.output
    header, row = result.stdout.splitlines()[:2]
    assert header.split()[:6] == ["mode", "V", "K", "tau", "L", "verifier"]
    assert row.split()[:6] == ["M0", "200", "16", "1", "2", "block"]
    assert "M0, K = 16, L = 2: 300 of 300 steps" in result.stderr
    directory = run_directory(result.stdout)
    assert (tmp_path / directory).parts[-3] == "runs"
    lines = (directory / "tsd_metrics.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 300
    assert json.loads(lines[0])["source"] == "pcg64"
    assert (directory / "tsd_summary.csv").exists()


def test_m1_of_a_corpus_with_a_named_source(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.write_text("a rose is a rose is a rose. " * 20, "utf-8")
    options = (*QUICK, "--corpus", corpus, "--K=4", "--source=system", "--log-every=10")
    result = run("m1", *options, "--psi-version=2", "--runs", tmp_path / "elsewhere", "--json")
    assert result.exit_code == 0, result.output
    (data,) = json.loads(result.stdout)
    assert (data["mode"], data["vocab_size"], data["k"]) == ("M1", len(set("a rose is.")), 4)
    assert data["acceptance_agrees"] in (True, False)
    assert data["chi_square"]["p_value"] > 1e-9
    assert data["uniforms"]["proposal"] == 300
    directory = Path(data["run_directory"])
    assert directory.is_relative_to(tmp_path / "elsewhere")
    lines = (directory / "tsd_metrics.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 30
    assert json.loads(lines[0])["source"] == "system"


def test_sweep_takes_lists_in_both_ways() -> None:
    options = ("--vocabs=60,50", "--ks=4,8", "--ks=16", "--seeds", "7,11", "--json")
    result = run("sweep", "--mode=m1", *QUICK, "--steps=3000", *options)
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [(row["vocab_size"], row["k"], row["seed"]) for row in rows] == [
        (vocab, k, seed) for vocab in (60, 50) for k in (4, 8, 16) for seed in (7, 11)
    ]
    directories = [row["run_directory"] for row in rows]
    assert len(set(directories)) == 12
    assert all((Path(directory) / "tsd_summary.csv").exists() for directory in directories)


def test_sweep_by_default() -> None:
    result = run("sweep", *QUICK, "--Ls=1,2")
    assert result.exit_code == 0, result.output
    assert [line.split()[:5] for line in result.stdout.splitlines()[1:3]] == [
        ["M0", "1,000", "64", "1", length] for length in "12"
    ]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--ks=32,x", "--ks 32,x: 'x' is none of the whole numbers, separated by commas"),
        ("--taus=1,,2", "--taus 1,,2: '' is none of the numbers"),
        ("--vocabs=0", "vocab_size=0 must be at least 1"),
        ("--taus=nan", "tau=nan"),
    ],
)
def test_bad_lists(option: str, message: str) -> None:
    result = run("sweep", *QUICK, option)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_lists() -> None:
    assert whole_numbers(["32,64", "128"], "--ks") == (32, 64, 128)
    assert numbers(["0.9,1"], "--taus") == (0.9, 1.0)
    with pytest.raises(ConfigError, match=r"--ks 1\.5"):
        whole_numbers(["1.5"], "--ks")


@pytest.mark.parametrize("command", ["m0", "m1", "sweep", "gate"])
def test_the_package_is_missing(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "qr_sampler_tsd"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "qr_sampler_tsd", None)
    result = run(command)
    assert result.exit_code == 2
    assert "tsd needs qr_sampler_tsd, which is not installed" in result.stderr
    assert "pip install ./packages/qr-sampler-tsd" in result.stderr


def test_thrml_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("thrml", "qr_sampler_tsd.tsu._thrml_program"):
        monkeypatch.setitem(sys.modules, name, None)
    result = run("gate", "--unit=thrml")
    assert result.exit_code == 2
    assert "pip install thrml" in result.stderr


def test_unknown_source() -> None:
    result = run("m0", *QUICK, "--source=lava_lamp")
    assert result.exit_code == 2
    assert "lava_lamp" in result.stderr


def test_plots_are_refused_before_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    result = run("m0", *QUICK, "--plots=svg")
    assert result.exit_code == 2
    assert "pip install matplotlib" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_plots() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib comes with an extra of qr-sampler-tsd")
    result = run("m0", *QUICK, "--plots=svg")
    assert result.exit_code == 0, result.output
    assert (run_directory(result.stdout) / "acceptance.svg").exists()


@pytest.mark.parametrize("unit", ["tree", "gibbs"])
def test_a_unit_passes_the_gate_before_it_is_used(
    monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    monkeypatch.setattr("qr_sampler_cli.commands.tsd.GATE_SAMPLES", 4000)
    result = run("m0", *QUICK, "--vocab=100", "--K=12", f"--unit={unit}", "--json")
    assert result.exit_code == 0, result.output
    assert f"testing the unit {unit} with 4,000 draws" in result.stderr
    (data,) = json.loads(result.stdout)
    assert data["unit"].lower().startswith(f"pbit{unit}")


class Skewed(SimTSU):
    """Sends the best token too often."""

    def draw_tokens(self, law: Any, batch_size: int, uniforms: Any) -> Any:
        tokens = super().draw_tokens(law, batch_size, uniforms)
        return np.where(uniforms.draw(batch_size, Role.PROPOSAL) < 0.2, law.ids[0], tokens)


def test_a_unit_that_fails_the_gate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(equipment, "sampling_unit", lambda name: Skewed())
    monkeypatch.setattr("qr_sampler_cli.commands.tsd.sampling_unit", lambda name: Skewed())
    monkeypatch.setattr("qr_sampler_cli.commands.tsd.GATE_SAMPLES", 4000)
    result = run("m0", *QUICK, "--unit=tree")
    assert result.exit_code == 2
    assert "failed" in result.stderr
    assert not (tmp_path / "runs").exists()
    result = run("gate", "--samples=4000")
    assert result.exit_code == 1
    assert "SimTSU FAILED" in result.stdout


def test_gate() -> None:
    result = run("gate", "--unit=tree", "--samples=3000", "--source=system")
    assert result.exit_code == 0, result.output
    assert "PBitTreeTSU" in result.stdout
    assert "passed with 3,000 draws per payload" in result.stdout
    assert len(result.stdout.splitlines()) > 5
    data = json.loads(run("gate", "--samples=3000", "--json").stdout)
    assert data["passed"] is True
    assert data["unit"] == "SimTSU"


def test_a_refuted_run_ends_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    from qr_sampler_tsd.experiments import runner

    genuine = runner.result_of

    def shifted(mode: str, unit: str, table: Any, recording: Any, *rest: Any) -> Any:
        recording.tokens[:] = [(token + 1) % 200 for token in recording.tokens]
        recording.accepted_tests //= 2
        return genuine(mode, unit, table, recording, *rest)

    monkeypatch.setattr(runner, "result_of", shifted)
    result = run("m0", "--steps=3000", "--dense-seconds=0", "--vocab=200")
    assert result.exit_code == 1
    assert "refuted: M0, V = 200, K = 64, seed 7: the text does not follow the target" in (
        result.stderr
    )
    assert "standard deviations off what is predicted" in result.stderr


def test_numbers_that_are_not_finite_are_null() -> None:
    settings = M0Settings(vocab_size=100, epsilon=0.0, steps=20, dense_seconds=0)
    result = run_m0(settings, Equipment(SeededUniforms(1)))
    data = as_data(result)
    assert data["ce_gap_nats"] is None
    assert data["speed_ratio"] is None
    json.dumps(data, allow_nan=False)
    assert isinstance(result.chi_square, ChiSquare)
    assert refuted(result) == ()


def test_bad_epsilon() -> None:
    result = run("m0", *QUICK, "--eps=small")
    assert result.exit_code == 2
    assert "--eps small" in result.stderr


@pytest.mark.parametrize(
    "options", [("m0", "--vocab=10", "--K=20"), ("m1", "--vocab=10", "--tau=0"), ("m1", "--c=-1")]
)
def test_a_refused_run_leaves_nothing(options: tuple[str, ...], tmp_path: Path) -> None:
    result = run(*options, *QUICK)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert not any(tmp_path.iterdir())


def test_too_little_to_test_is_no_success() -> None:
    result = run("m0", "--steps=2", "--dense-seconds=0")
    assert result.exit_code == 2
    assert "not tested: M0, V = 1,000, K = 64, seed 7: 2 tokens are too few" in result.stderr
    assert result.stdout.splitlines()[1].split()[-6:-5] != ["1"]
