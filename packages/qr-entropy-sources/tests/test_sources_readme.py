# SPDX-License-Identifier: Apache-2.0
"""The README's table of settings, compared with the code, and its recipe for devices."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from qr_entropy_sources.device_file import DeviceFileSettings, DeviceFileSource
from qr_entropy_sources.jitter.source import JitterEntropySettings
from qr_entropy_sources.mock_uniform import MockUniformSettings
from qr_entropy_sources.prng import PrngSettings
from qr_entropy_sources.timing_noise import TimingNoiseSettings
from qr_sampler.settings_reference import settings_table

README = Path(__file__).resolve().parents[1] / "README.md"


def test_table_of_settings_is_the_code() -> None:
    text = README.read_text("utf-8")
    found = text.split("<!-- settings -->\n")[1].split("\n<!-- /settings -->")[0]
    assert found == settings_table(
        DeviceFileSettings,
        JitterEntropySettings,
        MockUniformSettings,
        PrngSettings,
        TimingNoiseSettings,
    )


TERM = r'\s*[A-Z]+(?:\{\w+\})?(==|\+=|=)"[^"]+"'
"""A key, an operator and a quoted value, as udev(7) has them."""


def recipe() -> str:
    return README.read_text("utf-8").split("## USB generators")[1].split("\nApache-2.0.")[0]


def test_rules_for_udev_are_well_formed() -> None:
    """Every one matches something and assigns something."""
    (block,) = re.findall(r"```udev\n(.*?)```", recipe(), re.DOTALL)
    rules = block.strip().splitlines()
    assert len(rules) == 3
    for rule in rules:
        terms = [re.fullmatch(TERM, term) for term in rule.split(",")]
        assert all(terms), rule
        assert {term[1] == "==" for term in terms if term} == {True, False}


@pytest.mark.skipif(not Path("/sys/class/misc").exists(), reason="no sysfs")
def test_the_kernel_calls_its_hardware_generator_so() -> None:
    assert 'KERNEL=="hw_random"' in recipe()
    if Path("/dev/hwrng").exists():
        assert Path("/sys/class/misc/hw_random").exists()


def test_the_speed_that_stty_sets_is_the_one_that_is_read_with() -> None:
    termios = pytest.importorskip("termios", reason="is about POSIX")
    (command,) = re.findall(r"^ +(stty .*)$", recipe(), re.MULTILINE)
    master, slave = os.openpty()
    path = os.ttyname(slave)
    subprocess.run(shlex.split(command.replace("/dev/qrng", path)), check=True)
    source = DeviceFileSource(Path(path))
    source._open_stream()
    assert termios.tcgetattr(slave)[4:6] == [termios.B460800, termios.B460800]
    source.close()
    os.close(master)
    os.close(slave)


def test_the_variables_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in re.findall(r"export (QR_DEVICE\w+)=(\S+)", recipe()):
        monkeypatch.setenv(name, value)
    settings = DeviceFileSettings.load()
    assert (settings.path, settings.flush_bytes) == (Path("/dev/qrng"), 512)
