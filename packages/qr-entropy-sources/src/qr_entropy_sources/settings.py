# SPDX-License-Identifier: Apache-2.0
"""How the sources of this package read their configuration."""

from __future__ import annotations

from qr_sampler.settings.environment import EnvironmentSettings

__all__ = ["SourceSettings"]


class SourceSettings(EnvironmentSettings):
    """Base of the settings of one source; a subclass adds its ``env_prefix`` and its fields."""
