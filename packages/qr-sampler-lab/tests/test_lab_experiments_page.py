# SPDX-License-Identifier: Apache-2.0
"""The page of experiments: its commands run, and what it says of files is so."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qr_sampler_cli.main import app
from qr_sampler_lab.experiments.files.register import LAB_VARIABLE
from qr_sampler_lab.experiments.order import order_key, shuffled

PAGE = Path(__file__).resolve().parents[3] / "docs" / "experiments.md"

pytestmark = pytest.mark.skipif(
    not PAGE.is_file(), reason="the documentation is in the repository, not in this archive"
)


def test_the_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(LAB_VARIABLE, raising=False)
    (tmp_path / "tiny-model").mkdir()
    (tmp_path / "tiny-model" / "config.json").write_text("{}")
    (first, *_) = re.findall(r"```bash\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    told = {}
    for line in first.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        result = CliRunner().invoke(app, arguments)
        assert (program, result.exit_code) == ("qr-sampler", 0), (line, result.output)
        told[arguments[1]] = result.stdout
    assert "## Inference criteria" in told["check"]
    assert "register  first" in told["status"]
    assert "is aborted" in told["abort"]
    seal = (tmp_path / "first" / "seal.json").read_bytes()
    digest = subprocess.run(["sha256sum"], input=seal, capture_output=True, check=True)
    assert digest.stdout.decode().split()[0] == told["seal"].strip()


def test_the_orders_of_the_page() -> None:
    key = order_key("5e" * 32, bytes(range(32)))
    orders = ["".join(shuffled("abcdefgh", key, f"block {n}")) for n in range(3)]
    assert ", ".join(f"`{order}`" for order in orders) in PAGE.read_text("utf-8")
