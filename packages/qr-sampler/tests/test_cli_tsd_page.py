# SPDX-License-Identifier: Apache-2.0
"""The commands of ``docs/tsd/experiments.md``, executed with fewer steps."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qr_sampler_cli.main import app

pytest.importorskip("qr_sampler_tsd", reason="qr-sampler-tsd is an extra of this package")

PAGE = Path(__file__).resolve().parents[3] / "docs" / "tsd" / "experiments.md"
FEWER = ("--steps=60", "--dense-seconds=0.01")
"""Of an option that is given twice the last counts."""


def commands() -> list[str]:
    if not PAGE.exists():
        return []
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.skipif(not PAGE.exists(), reason="the page is not part of an sdist")
def test_there_are_commands() -> None:
    assert len(commands()) == 9


@pytest.mark.slow
@pytest.mark.parametrize("command", commands())
def test_commands_of_the_page(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qr_sampler_cli.commands.tsd.GATE_SAMPLES", 2000)
    program, *arguments = shlex.split(command)
    assert program == "qr-sampler"
    fewer = ("--samples=2000",) if "gate" in arguments else FEWER
    result = CliRunner().invoke(app, [*arguments, *fewer])
    # So few steps may be too few to test anything.
    too_few = result.exit_code == 2 and "not tested:" in result.stderr
    assert result.exit_code == 0 or too_few, result.output
