# SPDX-License-Identifier: Apache-2.0
"""Rounds of drand, which studies need the extra ``anchors`` for."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from qr_sampler_cli.failures import import_package

__all__ = ["fetched_round", "round_after"]


def round_after(time_ns: int) -> int:
    """Returns the first round of drand's quicknet after a time.

    Args:
        time_ns: Nanoseconds since the epoch.

    Raises:
        MissingPackageError: When the extra is not installed.
    """
    return int(_drand().round_after(time_ns))


def fetched_round(number: int | None, file: Path | None = None) -> dict[str, Any]:
    """Returns a genuine round: ``round``, ``signature`` and ``randomness``.

    Args:
        number: Its number, ``None`` for the latest.
        file: JSON of the round, as drand answers; without one it is asked for over the network.

    Raises:
        MissingPackageError: When the extra is not installed.
        AnchorError: When there is no network, or the round is not genuine.
    """
    drand = _drand()
    if file is not None:
        beacon = drand.latest_round(file=file)
    else:
        beacon = drand.latest_round() if number is None else drand.round_of(number)
    return {
        "round": beacon.round,
        "signature": beacon.signature,
        "randomness": beacon.randomness,
    }


def _drand() -> ModuleType:
    return import_package(
        "qr_sampler_lab.anchors.drand",
        needed_for="a round of drand",
        remedy="install qr-sampler-lab[anchors]",
    )
