# SPDX-License-Identifier: Apache-2.0
"""The package as a whole: its version, its README, and the light weight of its commands."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import qr_sampler_lab

README = Path(__file__).resolve().parents[1] / "README.md"
HEAVY = ("matplotlib", "pyarrow", "scipy", "torch", "vllm")


def test_version_is_the_distributions() -> None:
    assert qr_sampler_lab.__version__ == version("qr-sampler-lab")


def test_examples_of_the_readme_run() -> None:
    # Those that need more than an empty folder name the test that runs them.
    text = re.sub(
        r"<!-- run by \S+ -->\n\n```python\n.*?```", "", README.read_text("utf-8"), flags=re.DOTALL
    )
    examples = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert examples
    for example in examples:
        subprocess.run([sys.executable, "-W", "error", "-c", example], check=True)


def test_commands_import_nothing_heavy() -> None:
    modules = {entry.module for entry in entry_points(group="qr_sampler.commands")}
    program = f"""
import importlib
import sys
for module in {sorted(modules)!r}:
    importlib.import_module(module)
loaded = [name for name in {HEAVY!r} if name in sys.modules]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", program], check=True)
