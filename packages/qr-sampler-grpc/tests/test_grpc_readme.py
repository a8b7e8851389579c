# SPDX-License-Identifier: Apache-2.0
"""The README's tables of settings, compared with the code, and its examples, executed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from qr_sampler.entropy.breaker_settings import BreakerSettings
from qr_sampler.settings_reference import settings_table
from qr_sampler_grpc.direct.settings import DirectSettings
from qr_sampler_grpc.settings import GrpcSettings

README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.mark.parametrize(
    ("marker", "model"),
    [
        ("settings", GrpcSettings),
        ("breaker settings", BreakerSettings),
        ("direct settings", DirectSettings),
    ],
)
def test_tables_of_settings_are_the_code(marker: str, model: type[BaseSettings]) -> None:
    text = README.read_text("utf-8")
    found = text.split(f"<!-- {marker} -->\n")[1].split(f"\n<!-- /{marker} -->")[0]
    assert found == settings_table(model)


def test_the_example_of_a_server_runs(run_python: Callable[..., str]) -> None:
    section = README.read_text("utf-8").split("<!-- serve -->\n")[1].split("<!-- /serve -->")[0]
    code = section.split("```python\n")[1].split("```")[0]
    assert run_python(code).splitlines()[-1] == "16 bytes from bench"
