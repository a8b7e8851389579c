# SPDX-License-Identifier: Apache-2.0
"""Ledgers on real filesystems that are frozen, and that turn read-only, under their engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).parents[1] / "campaigns" / "disks.py"


@pytest.mark.slow
@pytest.mark.heavy
def test_engines_go_on_whatever_their_disk_does() -> None:
    result = subprocess.run(
        [sys.executable, str(CAMPAIGN), "--seconds", "2"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr[-2_000:]
    if result.stdout.startswith("skipped"):
        pytest.skip(result.stdout.strip())
    assert result.stdout.count("stalled for 2 s") == 4
    assert result.stdout.count("read-only in mid-run") == 2
    assert result.stderr.count("end early") == 2
