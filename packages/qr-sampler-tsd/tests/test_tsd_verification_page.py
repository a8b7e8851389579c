# SPDX-License-Identifier: Apache-2.0
"""``docs/tsd/verification.md`` and ``experiments.md``: names exist."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from qr_sampler_tsd import verification
from qr_sampler_tsd.experiments.m1 import M1Settings
from qr_sampler_tsd.telemetry import TelemetryEvent

ROOT = Path(__file__).resolve().parents[3]
VERIFICATION = ROOT / "docs" / "tsd" / "verification.md"
EXPERIMENTS = ROOT / "docs" / "tsd" / "experiments.md"

pytestmark = pytest.mark.skipif(
    not VERIFICATION.exists(), reason="the pages are not part of an sdist"
)


def test_the_commands_name_tests_that_exist() -> None:
    (block,) = re.findall(r"```bash\n(.*?)```", VERIFICATION.read_text("utf-8"), flags=re.DOTALL)
    commands = block.splitlines()
    assert len(commands) == 2
    for command in commands:
        words = command.split()
        assert words[:3] == ["python", "-m", "pytest"]
        assert [word for word in words[3:] if not (ROOT / word).is_file()] == []


def test_every_verifier_is_described() -> None:
    text = VERIFICATION.read_text("utf-8")
    for name in verification.__all__:
        if name.startswith(("accept_correct", "verify_")):
            assert f"`{name}`" in text


def test_every_field_of_an_event_is_described() -> None:
    text = EXPERIMENTS.read_text("utf-8")
    described = set(re.findall(r"`(\w+)`", text))
    assert {field.name for field in fields(TelemetryEvent)} <= described


def test_contexts_fit_what_the_page_says() -> None:
    assert "Above V = 1,448" in EXPERIMENTS.read_text("utf-8")
    assert M1Settings(vocab_size=1448).target().contexts == 1448
    assert M1Settings(vocab_size=1449).target().contexts < 1449
