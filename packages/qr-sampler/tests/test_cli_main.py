# SPDX-License-Identifier: Apache-2.0
"""The command as a whole: light, versioned, and reachable under both of its names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points, version
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from qr_sampler_cli.main import app
from qr_sampler_cli.terminal.consoles import printable

HEAVY = ("torch", "vllm", "grpc", "transformers", "tokenizers", "qr_sampler_vllm")


@pytest.mark.parametrize(
    "command",
    ["", "baseline", "generate", "probe", "serve-entropy", "settings", "sources", "tiny-model"],
)
def test_help_imports_nothing_heavy(command: str) -> None:
    program = f"""
import sys
from qr_sampler_cli.main import app
try:
    app([*{command!r}.split(), "--help"])
except SystemExit as end:
    assert not end.code, end.code
loaded = [name for name in {HEAVY!r} if name in sys.modules]
assert not loaded, loaded
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "Usage" in result.stdout


def test_version_is_the_distributions() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.stdout == f"qr-sampler {version('qr-sampler')}\n"


def test_console_script_names_the_app() -> None:
    (script,) = entry_points(group="console_scripts", name="qr-sampler")
    assert script.load() is app


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ünïcode → text\n\tindented", "plain ünïcode → text\n\tindented"),
        ("\x1b[31mred\x07\r\x9b", r"\x1b[31mred\x07\r\x9b"),
        ("\u202eright to left", r"\u202eright to left"),
    ],
)
def test_printable_text_cannot_steer_a_terminal(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qr_sampler_grpc", None)
    monkeypatch.delitem(sys.modules, "qr_sampler_grpc.server", raising=False)
    result = CliRunner().invoke(app, ["serve-entropy"])
    assert result.exit_code == 2
    assert "pip install ./packages/qr-sampler-grpc" in result.stderr


def _commands(command: Any, *names: str) -> Iterator[tuple[str, ...]]:
    yield names
    for name, sub in getattr(command, "commands", {}).items():
        yield from _commands(sub, *names, name)


def test_every_command_understands_the_short_option_for_help() -> None:
    found = list(_commands(typer.main.get_command(app)))
    assert {("sources",), ("doctor", "vllm"), ("tsd", "m0")} <= set(found)
    for names in found:
        short, long = (CliRunner().invoke(app, [*names, option]) for option in ("-h", "--help"))
        assert short.exit_code == 0
        assert short.stdout == long.stdout
