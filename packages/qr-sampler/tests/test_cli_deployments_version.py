# SPDX-License-Identifier: Apache-2.0
"""The version that an image carries: found by the documented command, built into every package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
HERE = "packages/qr-sampler/tests/test_cli_deployments_version.py"
NAMES = ("Dockerfile.entropy-server", "Dockerfile.vllm")

needs_uv = pytest.mark.skipif(shutil.which("uv") is None, reason="uv builds the packages")


def build_command(deployments: Path, name: str) -> str:
    """Returns the shell command of the stage that builds the packages, as far as the wheels."""
    text = (deployments / "docker" / name).read_text("utf-8").replace("\\\n", "")
    (command,) = re.findall(r"^RUN (if .*? --out-dir /wheels)", text, flags=re.MULTILINE)
    return command


@pytest.mark.slow
@needs_uv
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("version", "found"), [("1.2.3.dev4+gabc", "1.2.3.dev4+gabc"), ("", "0.1.0.dev0")]
)
def test_packages_carry_the_version_that_the_build_is_told(
    deployments: Path, name: str, version: str, found: str, tmp_path: Path
) -> None:
    """One package stands for all: they are built by one command."""
    for file in ("pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / file, tmp_path / file)
    package = ROOT / "packages" / "qr-sampler-core"
    hidden = shutil.ignore_patterns("tests", ".*", "__pycache__")
    shutil.copytree(package, tmp_path / "packages" / package.name, ignore=hidden)
    command = build_command(deployments, name)
    assert "--all-packages" in command
    command = command.replace("--all-packages", f"--package {package.name}")
    done = subprocess.run(
        ["sh", "-euc", command.replace("/wheels", str(tmp_path / "wheels"))],
        cwd=tmp_path,
        env={**os.environ, "VERSION": version},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    assert wheel.name == f"qr_sampler_core-{found}-py3-none-any.whl"


def test_every_image_of_a_profile_is_told_the_version(profile: Any) -> None:
    services = profile.compose({"IMAGE_VERSION": "1.2"})["services"].values()
    built = [service["build"] for service in services if "build" in service]
    assert built
    assert {build["args"]["VERSION"] for build in built} == {"1.2"}


@needs_uv
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone of the repository")
def test_the_documented_command_finds_a_version_with_the_commit(
    deployments: Path, tmp_path: Path
) -> None:
    page = (deployments / "docker" / "README.md").read_text("utf-8")
    (block,) = re.findall(rf"<!-- run by: {HERE} -->\n```bash\n(.*?)```", page, flags=re.DOTALL)
    script = block.replace(">> .env", f">> {tmp_path}/.env").replace("uv run python", "python")
    subprocess.run(["bash", "-euc", script], cwd=deployments / "urandom", check=True)
    text = (tmp_path / ".env").read_text("utf-8")
    assert re.fullmatch(r"IMAGE_VERSION=\d+\.\d+[\w.]*\+g[0-9a-f]{7,}\n", text), text
