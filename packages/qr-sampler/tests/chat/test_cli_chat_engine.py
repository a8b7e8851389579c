# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler chat`` with real Transformers, in a process of its own; skipped without them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="needs Transformers; the nox session `vllm` has them")
pytest.importorskip("torch")

from qr_sampler_cli.commands.tiny_model import prepare_tiny_model

STEPS = 20
"""Enough for a model that loads; what it says does not matter here."""


@pytest.fixture
def tiny_model(tmp_path: Path) -> str:
    """The directory of a small model: that of ``QR_TINY_MODEL_DIR``, or one that is made."""
    if ready := os.environ.get("QR_TINY_MODEL_DIR"):
        return ready
    prepare_tiny_model(tmp_path / "tiny", steps=STEPS)
    return str(tmp_path / "tiny")


def test_a_conversation_with_real_transformers(tiny_model: str, tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QR_")}
    done = subprocess.run(
        [
            sys.executable, "-m", "qr_sampler_cli", "chat", f"--model={tiny_model}",
            "--engine=transformers", "--template=plain", "--max-tokens=6", "--top-k=40",
            "--records=r.jsonl", "--require-primary",
        ],
        cwd=tmp_path,
        env=kept,
        input="What is light?\nAnd a colour?\n",
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text("utf-8").splitlines()]
    tokens = [line for line in lines if line["kind"] == "token"]
    assert 2 <= len(tokens) <= 12
    assert f"{len(tokens)} tokens | 100.0 % from system" in done.stdout
    assert lines[0]["engine"].startswith("transformers")
    ends = [line["tokens"] for line in lines if line["kind"] == "end"]
    assert len(ends) == 2
    assert sum(ends) == len(tokens)
