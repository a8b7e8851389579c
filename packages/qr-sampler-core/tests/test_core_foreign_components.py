# SPDX-License-Identifier: Apache-2.0
"""What the first line of a ledger says of amplifiers and strategies of other projects."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qr_sampler import Settings
from qr_sampler.components.foreign_components import MOST_COMPONENTS, foreign_components
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.records.reader import read_ledger
from qr_sampler.testing import ConstantEntropySource

PLANTED = """
    from qr_sampler import SignalAmplifier, TemperatureStrategy

    class Amplifier(SignalAmplifier):
        secrets = ("hush",)

        @property
        def recorded_settings(self):
            return {"gain": 2.5, "table": "/tables/hush", "on": True, "none": None}

        def amplify(self, blocks, counts=None):
            raise AssertionError("nobody asked")

    class Strategy(TemperatureStrategy):
        @property
        def recorded_settings(self):
            return {"slope": 3}

        def temperatures(self, statistics, rows):
            raise AssertionError("nobody asked")
"""

HOSTILE = """
    from qr_sampler import SignalAmplifier, TemperatureStrategy

    class Endless(dict):
        def items(self):
            number = 0
            while True:
                number += 1
                yield f"name {number}" * 500, Loud()

    class Loud:
        def __str__(self):
            return "\\ud800\\n" * 100_000

    class Amplifier(SignalAmplifier):
        recorded_settings = Endless(a=1)

        def amplify(self, blocks, counts=None):
            raise AssertionError("nobody asked")

    class Strategy(TemperatureStrategy):
        @property
        def secrets(self):
            raise SystemExit("no secrets")

        @property
        def recorded_settings(self):
            return {"key": "a secret that cannot be masked"}

        def temperatures(self, statistics, rows):
            raise AssertionError("nobody asked")
"""

SECRETIVE = """
    from qr_sampler import SignalAmplifier, TemperatureStrategy

    PASSWORD = "it's\\ta \\\\ secret"

    class Whole(int):
        def __abs__(self):
            return 0

        def __int__(self):
            return 10**400

    class Real(float):
        def __float__(self):
            return float("nan")

    class Amplifier(SignalAmplifier):
        secrets = (PASSWORD, "hush", "hushed", b"quiet", 4711, None)

        @property
        def recorded_settings(self):
            return {
                "nested": {"password": PASSWORD},
                "error": KeyError(PASSWORD),
                "longer": "hushed",
                "raw": b"quiet",
                "pin": 4711,
                "count": 4712,
                "whole": Whole(5),
                "real": Real(0.5),
            }

        def amplify(self, blocks, counts=None):
            raise AssertionError("nobody asked")

    class Strategy(TemperatureStrategy):
        secrets = ("hunter2",)

        @property
        def recorded_settings(self):
            raise ValueError("hunter2 does not fit")

        def temperatures(self, statistics, rows):
            raise AssertionError("nobody asked")
"""

ENDLESS = """
    from itertools import repeat
    from qr_sampler import SignalAmplifier, TemperatureStrategy

    class Amplifier(SignalAmplifier):
        secrets = repeat("word")
        recorded_settings = {"a": 1}

        def amplify(self, blocks, counts=None):
            raise AssertionError("nobody asked")

    class Strategy(TemperatureStrategy):
        secrets = 5
        recorded_settings = {"a": 1}

        def temperatures(self, statistics, rows):
            raise AssertionError("nobody asked")
"""

ENTRIES = """
    [qr_sampler.signal_amplifiers]
    {name}_amplifier = {module}:Amplifier

    [qr_sampler.temperature_strategies]
    {name}_strategy = {module}:Strategy
"""

Install = Callable[..., None]


def plant(install: Install, name: str, code: str) -> Settings:
    install(
        f"qr-{name}", ENTRIES.format(name=name, module=f"{name}_parts"), {f"{name}_parts": code}
    )
    return Settings.load(
        signal_amplifier_type=f"{name}_amplifier", temperature_strategy=f"{name}_strategy"
    )


def test_settings_of_what_was_chosen_are_told_without_secrets(install_plugin: Install) -> None:
    amplifier, strategy = foreign_components(plant(install_plugin, "planted", PLANTED))
    assert amplifier == {
        "component": "signal_amplifier",
        "name": "planted_amplifier",
        "distribution": "qr-planted",
        "version": "1.0",
        "settings": {"gain": 2.5, "table": "/tables/***", "on": True, "none": None},
    }
    assert (strategy["component"], strategy["settings"]) == ("temperature_strategy", {"slope": 3})


def test_what_was_not_chosen_is_named_and_not_imported(install_plugin: Install) -> None:
    plant(install_plugin, "planted", "raise SystemExit('imported')")
    found = foreign_components(Settings.load())
    assert [(each["name"], each["settings"]) for each in found] == [
        ("planted_amplifier", None),
        ("planted_strategy", None),
    ]
    assert "planted_parts" not in sys.modules


def test_ours_and_contested_ones_are_not_among_them(install_plugin: Install) -> None:
    assert foreign_components(Settings.load()) == []
    plant(install_plugin, "planted", PLANTED)
    install_plugin(
        "qr-other", "[qr_sampler.signal_amplifiers]\nplanted_amplifier = other:Amplifier"
    )
    assert [each["name"] for each in foreign_components(Settings.load())] == ["planted_strategy"]


def test_hostile_ones_are_bounded_and_harm_nobody(
    install_plugin: Install, caplog: pytest.LogCaptureFixture
) -> None:
    amplifier, strategy = foreign_components(plant(install_plugin, "hostile", HOSTILE))
    assert len(json.dumps(amplifier).encode()) < 200_000
    assert 0 < len(amplifier["settings"]) <= 100
    # What may be a secret is not told.
    assert strategy["settings"] == {}
    assert caplog.text.count("has a defect") == 1
    assert "cannot be masked" not in caplog.text


def test_secrets_are_masked_however_they_are_written(
    install_plugin: Install, caplog: pytest.LogCaptureFixture
) -> None:
    amplifier, strategy = foreign_components(plant(install_plugin, "secretive", SECRETIVE))
    assert strategy["settings"] == {}
    assert amplifier["settings"].pop("nested") in ("{'password': '***'}", "{'password': \"***\"}")
    assert amplifier["settings"].pop("error") in ("'***'", '"***"')
    assert amplifier["settings"] == {
        "longer": "***",
        "raw": "***",
        "pin": "***",
        "count": 4712,
        "whole": 5,
        "real": 0.5,
    }
    assert "*** does not fit" in caplog.text
    assert "hunter2" not in caplog.text


def test_secrets_without_end_or_that_are_none_leave_settings_unknown(
    install_plugin: Install, caplog: pytest.LogCaptureFixture
) -> None:
    found = foreign_components(plant(install_plugin, "endless", ENDLESS))
    assert [each["settings"] for each in found] == [{}, {}]
    assert caplog.text.count("has a defect") == 2


@pytest.mark.parametrize("code", ["raise SystemExit('no')", "Amplifier = Strategy = int"])
def test_broken_ones_have_no_settings(install_plugin: Install, code: str) -> None:
    found = foreign_components(plant(install_plugin, "broken", code))
    assert [each["settings"] for each in found] == [None, None]


def test_their_number_is_bounded_and_what_was_chosen_is_among_them(install_plugin: Install) -> None:
    settings = plant(install_plugin, "zebra", PLANTED)
    names = "\n".join(f"name{n} = parts:Amplifier" for n in range(2 * MOST_COMPONENTS))
    install_plugin("qr-many", f"[qr_sampler.signal_amplifiers]\n{names}")
    found = foreign_components(settings)
    assert len(found) == MOST_COMPONENTS
    assert [each["name"] for each in found[:2]] == ["zebra_amplifier", "zebra_strategy"]


def test_ledgers_begin_with_them(install_plugin: Install, tmp_path: Path) -> None:
    planted = plant(install_plugin, "planted", PLANTED)
    ledgers = tmp_path / "ledgers"
    session = SamplingSession(
        EngineFacts(engine="toy", model="tiny"),
        planted.model_copy(update={"ledger_dir": ledgers, "entropy_source_type": "constant"}),
        sources={"constant": ConstantEntropySource(7)},
    )
    session.close()
    (file,) = ledgers.iterdir()
    first = next(read_ledger(file))
    assert [(each["name"], each["settings"]) for each in first["components"]] == [
        ("planted_amplifier", {"gain": 2.5, "table": "/tables/***", "on": True, "none": None}),
        ("planted_strategy", {"slope": 3}),
    ]
    assert first["versions"]["qr-planted"] == "1.0"
