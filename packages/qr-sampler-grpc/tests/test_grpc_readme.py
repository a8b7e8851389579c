# SPDX-License-Identifier: Apache-2.0
"""The README's table of settings, compared with the code."""

from __future__ import annotations

from pathlib import Path

from qr_sampler.settings_reference import settings_table
from qr_sampler_grpc.settings import GrpcSettings

README = Path(__file__).resolve().parents[1] / "README.md"


def test_table_of_settings_is_the_code() -> None:
    text = README.read_text("utf-8")
    found = text.split("<!-- settings -->\n")[1].split("\n<!-- /settings -->")[0]
    assert found == settings_table(GrpcSettings)
