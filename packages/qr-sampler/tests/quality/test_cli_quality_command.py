# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler quality``: samples, verdicts, and what was not tested."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from qr_entropy_sources.mock_uniform import MockUniformSource
from qr_sampler.entropy import EntropyDraw, SourceLimits
from qr_sampler.errors import EntropyUnavailableError
from qr_sampler.testing import ConstantEntropySource
from qr_sampler_cli.main import app
from qr_sampler_cli.quality.programs.program import ProgramReport
from qr_sampler_cli.quality.report import quality_report
from qr_sampler_cli.quality.sample import Sample, draw_sample

GOOD = np.random.default_rng(12).bytes(2**17)


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def judged(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["quality", "--programs", "", *arguments])


def as_json(*arguments: str) -> tuple[int, dict[str, Any]]:
    result = judged(*arguments, "--json")
    return result.exit_code, json.loads(result.stdout)


def test_a_source_is_judged_and_its_bytes_are_kept() -> None:
    status, data = as_json(
        "mock_uniform", "--bytes", "20000", "--restarts", "3", "--keep", "kept.bin"
    )
    assert status in (0, 1)
    kept = Path("kept.bin")
    assert len(kept.read_bytes()) == data["bytes"] == 20_000
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert (data["origin"], data["conditioning"], data["jit_class"]) == (
        "mock_uniform",
        "pcg64",
        "P",
    )
    assert data["restarts"] == 3
    # The bytes of a file have the figures of the same bytes of a source.
    _, again = as_json("kept.bin")
    assert again["sha256"] == data["sha256"]
    assert again["ent"] == data["ent"]
    assert [test["name"] for test in again["tests"]] == [
        test["name"] for test in data["tests"] if "restart" not in test["name"]
    ]


def test_good_bytes_pass_and_what_was_not_tested_is_said() -> None:
    Path("good.bin").write_bytes(GOOD)
    result = judged("good.bin")
    assert result.exit_code == 0, result.stdout
    assert "131,072 bytes from good.bin" in result.stdout
    assert "Nothing speaks against uniform and independent bytes." in result.stdout
    assert "is off by less than 0.0021 would not show in 131,072 bytes" in result.stdout
    told = result.stdout.partition("Not tested:\n")[2]
    for words in (
        "Whether anybody could predict the bytes",
        "Where the bytes of the file come from",
        "Eight of the ten estimators",
        "after a restart",
    ):
        assert words in told
    assert not [line for line in result.stdout.splitlines() if line != line.rstrip()]


def test_biased_bytes_are_named_with_the_tests_that_see_them() -> None:
    rng = np.random.default_rng(2)
    Path("b.bin").write_bytes(np.packbits(rng.random(2**20) < 0.51).tobytes())
    status, data = as_json("b.bin")
    assert status == 1
    assert {"bit planes", "byte mean"} <= set(data["found"])
    assert data["verdict"].startswith("These 131,072 bytes are not uniform and independent: ")
    assert data["min_entropy"]["least"] < 7.9
    assert "A raw device may well be so" in data["verdict"]


def test_bytes_are_read_from_the_beginning_of_a_file() -> None:
    Path("good.bin").write_bytes(GOOD)
    _, data = as_json("good.bin", "--bytes", "5000")
    _, whole = as_json("good.bin")
    assert (data["bytes"], whole["bytes"]) == (5_000, len(GOOD))


def test_constant_bytes_are_reported_as_json_without_nan() -> None:
    Path("zeros.bin").write_bytes(bytes(5_000))
    status, data = as_json("zeros.bin")
    assert status == 1
    assert data["ent"]["serial_correlation"] is None
    assert data["min_entropy"]["least"] == 0.0
    assert judged("zeros.bin").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing_of_the_kind",), "unknown entropy source 'nothing_of_the_kind'"),
        (("short.bin",), "short.bin has 100 bytes; at least 4,096 are needed"),
        (("pipe",), "pipe is not a regular file"),
        ((".",), "Is a directory"),
        (("system", "--keep", "short.bin"), "short.bin exists"),
        (("system", "--keep", "no/such/file"), "existing directory"),
        (("system", "--picture", "short.bin"), "short.bin exists"),
        (("system", "--programs", "ent,rngtest"), "--programs names ent; known are RNG_test, "),
    ],
)
def test_mistakes_are_reported_before_anything_is_drawn(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("short.bin").write_bytes(bytes(100))
    os.mkfifo("pipe")
    monkeypatch.setattr("qr_sampler_cli.quality.sample._drawn", None)
    result = judged(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr


def test_a_picture_of_the_bytes() -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    Path("good.bin").write_bytes(GOOD)
    assert judged("good.bin", "--picture", "p.svg").exit_code == 0
    assert "<svg" in Path("p.svg").read_text("utf-8")
    odd = judged("good.bin", "--picture", "p.doc")
    assert odd.exit_code == 2
    assert "ends with .pdf, .png, .svg" in odd.stderr


def test_sources_are_restarted_within_their_quotas(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    made: list[ConstantEntropySource] = []

    class Limited(ConstantEntropySource):
        limits = SourceLimits(max_requests_per_minute=60)
        closed = 0

        def close(self) -> None:
            Limited.closed += 1

    def create(_: str) -> ConstantEntropySource:
        made.append(Limited(7))
        return made[-1]

    monkeypatch.setattr("qr_sampler_cli.quality.sample.create_source", create)
    seen: list[tuple[int, int]] = []
    sample = draw_sample(
        "constant",
        size=5_000,
        draw_bytes=2_048,
        restarts=2,
        progress=lambda done, total: seen.append((done, total)),
        sleep=waits.append,
    )
    assert [source.requests for source in made] == [[2_048, 2_048, 904], [1_024], [1_024]]
    assert Limited.closed == 3
    assert len(sample.data) == 5_000
    assert [len(first) for first in sample.restarts] == [1_024, 1_024]
    assert seen[-1] == (7_048, 7_048)
    # Each of five requests but the first waits for its second, and counts up to what it waited.
    assert [wait > 0.5 for wait in waits] == [False, True, True, True, False, True]


def test_a_fallback_is_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    def stand_in(self: MockUniformSource, n: int) -> EntropyDraw:
        return EntropyDraw(
            data=bytes(n),
            source="system",
            requested_ns=0,
            received_ns=0,
            wall_time_ns=0,
            fallback=True,
            fallback_reason="unplugged",
        )

    monkeypatch.setattr(MockUniformSource, "draw", stand_in)
    with pytest.raises(EntropyUnavailableError, match=r"'system' stood in for it \(unplugged\)"):
        draw_sample(
            "mock_uniform", size=5_000, draw_bytes=5_000, restarts=0, progress=lambda *_: None
        )


def program(**values: Any) -> ProgramReport:
    return ProgramReport(**{"program": "ea_iid", "outcome": "judged", "words": "", **values})


def test_programs_of_others_count_in_the_verdict() -> None:
    sample = Sample(data=GOOD, origin="good")
    alone = quality_report(sample, [])
    assert alone.found == ()
    by_rule = quality_report(sample, [program(failed=("permutations",))])
    assert by_rule.found == ("ea_iid: permutations",)
    # Among eight p-values 2e-4 is not below 1e-3 any more, 1e-5 is.
    for p_value, found in ((2e-4, ()), (1e-5, ("dieharder: sts_runs",))):
        reports = [program(program="dieharder", p_values={"sts_runs": p_value})]
        assert quality_report(sample, reports).found == found
    estimated = program(program="ea_non_iid", figures={"min_entropy": 5.5})
    told = quality_report(sample, [estimated])
    assert "Min-entropy is at most 5.500 bits a byte by all 10 of SP 800-90B." in told.verdict
    assert not [line for line in told.not_tested if "Eight of the ten" in line]


def test_conditioned_bytes_are_said_to_be() -> None:
    sample = Sample(data=GOOD, origin="device", conditioning="sha256", restarts=(b"a" * 8,) * 2)
    told = "\n".join(quality_report(sample, []).not_tested)
    assert "The raw bits: the source says of its conditioning 'sha256'" in told
    raw = Sample(data=GOOD, origin="device", conditioning="none")
    assert "The raw bits" not in "\n".join(quality_report(raw, []).not_tested)
