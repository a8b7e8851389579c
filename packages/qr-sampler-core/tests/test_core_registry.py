# SPDX-License-Identifier: Apache-2.0
"""Discovery: metadata only, one name one owner, and broken plugins that harm nobody else."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from qr_sampler import (
    AMPLIFIERS,
    ENTROPY_SOURCES,
    TEMPERATURE_STRATEGIES,
    ConfigError,
    EntropySource,
    Origin,
    PluginConflictError,
    PluginLoadError,
    Registry,
    UnknownPluginError,
    ZScoreMeanAmplifier,
    create_source,
)

GROUP = "[qr_sampler.entropy_sources]\n"
SOURCE = """
    from qr_sampler import EntropySource

    class Source(EntropySource):
        name = "probe"

        def get_random_bytes(self, n):
            return b"\\x2a" * n
"""


def fresh_registry() -> Registry[EntropySource]:
    return Registry("entropy source", "qr_sampler.entropy_sources", EntropySource)  # type: ignore[type-abstract]


def test_a_plugin_is_listed_without_being_imported(install_plugin: Any) -> None:
    install_plugin("good-source", GROUP + "good = good_source:Source\n", {"good_source": SOURCE})
    registry = fresh_registry()
    (plugin,) = [plugin for plugin in registry.plugins() if plugin.name == "good"]
    assert plugin.target == "good_source:Source"
    assert plugin.origin == Origin("good-source", "1.0")
    assert plugin.distribution == "good-source 1.0"
    assert "good" in registry.names()
    assert registry.find("good") == plugin
    assert "good_source" not in sys.modules

    component = registry.load("good")
    assert component is sys.modules["good_source"].Source
    assert registry.load("good") is component


def test_a_created_source_knows_where_it_came_from(install_plugin: Any) -> None:
    install_plugin("good-source", GROUP + "probe = good_source:Source\n", {"good_source": SOURCE})
    source = create_source("probe")
    draw = source.draw(3)
    assert draw.data == b"\x2a" * 3
    assert draw.origin == Origin("good-source", "1.0")
    assert type(source).origin == Origin(), "the class itself is left alone"


def test_a_source_has_the_name_that_it_is_configured_by(install_plugin: Any) -> None:
    install_plugin("liar", GROUP + "good = good_source:Source\n", {"good_source": SOURCE})
    with pytest.raises(PluginLoadError, match=r"'good' from liar 1.0.*it calls itself 'probe'"):
        create_source("good")


@pytest.mark.parametrize(
    ("body", "reason"),
    [("raise SystemExit(3)", "SystemExit: 3"), ("return 7", "returned int, not a source")],
)
def test_a_constructor_that_fails_names_its_distribution(
    install_plugin: Any, body: str, reason: str
) -> None:
    module = (
        SOURCE
        + f"""
        @classmethod
        def from_environment(cls):
            {body}
    """
    )
    install_plugin("odd", GROUP + "probe = odd_source:Source\n", {"odd_source": module})
    with pytest.raises(PluginLoadError, match=rf"'probe' from odd 1.0.*{reason}"):
        create_source("probe")


def test_a_module_that_ends_the_program_is_an_error_like_any_other(install_plugin: Any) -> None:
    module = "raise SystemExit('no device')\n"
    install_plugin("quitting", GROUP + "quits = quitting:Source\n", {"quitting": module})
    with pytest.raises(PluginLoadError, match="SystemExit: no device"):
        fresh_registry().load("quits")


def test_a_plugin_can_appear_while_the_process_runs(install_plugin: Any) -> None:
    registry = fresh_registry()
    with pytest.raises(UnknownPluginError):
        registry.load("late")
    install_plugin("late-source", GROUP + "late = late_source:Source\n", {"late_source": SOURCE})
    assert registry.load("late").__module__ == "late_source"


def test_an_unknown_name_lists_the_known_ones(install_plugin: Any) -> None:
    install_plugin("good-source", GROUP + "good = good_source:Source\n", {"good_source": SOURCE})
    with pytest.raises(UnknownPluginError, match=r"unknown entropy source 'god'; .*good") as caught:
        fresh_registry().load("god")
    assert caught.value.name == "god"
    assert "good" in caught.value.available
    assert isinstance(caught.value, ConfigError)


def test_an_empty_group_says_what_to_do() -> None:
    empty = Registry("entropy source", "qr_sampler.no_such_group", EntropySource)  # type: ignore[type-abstract]
    assert empty.names() == ()
    with pytest.raises(UnknownPluginError, match="install a package that provides one"):
        empty.load("system")


def test_two_claims_are_an_error_for_that_name_alone(install_plugin: Any) -> None:
    install_plugin("first", GROUP + "twin = first_twin:Source\nown = first_twin:Source\n")
    install_plugin("second", GROUP + "twin = second_twin:Source\n", version="2.1")
    registry = fresh_registry()
    with pytest.raises(
        PluginConflictError, match=r"'twin' is claimed by .*first 1\.0.*second 2\.1"
    ):
        registry.load("twin")
    assert registry.names().count("twin") == 1
    assert registry.find("own").origin.distribution == "first"
    assert [p.origin.distribution for p in registry.plugins() if p.name == "twin"] == [
        "first",
        "second",
    ]


def test_one_distribution_may_not_claim_a_name_twice(install_plugin: Any) -> None:
    install_plugin("greedy", GROUP + "twin = one_module:Source\ntwin = another_module:Source\n")
    with pytest.raises(PluginConflictError, match=r"claimed by greedy 1\.0 and greedy 1\.0"):
        fresh_registry().find("twin")


BROKEN = {
    "missing": ("no_such_module_at_all:Source", "", "ModuleNotFoundError"),
    "raising": ("raising_module:Source", "raise OSError('device gone')", "OSError: device gone"),
    "syntax": ("syntax_module:Source", "def (:", "SyntaxError"),
    "attribute": ("attribute_module:Source", "x = 1", "AttributeError"),
    "instance": ("instance_module:source", "source = 5", "not a subclass of EntropySource"),
    "foreign": ("foreign_module:Source", "class Source: pass", "not a subclass of EntropySource"),
    "abstract": (
        "abstract_module:Source",
        "from qr_sampler import EntropySource as Source",
        "does not define get_random_bytes, name",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_names_its_distribution_and_spares_the_others(
    install_plugin: Any, kind: str
) -> None:
    target, source, reason = BROKEN[kind]
    modules = {target.partition(":")[0]: source} if source else {}
    install_plugin("broken-source", GROUP + f"broken = {target}\n", modules, version="3.2")
    install_plugin("good-source", GROUP + "good = good_source:Source\n", {"good_source": SOURCE})
    registry = fresh_registry()
    with pytest.raises(PluginLoadError) as caught:
        registry.load("broken")
    message = str(caught.value)
    assert "entropy source 'broken' from broken-source 3.2 cannot be loaded" in message
    assert reason in message
    assert isinstance(caught.value, ImportError)
    assert registry.load("good").__module__ == "good_source"


def test_a_repaired_plugin_loads_without_a_restart(install_plugin: Any) -> None:
    install_plugin("flaky", GROUP + "flaky = flaky_module:Source\n", {"flaky_module": "1 / 0"})
    registry = fresh_registry()
    with pytest.raises(PluginLoadError, match="ZeroDivisionError"):
        registry.load("flaky")
    (Path(sys.path[0]) / "flaky_module.py").write_text(textwrap.dedent(SOURCE), "utf-8")
    assert registry.load("flaky").__module__ == "flaky_module"


def test_a_distribution_without_metadata_does_not_stop_the_listing(install_plugin: Any) -> None:
    install_plugin("nameless", GROUP + "nameless = nameless_module:Source\n", metadata="")
    install_plugin("good-source", GROUP + "good = good_source:Source\n", {"good_source": SOURCE})
    registry = fresh_registry()
    assert registry.load("good").__module__ == "good_source"
    assert "None" not in registry.find("nameless").distribution


def test_built_in_components_come_from_this_distribution() -> None:
    assert AMPLIFIERS.load("zscore_mean") is ZScoreMeanAmplifier
    assert AMPLIFIERS.find("zscore_mean").origin.distribution == "qr-sampler-core"
    assert {"edt", "fixed"} <= set(TEMPERATURE_STRATEGIES.names())
    assert ENTROPY_SOURCES.group == "qr_sampler.entropy_sources"


def test_the_same_distribution_seen_twice_is_no_conflict(
    install_plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout can be on the path twice, for example as a link."""
    install_plugin("good-source", GROUP + "good = good_source:Source\n", {"good_source": SOURCE})
    monkeypatch.setattr(sys, "path", [sys.path[0], *sys.path])
    assert fresh_registry().find("good").origin.distribution == "good-source"
