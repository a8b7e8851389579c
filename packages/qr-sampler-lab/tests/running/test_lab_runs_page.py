# SPDX-License-Identifier: Apache-2.0
"""The commands on the page about experiments do what it says."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qr_sampler_cli.main import app
from qr_sampler_lab.experiments.bundle.checks import Checks

PAGE = Path(__file__).resolve().parents[4] / "docs" / "experiments.md"
OURS = "<!-- run by: packages/qr-sampler-lab/tests/running/test_lab_runs_page.py -->"

pytestmark = pytest.mark.skipif(
    not PAGE.is_file(), reason="the documentation is in the repository, not in this archive"
)


def commands() -> list[str]:
    blocks = re.findall(re.escape(OURS) + r"\n```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 2
    return "".join(blocks).splitlines()


def test_the_rehearsal_goes_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code_is_digested_once: None
) -> None:
    monkeypatch.chdir(tmp_path)
    output = ""
    for command in commands():
        if command.startswith("qr-sampler "):
            result = CliRunner().invoke(app, shlex.split(command)[1:])
            assert result.exit_code == 0, f"{command}\n{result.output}"
            output += result.output
        else:
            subprocess.run(["/bin/sh", "-c", command], check=True)
    assert "Primary result: " in output
    assert "10 figures: holds" in output
    assert "1,024 bytes: 320 draws" in output


def test_the_page_has_all_claims() -> None:
    text = PAGE.read_text()
    for rung in Checks().rungs:
        assert f"| {rung.name} |" in text
