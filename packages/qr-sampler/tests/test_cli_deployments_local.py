# SPDX-License-Identifier: Apache-2.0
"""The guides of the deployments: their links, their steps, and the commands of `local`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
HERE = "packages/qr-sampler/tests/test_cli_deployments_local.py"
GIT = shutil.which("git") is not None and (ROOT / ".git").exists()

STUB = """#!/bin/bash
echo "$(basename "$0") $*" >> "$CALLS"
"""

EDITOR = """#!/bin/bash
echo "nano $*" >> "$CALLS"
touch "$@"
"""

VENV = """#!/bin/bash
echo "python3 $*" >> "$CALLS"
mkdir -p "$3/bin" && cp "$STUBS/pip" "$3/bin/pip"
"""


def put(scripts: dict[str, str], folder: Path) -> None:
    """Writes commands that stand in for others."""
    folder.mkdir()
    for name, text in scripts.items():
        (folder / name).write_text(text, "utf-8")
        (folder / name).chmod(0o755)


def guides(deployments: Path) -> list[Path]:
    return sorted(deployments.rglob("README.md"))


def blocks(guide: Path, runner: str) -> list[str]:
    pattern = rf"<!-- run by: {re.escape(runner)} -->\n```bash\n(.*?)```"
    return re.findall(pattern, guide.read_text("utf-8"), flags=re.DOTALL)


def test_links_lead_somewhere(deployments: Path) -> None:
    for guide in guides(deployments):
        targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", guide.read_text("utf-8"))
        assert [one for one in targets if not (guide.parent / one).exists()] == [], guide


def test_every_command_of_local_says_who_runs_it(deployments: Path) -> None:
    text = (deployments / "local" / "README.md").read_text("utf-8")
    runners = re.findall(r"(?:<!-- run by: (\S+) -->\n)?```bash\n", text)
    engine = "packages/qr-sampler-vllm/tests/engine/test_vllm_deployments.py"
    assert runners == [HERE, HERE, HERE, engine, HERE, HERE, HERE]
    assert all((ROOT / runner).is_file() for runner in runners)


def test_every_profile_is_compared(deployments: Path) -> None:
    overview = (deployments / "README.md").read_text("utf-8")
    folders = {path.name for path in deployments.iterdir() if path.is_dir()}
    assert folders - {"tests"} >= {"_template", "docker", "firefly-1", "local", "systemd"}
    for folder in folders:
        assert f"`{folder}`" in overview, f"{folder} is not in the overview"


def test_overview_says_what_the_profiles_do(deployments: Path, profile: Any) -> None:
    overview = (deployments / "README.md").read_text("utf-8")
    (row,) = re.findall(rf"^\| `{profile.name}` \| (.*) \|$", overview, flags=re.MULTILINE)
    sequences, _, silent = (cell.strip() for cell in row.split("|"))
    assert sequences == profile.defaults["VLLM_MAX_NUM_SEQS"]
    expected = {"system": "flagged tokens from `system`", "end_request": "the answer ends early"}
    assert silent == expected[profile.defaults["QR_FALLBACK_MODE"]]


def test_a_guide_has_three_steps_and_sends_nobody_away(profile: Any) -> None:
    text = (profile.folder / "README.md").read_text("utf-8")
    steps = text.split("## Three steps")[1].split("\n\n##")[0]
    assert "cp .env.example .env     # 1." in steps
    assert "# 2." in steps
    assert "docker compose up        # 3." in steps
    assert "--file" not in text
    assert "--env-file" not in text


def test_steps_of_a_guide_lead_to_the_containers(profile: Any, tmp_path: Path) -> None:
    """Runs the commands up to `docker compose up`; an editor and docker are stand-ins."""
    calls, stubs = tmp_path / "calls", tmp_path / "stubs"
    put({"docker": STUB, "nano": EDITOR}, stubs)
    for folder in ("deployments", "servers"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    text = profile.folder.joinpath("README.md").read_text("utf-8")
    steps = text.split("## Three steps")[1].split("## Records")[0]
    found = re.findall(r"```bash\n(.*?)```", steps, flags=re.DOTALL)
    # The last one asks a running server.
    scripts = [script for script in found if "curl" not in script]
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(scripts)],
        # A copy of the template is made from the root of the repository, and so is said there.
        cwd=tmp_path / ("" if profile.name == "_template" else f"deployments/{profile.name}"),
        env={"PATH": f"{stubs}{os.pathsep}/usr/bin{os.pathsep}/bin", "CALLS": str(calls)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "docker compose up" in calls.read_text("utf-8").splitlines()
    name = "my-device" if profile.name == "_template" else profile.name
    folder = tmp_path / "deployments" / name
    assert (folder / ".env").read_text("utf-8") == profile.example
    if profile.name == "_template":
        template = (ROOT / "servers" / "qrng_template_server.py").read_text("utf-8")
        assert (folder / "server.py").read_text("utf-8") == template
    if profile.name == "firefly-1":
        assert (folder / "secrets").stat().st_mode & 0o777 == 0o700
        assert (folder / "secrets" / "api-key").stat().st_mode & 0o777 == 0o644


def test_what_a_guide_says_of_a_port_or_a_path_is_so(profile: Any) -> None:
    text = (profile.folder / "README.md").read_text("utf-8")
    assert set(re.findall(r"127\.0\.0\.1:(\d+)", text)) == {
        profile.defaults["API_PORT"],
        profile.defaults["UI_PORT"],
    }
    named = set(re.findall(r"\b((?:QR|VLLM|ENTROPY|TIMING|API|TLS|UI|HF)_[A-Z_]+)\b", text))
    assert named <= set(profile.defaults), "a guide names a variable that the profile lacks"
    ledger = profile.defaults["QR_LEDGER_DIR"]
    assert f"docker compose cp vllm:{ledger} ./records" in text


@pytest.mark.skipif(not GIT, reason="not a clone of the repository")
def test_real_configuration_is_ignored_and_examples_are_not(deployments: Path) -> None:
    def ignored(*names: str) -> list[bool]:
        command = ["git", "check-ignore", "--quiet", "--no-index"]
        paths = (str(deployments / name) for name in names)
        done = (subprocess.run([*command, path], cwd=ROOT, check=False) for path in paths)
        return [one.returncode == 0 for one in done]

    private = ("urandom/.env", "my-device/.env", "local/vllm.env", "firefly-1/secrets/api-key")
    assert all(ignored(*private))
    assert not any(ignored("urandom/.env.example", "local/vllm.env.example"))


def test_no_example_holds_a_secret(environment_files: dict[str, Any]) -> None:
    for path, (values, _) in environment_files.items():
        secrets = {name for name in values if re.search("KEY$|TOKEN$|SECRET$|PASSWORD$", name)}
        assert {values[name] for name in secrets} <= {""}, path


@pytest.mark.skipif(not GIT, reason="not a clone of the repository")
def test_no_model_that_has_to_be_asked_for() -> None:
    # In two parts, so that this file does not hold it.
    wanted = "meta" + "-llama"
    command = ["git", "grep", "--ignore-case", "--files-with-matches", wanted]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")


def test_without_a_gpu_the_unit_starts_the_module_that_its_script_stands_for(
    deployments: Path,
) -> None:
    page = (deployments / "local" / "README.md").read_text("utf-8")
    unit = (deployments / "systemd" / "qr-vllm.service").read_text("utf-8")
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, flags=re.MULTILINE)
    script, module = "vllm serve ", "python -m vllm.entrypoints.openai.api_server --model="
    assert command.count(script) == 1
    assert f"ExecStart=\nExecStart={command.replace(script, module)}\n" in page


@pytest.mark.skipif(shutil.which("install") is None, reason="there is no install command")
def test_commands_of_local_install_what_the_units_start(deployments: Path, tmp_path: Path) -> None:
    """Runs them below a temporary folder; what would change the system is noted instead."""
    stubs = tmp_path / "stubs"
    scripts = {"python3": VENV, "pip": STUB, "systemctl": STUB, "systemd-sysusers": STUB}
    scripts |= {"udevadm": STUB}
    put(scripts, stubs)
    root, calls = tmp_path / "root", tmp_path / "calls"
    records = "var/lib/qr-sampler/records"
    for folder in ("opt", "etc/systemd/system", "etc/udev/rules.d", records, "home"):
        (root / folder).mkdir(parents=True)
    (root / records / "run.jsonl").write_text("{}\n", "utf-8")
    commands = "\n".join(blocks(deployments / "local" / "README.md", HERE))
    assert commands.count("sudo ") >= 10
    script = re.sub(r"(?<![\w.])/(opt|etc|var)/", rf"{root}/\1/", commands.replace("sudo ", ""))
    script = script.replace("openssl rand -hex 32", "echo 0123456789abcdef")
    environment = {"PATH": f"{stubs}{os.pathsep}/usr/bin{os.pathsep}/bin", "STUBS": str(stubs)}
    environment |= {"HOME": str(root / "home")}
    environment |= {"SUDO_UID": str(os.getuid()), "SUDO_GID": str(os.getgid())}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env={**environment, "CALLS": str(calls)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    noted = calls.read_text("utf-8")
    assert "systemctl enable --now qr-entropy-server.service qr-vllm.service" in noted
    assert "pip install vllm" in noted
    private = ("etc/qr-sampler/api-key", "etc/qr-sampler/vllm-secrets.env")
    for name in (*private, "home/records/run.jsonl"):
        assert (root / name).stat().st_mode & 0o777 == 0o600, name
    assert (root / "home/records").stat().st_mode & 0o777 == 0o700
    assert "hw_random" in (root / "etc/udev/rules.d/60-qr-sampler.rules").read_text("utf-8")
    assert (root / "etc/sysusers.d/qr-sampler.conf").is_file()
    wanted = set()
    for unit in (deployments / "systemd").glob("*.service"):
        text = unit.read_text("utf-8")
        assert (root / "etc/systemd/system" / unit.name).read_text("utf-8") == text
        wanted |= set(re.findall(r"(/(?:opt|etc)/qr-sampler/[\w./-]+)", text))
    examples = (deployments / "local").glob("*.env.example")
    for example in examples:
        wanted |= set(
            re.findall(
                r"^\w+=(/(?:opt|etc)/qr-sampler/[\w./-]+)",
                example.read_text("utf-8"),
                flags=re.MULTILINE,
            )
        )
    # Made by venv and pip, for which stubs stand here.
    made = {path for path in wanted if path.startswith("/opt/qr-sampler/venv/")}
    assert made == {"/opt/qr-sampler/venv/bin/python", "/opt/qr-sampler/venv/bin/vllm"}
    assert [path for path in wanted - made if not (root / path[1:]).is_file()] == []
