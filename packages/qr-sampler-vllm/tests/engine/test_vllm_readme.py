# SPDX-License-Identifier: Apache-2.0
"""The README's commands and snippets, executed as they stand; its table, compared with the code."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qr_sampler import Settings
from qr_sampler.settings_reference import settings_table

README = Path(__file__).resolve().parents[4] / "README.md"
HERE = "tests/engine/test_vllm_readme.py"
ELSEWHERE = ".ci/run"

# The CPU build's own console script does not start, and a first compilation would take minutes.
VLLM_COMMAND = f"""#!/bin/bash
[ "$1" = serve ] || exit 64
exec {sys.executable} -m vllm.entrypoints.openai.api_server --model "$2" "${{@:3}}" \\
    --host 127.0.0.1 --enforce-eager --dtype float32 --max-model-len 256 --max-num-seqs 4
"""

# Environments that uv makes have no pip of their own.
PIP_COMMAND = f"""#!/bin/bash
[ "$1" = install ] || exit 64
exec uv pip install --quiet --python {sys.executable} "${{@:2}}"
"""


def blocks(language: str) -> list[tuple[str, str]]:
    """Returns the fenced blocks of a language, each with the comment that says who runs it."""
    pattern = rf"(?:<!-- run by: ([^>]*) -->\n)?```{language}\n(.*?)```"
    return re.findall(pattern, README.read_text("utf-8"), flags=re.DOTALL)


def test_table_of_settings_is_the_code() -> None:
    text = README.read_text("utf-8")
    found = text.split("<!-- settings -->\n")[1].split("\n<!-- /settings -->")[0]
    assert found == settings_table(Settings)


def test_every_command_says_who_runs_it() -> None:
    runners = [runner for runner, _ in blocks("bash")]
    assert runners
    assert set(runners) == {HERE, ELSEWHERE}


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)]+)\)", README.read_text("utf-8"))
    assert targets
    assert [target for target in targets if not (README.parent / target).exists()] == []


def hastened(script: str) -> str:
    """Trains the tiny model for a moment only: what it says does not matter here."""
    command = "qr-sampler tiny-model ./tiny"
    assert script.count(command) == 1
    return script.replace(command, f"{command} --steps 20")


def with_free_ports(script: str, free_port: Any) -> str:
    for port in ("50051", "8000"):
        script = re.sub(rf"\b{port}\b", str(free_port()), script)
    return script


@pytest.fixture
def commands(tmp_path: Path) -> dict[str, str]:
    """An environment in which the README's commands work, free of the caller's own settings."""
    scripts = tmp_path / "bin"
    scripts.mkdir()
    for name, text in (("vllm", VLLM_COMMAND), ("pip", PIP_COMMAND)):
        (scripts / name).write_text(text)
        (scripts / name).chmod(0o755)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("QR_")}
    path = os.pathsep.join([str(scripts), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {
        **inherited,
        "PATH": path,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_USE_V2_MODEL_RUNNER": "0",
        "HF_HUB_OFFLINE": "1",
        # The machines that run this are small and busy.
        "QR_GRPC_TIMEOUT_MS": "20000",
        "QR_CB_MIN_TIMEOUT_MS": "20000",
    }


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README's commands use curl")
def test_commands_and_snippets_run_in_order(
    commands: dict[str, str], tmp_path: Path, free_port: Any
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    body = "\n".join(code for runner, code in blocks("bash") if runner == HERE)
    script = "set -euo pipefail\ntrap 'kill $(jobs -p)' EXIT\n"
    script += with_free_ports(hastened(body), free_port)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=work,
        env=commands,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "quantum_grpc" in done.stdout

    kept = [json.loads(line) for line in (work / "light.jsonl").read_text().splitlines()]
    assert {line["source"] for line in kept if line["kind"] == "token"} == {"quantum_grpc"}
    (ledger,) = (work / "ledger").glob("*.jsonl")
    served = [json.loads(line) for line in ledger.read_text().splitlines()]
    tokens = [line for line in served if line["kind"] == "token"]
    assert {line["request_key"] for line in tokens} == {"trial-1"}
    assert {line["temperature"] for line in tokens} == {0.9}

    for _, snippet in blocks("python"):
        subprocess.run([sys.executable, "-c", snippet], cwd=work, env=commands, check=True)
