# SPDX-License-Identifier: Apache-2.0
"""The page of devices: as the code is, and with examples that work."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import dotenv
import pytest
from typer.testing import CliRunner

from qr_sampler import ENTROPY_SOURCES, Settings, configured_sources, create_source
from qr_sampler.entropy import EntropySource, JitClass
from qr_sampler.entropy.device_notes import DeviceNote
from qr_sampler_cli.main import app
from qr_sampler_cli.settings.catalogue import absent_packages
from qr_sampler_cli.settings.devices import NotedDevice, devices_page

PAGE = Path(__file__).resolve().parents[3] / "docs" / "devices.md"

in_repository = pytest.mark.skipif(
    not PAGE.exists(), reason="the page is in the repository, not in this archive"
)


@in_repository
def test_page_is_what_the_command_prints() -> None:
    if absent := absent_packages():
        pytest.skip(f"{', '.join(absent)} not installed, so the page cannot be made whole")
    result = CliRunner().invoke(app, ["sources", "--table"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert PAGE.read_text("utf-8") == result.stdout, (
        "stale; run: uv run qr-sampler sources --table > docs/devices.md"
    )


def example(language: str) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", devices_page([]), re.DOTALL)
    return str(text)


def test_the_example_of_a_deployment_works(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in dotenv.dotenv_values(stream=io.StringIO(example("dotenv"))).items():
        monkeypatch.setenv(name, str(value))
    sources = configured_sources(Settings.load())
    assert list(sources) == ["left", "right"]
    paths = [source.recorded_settings["path"] for source in sources.values()]
    assert paths == ["/dev/ttyUSB0", "/dev/ttyUSB1"]


def test_the_example_of_a_file_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "sources.toml"
    file.write_text(example("toml"), "utf-8")
    monkeypatch.setenv("QR_SOURCES_FILE", str(file))
    left, control = create_source("left"), create_source("control")
    assert left.recorded_settings["flush_bytes"] == 512
    assert control.draw(8).device_id == "pcg64 seed=7 stream=1"


def test_every_kind_has_times_of_the_sizes_that_the_table_shows() -> None:
    """Where vendors give rates only, times are the block divided by the rate, or longer."""
    found = 0
    for name in ENTROPY_SOURCES.names():
        for note in ENTROPY_SOURCES.load(name).device_notes:
            found += 1
            for size, time_ms in note.ms_per_token.items():
                if note.rate_bytes_per_s is not None:
                    assert time_ms >= 0.9 * 1000 * size / note.rate_bytes_per_s, (name, note)
            times = list(note.ms_per_token.values())
            assert times == sorted(times), (name, note)
    assert found >= 10


def test_an_odd_note_breaks_no_table() -> None:
    note = DeviceNote(
        device="A | B\nC",
        reached_by="USB",
        rate_bytes_per_s=12_345.6,
        ms_per_token={64: 0.001234, 10_240: 1234.5},
        jit_class=JitClass.FLUSHED,
        conditioning="none",
        basis="vendor",
    )
    page = devices_page([NotedDevice("lamp", "qr-lamp", 32, note)])
    (row,) = [line for line in page.splitlines() if "`lamp`" in line]
    assert row == (
        "| A \\| B C | `lamp` of qr-lamp | USB | 12,300 | 0.00123 / unknown / 1,230 | B | none | "
        "32 | vendor |"
    )


@pytest.fixture
def _broken(monkeypatch: pytest.MonkeyPatch) -> None:
    load = ENTROPY_SOURCES.load

    def failing(name: str) -> type[EntropySource]:
        if name == "prng":
            return load("no_such_kind")
        return load(name)

    monkeypatch.setattr(ENTROPY_SOURCES, "load", failing)


@pytest.mark.usefixtures("_broken")
def test_a_broken_package_is_named_and_the_rest_is_shown() -> None:
    result: Any = CliRunner().invoke(app, ["sources", "--table"])
    assert result.exit_code == 0
    assert result.stderr.startswith("not shown: unknown entropy source 'no_such_kind'")
    assert "`system` of qr-entropy-sources" in result.stdout
    assert "`prng` of" not in result.stdout
