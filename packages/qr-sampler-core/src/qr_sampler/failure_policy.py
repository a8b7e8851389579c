# SPDX-License-Identifier: Apache-2.0
"""What happens when the configured source cannot deliver."""

from __future__ import annotations

from typing import Final

from qr_sampler.entropy.fallback import FallbackEntropySource
from qr_sampler.entropy.source import EntropySource
from qr_sampler.registry import create_source
from qr_sampler.settings import Settings

__all__ = ["RAISE_ERROR", "configured_source"]

RAISE_ERROR: Final = "error"
"""The ``fallback_mode`` that raises instead of falling back."""


def configured_source(settings: Settings) -> EntropySource:
    """Returns the source of a deployment, wrapped in the fallback that its settings name.

    A fallback to the configured source itself would be no fallback, so such a pair is the bare
    source.

    Raises:
        PluginError: When either source is unknown, contested or broken.
        ConfigError: When a setting of either source is malformed.
    """
    primary = create_source(settings.entropy_source_type)
    if settings.fallback_mode in (RAISE_ERROR, settings.entropy_source_type):
        return primary
    return FallbackEntropySource(primary, create_source(settings.fallback_mode))
