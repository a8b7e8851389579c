# SPDX-License-Identifier: Apache-2.0
"""The sources are found by name through their entry points, and imported no earlier than used."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

import qr_entropy_sources
from qr_sampler import ENTROPY_SOURCES, EntropySource, create_source

NAMES = ("device_file", "jitterentropy", "mock_uniform", "prng", "sham", "system", "timing_noise")


def test_all_sources_are_listed() -> None:
    assert set(NAMES) <= set(ENTROPY_SOURCES.names())


@pytest.mark.parametrize("name", NAMES)
def test_source_goes_by_its_entry_point(name: str) -> None:
    source = create_source(name)
    assert isinstance(source, EntropySource)
    assert source.name == name
    assert source.origin.distribution == "qr-entropy-sources"
    assert source.origin.version == version("qr-entropy-sources")


def test_listing_imports_nothing() -> None:
    code = (
        "import sys; from qr_sampler import ENTROPY_SOURCES as registry\n"
        "assert 'system' in registry.names()\n"
        "registry.find('system')\n"
        "assert not [name for name in sys.modules if name.startswith('qr_entropy_sources')]\n"
        "registry.load('system')\n"
        "assert 'qr_entropy_sources.system' in sys.modules\n"
        "assert 'qr_entropy_sources.device_file' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_version_is_that_of_the_distribution() -> None:
    assert qr_entropy_sources.__version__ == version("qr-entropy-sources")
