# SPDX-License-Identifier: Apache-2.0
"""The README's commands for a laptop, executed with real Transformers.

Those that install are run by ``campaigns/laptop.py``, from an empty environment.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="needs Transformers; the nox session `vllm` has them")
pytest.importorskip("qr_sampler_grpc")

ROOT = Path(__file__).resolve().parents[3]
README = ROOT / "README.md"
HERE = "packages/qr-sampler/tests/test_cli_laptop.py"

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(not README.exists(), reason="the README is in the repository only"),
    pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are for bash"),
]

PREAMBLE = """
set -euo pipefail
trap 'kill $(jobs -p)' EXIT
"""
WAIT = "until (exec 3<>/dev/tcp/127.0.0.1/50061) 2>/dev/null; do kill -0 $!; sleep 0.1; done\n"


def test_commands_of_the_readme(tmp_path: Path) -> None:
    pattern = rf"<!-- run by: {re.escape(HERE)} -->\n```bash\n(.*?)```"
    serve, talk = re.findall(pattern, README.read_text("utf-8"), flags=re.DOTALL)
    train = "qr-sampler tiny-model ./tiny\n"
    assert train in serve
    if ready := os.environ.get("QR_TINY_MODEL_DIR"):
        serve = serve.replace(train, f"ln -s {ready} tiny\n")
    else:
        serve = serve.replace(train, train.replace("\n", " --steps 20\n"))
    serve = serve.replace(" &\n", f" &\n{WAIT}", 1)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QR_")}
    places = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
    colours = {"FORCE_COLOR": "1", "COLORTERM": "truecolor"}
    kept.pop("NO_COLOR", None)
    done = subprocess.run(
        ["bash", "-c", PREAMBLE + serve + talk],
        cwd=tmp_path,
        env={**kept, **colours, "PATH": places, "QR_CB_MIN_TIMEOUT_MS": "5000"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall("100.0 % from quantum_grpc", done.stdout)) == 2
    # The reply, and not only the legend of the scale.
    assert re.search(r"\x1b\[38;2;\d+;\d+;\d+;48;2;", done.stdout.split("quantum_grpc")[1])
    assert {path.name for path in tmp_path.glob("*.jsonl")} == {"light.jsonl", "talk.jsonl"}
