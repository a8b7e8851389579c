# SPDX-License-Identifier: Apache-2.0
"""The commands and snippets of docs/tsd/vllm.md, executed as they stand, one after the other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qr_sampler import TokenSamplingRecord
from qr_sampler.testing import records_in
from qr_sampler_vllm.tsd.settings import TSDSettings

PAGE = Path(__file__).resolve().parents[4] / "docs" / "tsd" / "vllm.md"
HERE = "engine/test_vllm_tsd_docs.py"

pytestmark = pytest.mark.skipif(
    not PAGE.exists(), reason="docs are no part of the source distribution"
)

# The CPU build's own console script does not start, and a first compilation would take minutes.
VLLM_COMMAND = f"""#!/bin/bash
[ "$1" = serve ] || exit 64
exec {sys.executable} -m vllm.entrypoints.openai.api_server --model "$2" "${{@:3}}" \\
    --host 127.0.0.1 --port $PORT --enforce-eager --dtype float32 --max-model-len 256
"""


def blocks() -> list[tuple[str, str, str]]:
    """Returns the fenced blocks: who runs each, its language, its text."""
    pattern = r"(?:<!-- run by: ([^>]*) -->\n)?```(\w+)\n(.*?)```"
    return re.findall(pattern, PAGE.read_text("utf-8"), flags=re.DOTALL)


def as_script(port: int) -> str:
    """Returns all blocks as one shell script."""
    # A server writes the last of its records when it ends.
    parts = ["set -euo pipefail", "trap 'kill $(jobs -p); wait' EXIT"]
    for _, language, text in blocks():
        # As typed into an interpreter: vLLM's processes look for no script to import.
        command = f"python -c \"$(cat <<'END'\n{text}END\n)\""
        parts.append(text if language == "bash" else command)
    script = "\n".join(parts).replace("localhost:8000", f"localhost:{port}")
    # Trained for a moment only: what it says does not matter here.
    assert script.count("qr-sampler tiny-model ./tiny") == 1
    return script.replace("tiny-model ./tiny", "tiny-model ./tiny --steps 20")


def test_every_block_says_who_runs_it() -> None:
    assert {runner for runner, _, _ in blocks()} == {HERE}


def test_tables_are_the_code() -> None:
    text = PAGE.read_text("utf-8")
    for name, field in TSDSettings.model_fields.items():
        row = next(
            line for line in text.splitlines() if line.startswith(f"| `QR_TSD_{name.upper()}")
        )
        assert f"`{field.default}`" in row or (field.default is None and "required" in row)
    names = {"outcome", "role", "jit", "uniforms"}
    assert names <= set(TokenSamplingRecord.__dataclass_fields__)
    assert all(f"\n| `{name}` |" in text for name in names)


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)]+)\)", PAGE.read_text("utf-8"))
    assert targets
    for target in targets:
        name, _, anchor = target.partition("#")
        text = (PAGE.parent / name).read_text("utf-8")
        headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
        assert not anchor or anchor in {heading.lower().replace(" ", "-") for heading in headings}


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page's commands use curl")
def test_commands_and_snippets_run_in_order(tmp_path: Path, free_port: Any) -> None:
    scripts = tmp_path / "bin"
    scripts.mkdir()
    python = f'#!/bin/bash\nexec {sys.executable} "$@"\n'
    command = f'#!/bin/bash\nexec {sys.executable} -m qr_sampler_cli "$@"\n'
    for name, text in (
        ("vllm", VLLM_COMMAND),
        ("python", python),
        ("qr-sampler", command),
    ):
        (scripts / name).write_text(text)
        (scripts / name).chmod(0o755)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("QR_")}
    port = free_port()
    done = subprocess.run(
        ["bash", "-c", as_script(port)],
        cwd=tmp_path,
        env={
            **inherited,
            "PATH": os.pathsep.join([str(scripts), os.environ["PATH"]]),
            "PORT": str(port),
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_LOGGING_LEVEL": "ERROR",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        },
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for directory, mode in (("ledger", "exact_match"), ("served", "canonical")):
        (file,) = (tmp_path / directory).glob("*.jsonl")
        lines = records_in(file)
        assert lines[0]["settings"]["tsd"]["mode"] == mode
        outcomes = {line["outcome"] for line in lines if line["kind"] == "token"}
        assert outcomes <= {"accepted", "corrected", "bonus"}
        assert "bonus" in outcomes
