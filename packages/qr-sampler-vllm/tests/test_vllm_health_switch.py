# SPDX-License-Identifier: Apache-2.0
"""The benchmark of health tests compares sources that are watched with sources that are not."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from qr_sampler import GuardedSource, Settings
from qr_sampler.components import failure_policy
from qr_sampler.health import HealthState

PACKAGE = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(
    not (PACKAGE / "benchmarks").exists(),
    reason="benchmarks are no part of the source distribution",
)


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(PACKAGE))
    # So that it is put back.
    monkeypatch.setattr(failure_policy, "GuardedSource", GuardedSource)
    return importlib.import_module("benchmarks.health_switch").HealthSwitch()


def test_nothing_is_tested_while_it_is_off(switch: Any) -> None:
    source = failure_policy.configured_source(Settings.load(entropy_source_type="system"))
    seen = []
    for switch.on in (True, False, True):
        seen += [source.draw(64).health, source.committed_draw(64, b"digest").health]
    ok, untested = [HealthState.OK] * 2, [HealthState.UNTESTED] * 2
    assert seen == [*ok, *untested, *ok]


def test_a_switch_of_nothing_is_refused(switch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(failure_policy, "GuardedSource")
    with pytest.raises(RuntimeError, match="nothing is switched"):
        type(switch)()
