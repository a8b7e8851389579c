# SPDX-License-Identifier: Apache-2.0
"""The campaign's scenarios in a few runs each, and that they can fail.

Forty runs per scenario with fixed seeds. The number of alarms at 1 % is compared with the binomial
law at a false-alarm rate of 1e-9 per test; the campaign itself takes ten thousand runs.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

from qr_sampler_lab.analysis import Moments, mean_test

CAMPAIGN = Path(__file__).resolve().parents[2] / "campaigns" / "false_alarms.py"
RUNS = 40

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(
        not CAMPAIGN.exists(), reason="the campaigns are not part of the source distribution"
    ),
]


@pytest.fixture(scope="module")
def campaign() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lab_false_alarms", CAMPAIGN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def too_many(alarms: int, level: float = 0.01) -> bool:
    return bool(stats.binom.sf(alarms - 1, RUNS, level) < 1e-9)


def test_nothing_alarms_too_often_where_there_is_nothing(campaign: ModuleType) -> None:
    names = set()
    for scenario in campaign.NULL:
        for name, alarms in campaign.shard(scenario.run, 1, RUNS).items():
            assert not too_many(alarms), (scenario.name, name, alarms)
            names.add(name)
    assert len(names) >= 35


def test_effects_are_found_as_often_as_theory_says(campaign: ModuleType) -> None:
    for power in campaign.power_scenarios(bridges=200):
        for name, alarms in campaign.shard(power.run, 1, RUNS).items():
            theory = power.theory[name]
            law = stats.binom(RUNS, theory)
            assert min(law.sf(alarms - 1), law.cdf(alarms)) > 1e-9, (power.name, name, alarms)


def test_a_test_with_the_wrong_error_is_noticed() -> None:
    """Taking a baseline of 100 blocks for the truth at 2,000 tokens alarms in 57 %."""
    rng, alarms = np.random.default_rng(2), 0
    for _ in range(RUNS):
        moments = Moments()
        moments.add(rng.standard_normal(2_000) + rng.standard_normal() / math.sqrt(100))
        alarms += mean_test(moments).p_value <= 0.01
    assert too_many(alarms)
