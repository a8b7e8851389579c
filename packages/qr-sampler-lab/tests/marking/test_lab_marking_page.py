# SPDX-License-Identifier: Apache-2.0
"""The command, and what the page about experiments says of it, as a user would do it."""

from __future__ import annotations

import functools
import json
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qr_sampler.records.code_digest import code_digest
from qr_sampler_cli.main import app
from qr_sampler_lab.experiments import environment
from qr_sampler_lab.experiments.files.register import LAB_VARIABLE
from qr_sampler_lab.experiments.study import Study

PAGE = Path(__file__).resolve().parents[4] / "docs" / "experiments.md"
OURS = "<!-- run by: packages/qr-sampler-lab/tests/marking/test_lab_marking_page.py -->"


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Returns a sealed study in the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(LAB_VARIABLE, raising=False)
    monkeypatch.setattr(environment, "code_digest", functools.cache(code_digest))
    (tmp_path / "tiny-model").mkdir()
    (tmp_path / "tiny-model" / "config.json").write_text("{}")
    for arguments in (["new", "rehearsal"], ["seal", "rehearsal", "--no-drand"]):
        assert CliRunner().invoke(app, ["experiment", *arguments]).exit_code == 0
    return Study(tmp_path / "rehearsal")


@contextmanager
def marks_taken(line: str) -> Iterator[subprocess.Popen[str]]:
    """Runs a command line that takes marks, and kills what has not ended behind the block."""
    program, *arguments = shlex.split(line)
    assert program == "qr-sampler"
    command = [sys.executable, "-m", "qr_sampler_cli", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def end(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """Ends a process in order, and returns what it has told of marks."""
    process.send_signal(number)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 0, told
    return told


@pytest.mark.heavy
@pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not in this archive")
def test_the_commands_of_the_page(study: Study) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    text = PAGE.read_text("utf-8").replace("8765", port)
    first, by_curl, second, by_tls = re.findall(
        re.escape(OURS) + r"\n```bash\n(.*?)```", text, flags=re.DOTALL
    )
    # The default port may be taken on this machine.
    with marks_taken(f"{first.strip()} --listen 127.0.0.1:{port}") as process:
        expected = f"rehearsal: marks are taken at http://127.0.0.1:{port}/\n"
        assert first_line(process) == expected
        told = subprocess.run(["/bin/sh", "-ec", by_curl], capture_output=True, check=True).stdout
        assert [json.loads(line)["n"] for line in told.splitlines()] == [1, 2]
        assert end(process, signal.SIGTERM).count(": mark ") == 2

    *preparing, serve = second.strip().splitlines()
    subprocess.run(["/bin/sh", "-ec", "\n".join(preparing)], capture_output=True, check=True)
    with marks_taken(serve) as process:
        assert first_line(process).startswith("rehearsal: marks are taken at https://")
        here = f"curl --resolve lab.example:{port}:127.0.0.1 "
        command = by_tls.replace("curl ", here)
        subprocess.run(["/bin/sh", "-ec", command], capture_output=True, check=True)
        told_of_it = end(process, signal.SIGINT)
    assert told_of_it.count(": mark ") == 1
    assert "warning" not in told_of_it
    marks = [entry.values["text"] for entry in study.journal.entries() if entry.kind == "mark"]
    assert marks == ["the door was opened", "21.5 °C", "participant begins"]


def test_what_cannot_be_served_is_refused_in_one_line(study: Study, tmp_path: Path) -> None:
    (tmp_path / "marks.key").write_text("too short")
    for options, reason in {
        "--study nowhere": "no directory",
        "--study tiny-model": "experiment new NAME",
        "--study rehearsal --listen 0.0.0.0:0": "reached from other machines",
        "--study rehearsal --key-file marks.key": "at least 16",
        "--study rehearsal --key-file none": "cannot be read",
        "--study rehearsal --private-key none": "neither",
        "--study rehearsal --button ''": "--button",
        "--study rehearsal --listen 8765": "HOST:PORT",
    }.items():
        result = CliRunner().invoke(app, ["experiment", "marks", *shlex.split(options)])
        assert (result.exit_code, result.stdout) == (2, ""), options
        assert result.stderr.startswith("error: "), options
        assert reason in result.stderr, options
    (study.directory / "seal.json").unlink()
    result = CliRunner().invoke(app, ["experiment", "marks", "--study", "rehearsal"])
    assert "not sealed" in result.stderr
