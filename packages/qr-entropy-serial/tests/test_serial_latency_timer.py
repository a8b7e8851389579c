# SPDX-License-Identifier: Apache-2.0
"""The latency timer of a converter, as the system describes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from qr_entropy_serial.latency_timer import latency_remark


@pytest.fixture
def timer(tmp_path: Path) -> Path:
    folder = tmp_path / "ttyUSB7" / "device"
    folder.mkdir(parents=True)
    return folder / "latency_timer"


def test_a_long_timer_is_told_with_its_remedy(timer: Path, tmp_path: Path) -> None:
    timer.write_text("16\n")
    (tmp_path / "qrng").symlink_to("/dev/ttyUSB7")
    remark = latency_remark(str(tmp_path / "qrng"), tmp_path)
    assert "16 ms" in remark
    assert f"echo 1 > {timer}" in remark


@pytest.mark.parametrize("text", ["1\n", "2\n", "soon\n"])
def test_a_short_one_and_nonsense_are_not(text: str, timer: Path, tmp_path: Path) -> None:
    timer.write_text(text)
    assert latency_remark("/dev/ttyUSB7", tmp_path) == ""


def test_other_ports_have_none(tmp_path: Path) -> None:
    assert latency_remark("/dev/ttyACM0", tmp_path) == ""
    assert latency_remark("/dev/null") == ""
