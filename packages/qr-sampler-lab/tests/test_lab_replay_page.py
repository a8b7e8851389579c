# SPDX-License-Identifier: Apache-2.0
"""What the README says of replays runs, and names settings that there are."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from qr_sampler import Settings
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.testing import RecordedEntropySource, ToyHost
from qr_sampler_lab.replay import ReplaySettings

README = Path(__file__).resolve().parents[1] / "README.md"

pytestmark = pytest.mark.skipif(not README.exists(), reason="the page is beside the tests only")


def section() -> str:
    return README.read_text("utf-8").split("## Replay\n")[1].split("\n## ")[0]


def test_the_snippet_runs(tmp_path: Path) -> None:
    data = bytes(range(256)) * 4
    session = SamplingSession(
        EngineFacts(engine="toy", model="none"),
        Settings.load(
            entropy_source_type="device",
            sample_count=64,
            fallback_mode="end_request",
            ledger_dir=tmp_path / "records",
            ledger_blocks=True,
        ),
        sources={"device": RecordedEntropySource(data, name="device")},
    )
    host = ToyHost(session)
    host.add(3, request_key="request 0")
    for _ in range(3):
        host.step()
    host.close()
    (snippet,) = re.findall(r"```python\n(.*?)```", section(), flags=re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    reason, block = done.stdout.splitlines()
    assert reason.startswith("never live: replays blocks of")
    assert block == data[:64].hex()


def test_settings_are_those_of_the_code() -> None:
    named = set(re.findall(r"QR_[A-Z_]+", section()))
    known = {f"QR_{name.upper()}" for name in Settings.model_fields}
    known |= {f"QR_REPLAY_{name.upper()}" for name in ReplaySettings.model_fields}
    assert named <= known
    assert "QR_REPLAY_LEDGER" in named
