# SPDX-License-Identifier: Apache-2.0
"""What the commands of ``qr-sampler tsd`` work with: the package, its units, its uniforms."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from qr_sampler import create_source
from qr_sampler_cli.failures import import_package
from qr_sampler_cli.remedies import from_clone

if TYPE_CHECKING:
    from qr_sampler_tsd import UniformSource
    from qr_sampler_tsd.tsu import TSUAdapter

__all__ = ["GATE_SAMPLES", "GATE_SEED", "import_tsd", "sampling_unit", "uniforms"]

REMEDY: Final = "install it " + from_clone("qr-sampler-tsd")

GATE_SAMPLES: Final = 200_000
"""Draws per golden payload: they find a best token that comes 1 % too often."""

GATE_SEED: Final = 20_000
"""Seed of the uniforms of the gate that precedes a run."""


def import_tsd(module: str) -> Any:
    """Returns a module of qr-sampler-tsd.

    Raises:
        MissingPackageError: When the package is not installed.
    """
    # The package first: a module that is missing from an installed one is another fault.
    _import("qr_sampler_tsd")
    return _import(f"qr_sampler_tsd.{module}")


def _import(name: str) -> ModuleType:
    return import_package(name, needed_for="tsd", remedy=REMEDY)


def sampling_unit(spec: str) -> TSUAdapter:
    """Returns a sampling unit by its name on the command line, which engines know it by, too.

    Raises:
        MissingPackageError: When qr-sampler-tsd is not installed.
        QRSamplerError: When there is no such unit, or it needs an extra that is not installed.
    """
    unit: TSUAdapter = import_tsd("tsu").named_unit(spec)
    return unit


@contextlib.contextmanager
def uniforms(source: str | None, seed: int) -> Iterator[tuple[UniformSource, str]]:
    """Yields uniforms and their name in events.

    Args:
        source: Name of an entropy source, ``None`` for PCG64.
        seed: Of PCG64.

    Raises:
        PluginError: When the source is unknown, contested or broken.
    """
    tsd = _import("qr_sampler_tsd")
    if source is None:
        yield tsd.SeededUniforms(seed), "pcg64"
        return
    with contextlib.closing(create_source(source)) as opened:
        yield tsd.EntropyUniforms(opened), source
