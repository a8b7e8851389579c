# SPDX-License-Identifier: Apache-2.0
"""What the README and the simulator's command say, compared with the code and run."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qr_entropy_http.presets import load_preset, preset_names
from qr_entropy_http.presets.loading import read_preset
from qr_entropy_http.settings import HttpSettings
from qr_entropy_http.simulators import FAULTS
from qr_entropy_http.simulators.__main__ import main
from qr_entropy_http.source import HttpSource
from qr_sampler import create_source
from qr_sampler.settings_reference import settings_table

README = Path(__file__).resolve().parents[1] / "README.md"


def section(marker: str) -> str:
    text = README.read_text("utf-8")
    return text.split(f"<!-- {marker} -->\n")[1].split(f"\n<!-- /{marker} -->")[0]


def test_table_of_settings_is_the_code() -> None:
    assert section("settings") == settings_table(HttpSettings)


def test_table_of_presets_is_the_code() -> None:
    rows = [
        "| preset | service | largest request | limits | key | price |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in preset_names():
        preset = load_preset(name)
        limits = [
            f"{value:,} {field.replace('_per_', ' a ')}"
            for field, value in preset.limits
            if value is not None and field != "numbers_per_request"
        ]
        cells = [
            f"`{name}`",
            preset.title + (", pooled" if preset.pooled else ""),
            f"{preset.bytes_per_request:,} bytes",
            ", ".join(limits) or "none known",
            "yes" if preset.key else "no",
            preset.price or "one's own device",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    assert section("presets") == "\n".join(rows)


def test_list_of_faults_is_the_code() -> None:
    assert re.findall(r"`(\w+)`", section("faults")) == list(FAULTS)


def test_the_example_of_a_preset_is_one(tmp_path: Path) -> None:
    (code,) = re.findall(r"```toml\n(.*?)```", section("own preset"), re.DOTALL)
    path = tmp_path / "bench.toml"
    path.write_text(code)
    preset = read_preset(path)
    assert preset.name == "bench"
    assert HttpSource(preset_file=path).limits.max_bytes_per_request == preset.bytes_per_request


def test_the_example_in_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", section("try it"), re.DOTALL)
    exec(code, {"__name__": "__main__"})
    assert capsys.readouterr().out == "64 bytes in 1 request\n"


def test_the_commands_of_the_readme_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service of the first, asked with the variables that it prints."""
    (command,) = re.findall(r"^python (-m qr_entropy_http.simulators .*)$", section("try it"), re.M)
    process = subprocess.Popen(
        [sys.executable, *command.split()], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(2)]
        for line in lines:
            monkeypatch.setenv(*line.split("=", 1))
        assert len(create_source("http").draw(100).data) == 100
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
        assert rest.strip() == "1 requests, 100 random bytes"
    finally:
        process.kill()
        process.wait()


def test_the_command_tells_of_the_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["anu", "--key", "abc", "--seconds", "0", "--fault", "503"]) == 0
    shown = capsys.readouterr().out
    assert "QR_HTTP_KEY_FILE names has to hold: abc" in shown
    assert shown.endswith("0 requests, 0 random bytes\n")
