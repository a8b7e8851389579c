# SPDX-License-Identifier: Apache-2.0
"""Fixtures and Hypothesis settings of the core tests."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from qr_sampler import AMPLIFIERS, ENTROPY_SOURCES, TEMPERATURE_STRATEGIES

# Derandomised: a run that passes today passes tomorrow; machines differ in speed.
settings.register_profile(
    "qr-sampler-core",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("qr-sampler-core")

LONG = {
    "test_core_amplification_exact.py",
    "test_core_amplification_walk.py",
    "test_core_overrides.py",
    "test_core_temperature_strategies.py",
    "test_core_truncation.py",
    "test_core_uniformity.py",
}
"""Files that come first, so that no worker of pytest-xdist is left with much to do at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="session", autouse=True)
def _interrupts_arrive() -> Iterator[None]:
    """Undoes what a shell does to background jobs: they ignore SIGINT, and so do their children."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.fixture(scope="session")
def empty_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for the tests that need none: to make one and remove it again takes longer."""
    folder = tmp_path_factory.mktemp("empty")
    yield folder
    assert not list(folder.iterdir()), "a test that writes files asks for tmp_path"


@pytest.fixture(autouse=True)
def _clean_environment(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, empty_folder: Path
) -> None:
    """Hides the operator's own variables and `.env` file from every test."""
    for name in os.environ:
        if name.upper().startswith("QR_"):
            monkeypatch.delenv(name)
    own = "tmp_path" in request.fixturenames
    monkeypatch.chdir(request.getfixturevalue("tmp_path") if own else empty_folder)


PluginInstaller = Callable[..., None]


@pytest.fixture
def install_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginInstaller]:
    """Returns a function that puts a distribution with entry points on ``sys.path``.

    Its arguments are the distribution's name, the text of ``entry_points.txt`` and the sources of
    its modules by module name. Modules and registry entries are forgotten after the test.
    """
    for registry in (AMPLIFIERS, ENTROPY_SOURCES, TEMPERATURE_STRATEGIES):
        monkeypatch.setattr(registry, "_loaded", {})
    modules_before = set(sys.modules)

    def install(
        name: str,
        entry_points: str,
        modules: dict[str, str] | None = None,
        *,
        version: str = "1.0",
        metadata: str | None = None,
    ) -> None:
        site = tmp_path / f"site-{name}-{version}"
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        if metadata is None:
            metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        if metadata:
            (info / "METADATA").write_text(metadata, "utf-8")
        (info / "entry_points.txt").write_text(textwrap.dedent(entry_points), "utf-8")
        for module, source in (modules or {}).items():
            (site / f"{module}.py").write_text(textwrap.dedent(source), "utf-8")
        monkeypatch.syspath_prepend(str(site))

    yield install
    for module in set(sys.modules) - modules_before:
        if str(tmp_path) in (getattr(sys.modules[module], "__file__", None) or ""):
            del sys.modules[module]
