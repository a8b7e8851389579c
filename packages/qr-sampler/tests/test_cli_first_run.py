# SPDX-License-Identifier: Apache-2.0
"""What an earlier run leaves behind, and how the run was started, decide no check."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / ".ci" / "run"

pytestmark = [
    pytest.mark.skipif(not SCRIPT.exists(), reason="the script is in the repository only"),
    pytest.mark.skipif(os.name == "nt", reason="the script is one for bash"),
]

UV = """#!/bin/bash
[ "$1" = run ] || exit 0
env > "$SEEN"
for folder in "$HF_HOME" "$XDG_CACHE_HOME"; do
    mkdir -p "$folder" && touch "$folder/left"
done
exit 7
"""
"""Stands for uv: notes the environment of the checks, leaves something in the caches, and fails."""

CACHES = {
    "HF_HOME",
    "MPLCONFIGDIR",
    "NUMBA_CACHE_DIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "TORCH_EXTENSIONS_DIR",
    "TORCH_HOME",
    "TRITON_CACHE_DIR",
    "TRITON_HOME",
    "VLLM_CACHE_ROOT",
    "VLLM_CONFIG_ROOT",
    "XDG_CACHE_HOME",
}

DEAF = """
import os, signal, sys

signal.signal(signal.SIGINT, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Starts Python as a shell starts a background job: ignoring SIGINT."""


def environment_of_checks(place: Path) -> dict[str, str]:
    """Runs the script with a stand-in for uv and returns what the checks would have seen."""
    stub = place / "uv"
    stub.write_text(UV, "utf-8")
    stub.chmod(0o755)
    seen = place / "seen"
    environment = {
        "HOME": str(place / "home"),
        "PATH": f"{place}{os.pathsep}{os.environ['PATH']}",
        "SEEN": str(seen),
        "HF_HUB_CACHE": str(place / "of an earlier run"),
    }
    done = subprocess.run([str(SCRIPT)], env=environment, check=False, capture_output=True)
    assert done.returncode == 7, done.stdout + done.stderr
    return dict(line.split("=", 1) for line in seen.read_text("utf-8").splitlines() if "=" in line)


def test_every_run_has_caches_of_its_own_and_leaves_none(tmp_path: Path) -> None:
    first, second = (environment_of_checks(tmp_path) for _ in range(2))
    assert set(first) >= CACHES
    for name in CACHES:
        assert first[name] != second[name]
        assert str(tmp_path) not in first[name]
        assert not Path(first[name]).exists()
    assert "HF_HUB_CACHE" not in first


def test_packages_are_not_fetched_anew(tmp_path: Path) -> None:
    seen = environment_of_checks(tmp_path)
    for name, folder in (("UV_CACHE_DIR", "uv"), ("PIP_CACHE_DIR", "pip")):
        assert seen[name] == str(tmp_path / "home" / ".cache" / folder)


def test_tests_that_interrupt_work_in_a_background_job() -> None:
    tests = ROOT / "packages" / "qr-sampler-core" / "tests" / "test_core_guard.py"
    one = "test_an_interrupt_while_waiting_drops_the_answer"
    options = ("-p", "no:cacheprovider", "-p", "no:xdist", "-q", f"{tests}::{one}")
    done = subprocess.run(
        [sys.executable, "-c", DEAF, "-m", "pytest", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
