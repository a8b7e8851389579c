# SPDX-License-Identifier: Apache-2.0
"""Rounds of drand as the files of a study hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qr_sampler_lab.anchors.drand import latest_round, round_of

__all__ = ["fetched_round"]


def fetched_round(number: int | None, file: Path | None = None) -> dict[str, Any]:
    """Returns a genuine round: ``round``, ``signature`` and ``randomness``.

    Args:
        number: Its number, ``None`` for the latest.
        file: JSON of a round, as drand answers; without one it is asked for over the network.

    Raises:
        MissingPackageError: When the extra ``anchors`` is not installed.
        AnchorError: When there is no network, or the round is not genuine.
    """
    if file is not None:
        found = latest_round(file=file)
    else:
        found = latest_round() if number is None else round_of(number)
    return {"round": found.round, "signature": found.signature, "randomness": found.randomness}
