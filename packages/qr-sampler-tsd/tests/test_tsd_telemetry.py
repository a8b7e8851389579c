# SPDX-License-Identifier: Apache-2.0
"""Events, summaries, run directories and plots."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import stat
import statistics
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qr_sampler_tsd.errors import ExperimentError, MissingExtraError
from qr_sampler_tsd.telemetry import (
    EVENTS_FILE,
    SUMMARY_FILE,
    FieldSummary,
    RunWriter,
    TelemetryEvent,
    as_json_line,
    plot_run,
    version_hash,
)

EVENT = TelemetryEvent(
    run_id="m0-1",
    seed=7,
    step=0,
    row=0,
    mode="M0",
    vocab_size=1000,
    K=64,
    L=1,
    B=1,
    unit="sim",
    verifier="token",
    source="pcg64",
    psi_bytes=333,
    tsu_latency_ms=0.01,
    verifier_latency_ms=0.02,
    accepted_prefix=1,
    first_token_reject=False,
    emitted=1,
    overlap_mass=0.75,
    predicted_acceptance=0.875,
    ce_gap_nats=0.25,
    q_temp=1.0,
    q_floor=1e-6,
    uniforms_proposal=1,
    uniforms_accept=1,
    uniforms_residual=0,
    uniforms_bonus=0,
    version_hash="0" * 16,
    psi_semver="1.0.0",
    sampler_semver="0.1",
)

SCHEMA = {
    *("run_id", "seed", "step", "mode", "L", "B"),
    *("psi_bytes", "tsu_latency_ms", "verifier_latency_ms"),
    *("accepted_prefix", "first_token_reject"),
    *("ce_gap_nats", "q_temp", "q_floor"),
    *("version_hash", "psi_semver", "sampler_semver"),
}
"""The fields that the architecture names."""


def strict(text: str) -> dict[str, object]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    loaded: dict[str, object] = json.loads(text, parse_constant=refuse)
    return loaded


def test_schema() -> None:
    values = strict(as_json_line(EVENT))
    assert set(values) >= SCHEMA
    assert values == dataclasses.asdict(EVENT)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_is_not_finite_is_null(value: float) -> None:
    line = as_json_line(dataclasses.replace(EVENT, ce_gap_nats=value))
    assert strict(line)["ce_gap_nats"] is None


def test_version_hash() -> None:
    assert len(version_hash()) == 16
    assert int(version_hash(), 16) >= 0


def test_a_run_directory(tmp_path: Path) -> None:
    gaps = [0.25, math.inf, 0.75]
    with RunWriter(tmp_path / "runs", "M0") as writer:
        for step, gap in enumerate(gaps):
            writer.write(dataclasses.replace(EVENT, step=step, ce_gap_nats=gap))
    date, run_id = writer.directory.relative_to(tmp_path / "runs").parts
    assert len(date) == 10
    assert run_id == writer.run_id
    lines = (writer.directory / EVENTS_FILE).read_text("utf-8").splitlines()
    assert [strict(line)["ce_gap_nats"] for line in lines] == [0.25, None, 0.75]
    with (writer.directory / SUMMARY_FILE).open(encoding="utf-8") as file:
        rows = {row["field"]: row for row in csv.DictReader(file)}
    assert [row["mean"] for row in rows.values()][:1] == ["333.0"]
    assert rows["psi_bytes"]["variance"] == "0.0"
    assert rows["ce_gap_nats"]["count"] == "2"
    assert float(rows["ce_gap_nats"]["mean"]) == 0.5
    assert float(rows["first_token_reject"]["mean"]) == 0
    # A mean of what numbers events, or was asked for, says nothing.
    assert not rows.keys() & {"run_id", "seed", "step", "row", "L", "B"}
    writer.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_only_the_owner_reads(tmp_path: Path) -> None:
    with RunWriter(tmp_path, "M0") as writer:
        writer.write(EVENT)
    for path in (writer.directory, *writer.directory.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_runs_never_share_a_directory(tmp_path: Path) -> None:
    writers = [RunWriter(tmp_path, "M0") for _ in range(20)]
    assert len({writer.directory for writer in writers}) == 20
    for writer in writers:
        writer.close()


def test_what_was_measured_survives_an_error(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, "M0")

    def fail() -> None:
        with writer:
            writer.write(EVENT)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (writer.directory / SUMMARY_FILE).exists()


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("", "utf-8")
    with (
        pytest.raises(ExperimentError, match="cannot be made"),
        RunWriter(tmp_path / "runs", "M0") as writer,
    ):
        writer.write(EVENT)


def test_a_run_without_events_leaves_nothing(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "runs", "M0"):
        pass
    assert not any(tmp_path.iterdir())


@given(st.lists(st.floats(-1e6, 1e6), min_size=1))
def test_running_moments(values: list[float]) -> None:
    field = FieldSummary()
    for value in values:
        field.add(value)
    assert field.count == len(values)
    assert field.mean == pytest.approx(statistics.fmean(values), rel=1e-9, abs=1e-9)
    if len(values) == 1:
        assert field.variance is None
    else:
        assert field.variance == pytest.approx(statistics.variance(values), rel=1e-6, abs=1e-6)


def test_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib comes with the extra plots")
    with RunWriter(tmp_path, "M0") as writer:
        for step in range(30):
            gap = math.inf if step == 3 else 0.1 * step
            writer.write(dataclasses.replace(EVENT, step=step, ce_gap_nats=gap))
    for file_format, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        paths = plot_run(writer.directory, file_format)
        assert [path.name for path in paths] == [
            f"{name}.{file_format}" for name in ("acceptance", "cross_entropy_gap", "latency")
        ]
        assert all(path.read_bytes().startswith(start) for path in paths)


def test_nothing_to_plot(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="png or svg"):
        plot_run(tmp_path, "jpeg")
    pytest.importorskip("matplotlib", reason="matplotlib comes with the extra plots")
    with pytest.raises(ExperimentError, match="cannot be read"):
        plot_run(tmp_path)
    (tmp_path / EVENTS_FILE).write_text("", "utf-8")
    with pytest.raises(ExperimentError, match="holds no event"):
        plot_run(tmp_path)


def test_plots_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    with pytest.raises(MissingExtraError, match="pip install matplotlib"):
        plot_run(tmp_path)
