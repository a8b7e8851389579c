# SPDX-License-Identifier: Apache-2.0
"""Options that say what chooses the tokens, the same for every command that generates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from qr_sampler.admission.overrides import KEY_PREFIX
from qr_sampler.errors import ConfigError
from qr_sampler_cli.parsing.assignments import pairs

__all__ = ["SamplingOptions", "with_assignments"]

SAMPLING: Final = "Sampling (the deployment's QR_* settings apply where nothing is given)"
ENTROPY: Final = "Entropy"


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOptions:
    """Source, temperature and filters, as far as they were given; see :func:`with_options`."""

    source: Annotated[
        str | None,
        typer.Option(
            help="Entropy source, see 'qr-sampler sources'; sets QR_ENTROPY_SOURCE_TYPE.",
            rich_help_panel=ENTROPY,
        ),
    ] = None
    """Name of the entropy source."""
    fallback: Annotated[
        str | None,
        typer.Option(
            help="Source that takes over while it is unavailable, or 'error'; sets "
            "QR_FALLBACK_MODE.",
            rich_help_panel=ENTROPY,
        ),
    ] = None
    """What takes over while it is unavailable."""
    require_primary: Annotated[
        bool,
        typer.Option(
            "--require-primary",
            help="Exit with status 3 if any token came from another source.",
            rich_help_panel=ENTROPY,
        ),
    ] = False
    """Whether tokens from any other source are a failure."""
    temperature: Annotated[
        float | None,
        typer.Option(help="Temperature of the 'fixed' strategy.", rich_help_panel=SAMPLING),
    ] = None
    """Temperature of the strategy ``fixed``."""
    top_k: Annotated[
        int | None,
        typer.Option(help="Keep the k most probable tokens.", rich_help_panel=SAMPLING),
    ] = None
    """How many tokens are kept."""
    top_p: Annotated[
        float | None,
        typer.Option(help="Keep this much probability.", rich_help_panel=SAMPLING),
    ] = None
    """How much probability is kept."""
    min_p: Annotated[
        float | None,
        typer.Option(
            help="Keep tokens this probable, relative to the most probable one.",
            rich_help_panel=SAMPLING,
        ),
    ] = None
    """How probable tokens must be, relative to the most probable one."""
    strategy: Annotated[
        str | None,
        typer.Option(help="Temperature strategy, such as 'edt'.", rich_help_panel=SAMPLING),
    ] = None
    """Name of the temperature strategy."""
    amplifier: Annotated[
        str | None, typer.Option(help="Signal amplifier.", rich_help_panel=SAMPLING)
    ] = None
    """Name of the amplifier."""
    sample_count: Annotated[
        int | None, typer.Option(help="Bytes drawn per token.", rich_help_panel=SAMPLING)
    ] = None
    """Bytes per token."""
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="QR_KEY=VALUE",
            help="Any per-request option, such as qr_edt_exponent=0.7; repeatable.",
            rich_help_panel=SAMPLING,
        ),
    ] = None
    """Further options of a request, each as ``qr_KEY=VALUE``."""

    def variables(self) -> dict[str, str]:
        """Returns the environment variables of the deployment that were given."""
        named = {"QR_ENTROPY_SOURCE_TYPE": self.source, "QR_FALLBACK_MODE": self.fallback}
        return {name: value for name, value in named.items() if value is not None}

    def options(self) -> dict[str, str]:
        """Returns the ``qr_*`` options of a request; values stay text, which the core checks.

        Raises:
            ConfigError: When a key is given twice, or is none.
        """
        named = {
            "fixed_temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "temperature_strategy": self.strategy,
            "signal_amplifier_type": self.amplifier,
            "sample_count": self.sample_count,
        }
        options = {
            KEY_PREFIX + name: str(value) for name, value in named.items() if value is not None
        }
        return with_assignments(options, self.assignments or [])


def with_assignments(
    options: Mapping[str, str], assignments: Iterable[str], origin: str = "--set"
) -> dict[str, str]:
    """Returns *options* with those that are assigned.

    Args:
        options: The ``qr_*`` options so far.
        assignments: Each as ``qr_KEY=VALUE``.
        origin: Where they were given, for the error.

    Raises:
        ConfigError: When a key is given twice, or is none.
    """
    every = dict(options)
    for key, value in pairs(assignments, origin):
        if not key.startswith(KEY_PREFIX):
            raise ConfigError(f"{origin} {key}={value}: keys begin with {KEY_PREFIX!r}")
        if key in every:
            raise ConfigError(f"{origin} {key}={value}: {key} is already set to {every[key]!r}")
        every[key] = value
    return every
