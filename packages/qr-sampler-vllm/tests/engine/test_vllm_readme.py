# SPDX-License-Identifier: Apache-2.0
"""The commands and snippets of README and page on plugins, executed as they stand.

Quick start, guide and plugins share an installation, which takes minutes.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qr_sampler.testing import records_in

ROOT = Path(__file__).resolve().parents[4]
README = ROOT / "README.md"
PLUGINS = ROOT / "docs" / "plugins.md"
HERE = "tests/engine/test_vllm_readme.py"
GUIDE = "Setting Up Your Own Entropy Source"
TEMPLATE = "servers/qrng_template_server.py"
COPY = f"cp {TEMPLATE} my_qrng_server.py\n"

pytestmark = pytest.mark.skipif(
    shutil.which("curl") is None or shutil.which("openssl") is None,
    reason="the README's commands use curl and openssl",
)

INSTALL = "uv run nox -s cpu\n"
"""What begins the block that makes the environment in which all others are run."""

SERVE = "python -m vllm.entrypoints.openai.api_server --model ./tiny"
# A first compilation would take minutes.
SERVE_QUICKLY = "--enforce-eager --dtype float32 --max-model-len 256 --max-num-seqs 4"

PREAMBLE = """
set -euo pipefail
trap 'kill $(jobs -p)' EXIT
listens() {
    case "$1" in
        unix://*) [ -S "${1#unix://}" ] ;;
        *) (exec 3<>"/dev/tcp/${1%:*}/${1##*:}") 2>/dev/null ;;
    esac
}
await() { until listens "$1"; do kill -0 "$server"; sleep 0.2; done; }
"""
"""Ends what was started, and waits for a server as a person does who types more slowly."""


def section(heading: str) -> str:
    """Returns the part of the README under a heading of the second level."""
    return README.read_text("utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]


def blocks(language: str, text: str) -> list[str]:
    """Returns the fenced blocks of a language; of commands, those that are run here."""
    runner = f"<!-- run by: {HERE} -->\n" if language == "bash" else ""
    return re.findall(rf"{runner}```{language}\n(.*?)```", text, flags=re.DOTALL)


def hastened(script: str) -> str:
    """Trains the tiny model for a moment only, since what it says does not matter here."""
    command = "qr-sampler tiny-model ./tiny"
    assert script.count(command) == 1
    quick = script.replace(command, f"{command} --steps 20")
    return quick.replace(SERVE, f"{SERVE} --host 127.0.0.1 {SERVE_QUICKLY}")


def with_free_ports(script: str, free_port: Any) -> str:
    for port in ("50051", "50052", "50053", "8000", "9464"):
        script = re.sub(rf"\b{port}\b", str(free_port()), script)
    return script


@pytest.fixture(scope="module")
def installed(clone: Path, empty_environment: dict[str, str]) -> str:
    """Installs from a fresh clone as the README says; returns the line that activates it."""
    (block,) = (code for code in blocks("bash", README.read_text("utf-8")) if INSTALL in code)
    install, activate = block.splitlines()
    done = subprocess.run(
        ["bash", "-c", install],
        cwd=clone,
        env=empty_environment,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return activate


@pytest.fixture
def commands(empty_environment: dict[str, str]) -> dict[str, str]:
    """The variables of a shell in which the README's commands are typed."""
    return {
        **empty_environment,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_USE_V2_MODEL_RUNNER": "0",
        "HF_HUB_OFFLINE": "1",
        # The machines that run this are small and busy.
        "QR_GRPC_TIMEOUT_MS": "20000",
        "QR_CB_MIN_TIMEOUT_MS": "20000",
    }


@pytest.fixture
def run_script(
    commands: dict[str, str], clone: Path, installed: str, free_port: Any
) -> Callable[[str], str]:
    """Runs commands from the root of the clone and returns what they print."""

    def run(body: str) -> str:
        script = with_free_ports(hastened(body), free_port)
        done = subprocess.run(
            ["bash", "-c", f"{PREAMBLE}{installed}\n{script}"],
            cwd=clone,
            env=commands,
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def records(path: Path) -> list[dict[str, Any]]:
    return records_in(path)


def test_commands_before_and_behind_the_guide_and_all_snippets(
    run_script: Callable[[str], str], commands: dict[str, str], clone: Path
) -> None:
    work, text = clone, README.read_text("utf-8")
    typed = blocks("bash", text.replace(section(GUIDE), ""))
    printed = run_script("\n".join(code for code in typed if INSTALL not in code))
    assert "quantum_grpc" in printed

    kept = [line for line in records(work / "light.jsonl") if line["kind"] == "token"]
    assert {line["source"] for line in kept} == {"quantum_grpc"}
    (ledger,) = (work / "ledger").glob("*.jsonl")
    tokens = [line for line in records(ledger) if line["kind"] == "token"]
    assert {line["request_key"] for line in tokens} == {"trial-1"}
    assert {line["temperature"] for line in tokens} == {0.9}
    assert (work / "baseline.json").exists()

    snippets = blocks("python", text)
    said = ""
    for snippet in snippets:
        command = [str(work / "venv-cpu" / "bin" / "python"), "-c", snippet]
        said += subprocess.check_output(command, cwd=work, env=commands, text=True)
    assert f"{len(tokens)} tokens, mean of u 0." in said


def filled_template() -> str:
    """Returns the template with the class of the guide in the place of its own."""
    (snippet,) = blocks("python", section(GUIDE))
    template = (ROOT / TEMPLATE).read_text("utf-8")
    assert template.count("# TODO: YOUR HARDWARE CODE HERE") == 5
    lines, ours = template.splitlines(), snippet.splitlines()
    old, new = (_class_named("Device", text) for text in (template, snippet))
    lines[old.lineno - 1 : old.end_lineno] = ours[new.lineno - 1 : new.end_lineno]
    imports = [line for line in ours if line.startswith("import ") and line not in lines]
    lines.insert(lines.index("import argparse"), "\n".join(imports))
    # What is left concerns options, and the guide's device needs none beside its path.
    assert "\n".join(lines).count("# TODO: YOUR HARDWARE CODE HERE") == 1
    return "\n".join([*lines, ""])


def _class_named(name: str, text: str) -> ast.ClassDef:
    (found,) = (
        node
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef) and node.name == name
    )
    return found


def with_waits(block: str) -> str:
    """Returns a block that starts a server, and waits until it listens wherever it was told to."""
    if not block.endswith(" &\n"):
        return block
    addresses = re.findall(r"--(?:metrics-)?(?:address|direct) (\"[^\"]+\"|\S+)", block)
    assert addresses
    return block + "server=$!\n" + "".join(f"await {address}\n" for address in addresses)


def test_guide_from_the_template_to_tokens_of_ones_own_server(
    run_script: Callable[[str], str], clone: Path, tmp_path: Path
) -> None:
    shutil.rmtree(clone / "tiny", ignore_errors=True)
    filled = tmp_path / "filled.py"
    filled.write_text(filled_template(), "utf-8")
    body = "\n".join(map(with_waits, blocks("bash", section(GUIDE))))
    assert body.count(COPY) == 1
    printed = run_script(body.replace(COPY, f"{COPY}cp {filled} my_qrng_server.py\n"))

    tokens = [line for line in records(clone / "mine.jsonl") if line["kind"] == "token"]
    assert len(tokens) > 1
    # The name of the device shows that the class of the guide answered, not the template's.
    origins = {(line["source"], line["fallback"], line["device_id"]) for line in tokens}
    assert origins == {("quantum_grpc", False, "urandom")}
    assert "qr_entropy_bytes" in printed


def test_plugins_from_nothing_to_tokens(run_script: Callable[[str], str], clone: Path) -> None:
    install, *typed = blocks("bash", PLUGINS.read_text("utf-8"))
    assert install in blocks("bash", README.read_text("utf-8")), "it is run for all tests here"
    made = clone.parent / "plugins"
    if (clone / "tiny").is_dir():
        # As the quick start has trained it; what is there is not trained again.
        shutil.copytree(clone / "tiny", made / "tiny")
    printed = run_script("\n".join(map(with_waits, typed)))
    assert len(re.findall(r"\d+ passed", printed)) == 2

    tokens = [line for line in records(made / "dice.jsonl") if line["kind"] == "token"]
    assert len(tokens) > 1
    keys = ("source", "source_distribution", "source_version", "fallback", "health")
    assert {tuple(line[key] for key in keys) for line in tokens} == {
        ("dice", "qr-entropy-dice", "0.1.0", False, "ok")
    }
    tokens = [line for line in records(made / "server.jsonl") if line["kind"] == "token"]
    assert len(tokens) > 1
    origins = {(line["source"], line["fallback"], line["device_id"]) for line in tokens}
    assert origins == {("quantum_grpc", False, "template-0001")}
