# SPDX-License-Identifier: Apache-2.0
"""The README's tables of settings, compared with the code, and its examples, executed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qr_sampler.settings_reference import settings_table
from qr_sampler_grpc.direct.settings import DirectSettings
from qr_sampler_grpc.settings import GrpcSettings

README = Path(__file__).resolve().parents[1] / "README.md"


def test_table_of_settings_is_the_code() -> None:
    text = README.read_text("utf-8")
    found = text.split("<!-- settings -->\n")[1].split("\n<!-- /settings -->")[0]
    assert found == settings_table(GrpcSettings)


def test_table_of_direct_settings_is_the_code() -> None:
    text = README.read_text("utf-8")
    found = text.split("<!-- direct settings -->\n")[1].split("\n<!-- /direct settings -->")[0]
    assert found == settings_table(DirectSettings)


def test_the_example_of_a_server_runs(run_python: Callable[..., str]) -> None:
    section = README.read_text("utf-8").split("<!-- serve -->\n")[1].split("<!-- /serve -->")[0]
    code = section.split("```python\n")[1].split("```")[0]
    assert run_python(code).splitlines()[-1] == "16 bytes from bench"
