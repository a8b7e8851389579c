# SPDX-License-Identifier: Apache-2.0
"""Rounds of the beacon drand quicknet, from its servers or from a file, each of them verified."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from qr_sampler_cli.audit.anchors.drand import (
    CHAIN,
    InvalidRoundError,
    Round,
    round_after,
    verify_round,
)
from qr_sampler_cli.audit.anchors.files import read_small
from qr_sampler_lab.anchors.fetching import AnchorError, Fetcher, without_secrets

__all__ = ["DRAND_URL", "Beacon", "Round", "latest_round", "round_after", "round_of"]

DRAND_URL: Final = "https://api.drand.sh"
"""One of the servers of the League of Entropy."""

_LARGEST: Final = 2**14


class Beacon:
    """The beacon, as a server tells of it.

    Args:
        fetcher: Asks the server.
        url: The server.

    Raises:
        ConfigError: When *url* is no address.
    """

    def __init__(self, fetcher: Fetcher, url: str = DRAND_URL) -> None:
        self._fetcher = fetcher
        self._url = fetcher.checked("--drand", url).rstrip("/")
        self._shown = without_secrets(self._url)

    def latest(self) -> Round:
        """Returns the latest round.

        Raises:
            AnchorError: When the server does not tell, or what it tells is not signed.
        """
        return self._round("latest")

    def at(self, number: int) -> Round:
        """Returns the round of this *number*.

        Raises:
            AnchorError: As :meth:`latest`, and when it is not due yet.
        """
        found = self._round(str(number))
        if found.round != number:
            raise AnchorError(f"{self._shown} tells of round {found.round} instead of {number}")
        return found

    def _round(self, which: str) -> Round:
        answer = self._fetcher.get(f"{self._url}/{CHAIN}/public/{which}")
        return _verified(answer, self._shown)


def latest_round(
    url: str = DRAND_URL, *, file: Path | None = None, timeout_s: float = 10.0
) -> Round:
    """Returns the latest round of the beacon, verified: nobody knew it before its time.

    Args:
        url: The server that is asked.
        file: Holds a round as a server answers it; then no server is asked.
        timeout_s: Longest time for the answer, in seconds.

    Raises:
        AnchorError: When there is none, or it is not signed by the beacon.
        ConfigError: When *url* is no address.
        MissingPackageError: When the extra ``anchors`` is missing.
    """
    if file is not None:
        try:
            return _verified(read_small(file, _LARGEST), str(file))
        except OSError as error:
            raise AnchorError(f"{file} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise AnchorError(f"{file}: {error}") from error
    with closing(Fetcher(timeout_s)) as fetcher:
        return Beacon(fetcher, url).latest()


def round_of(number: int, url: str = DRAND_URL, *, timeout_s: float = 10.0) -> Round:
    """Returns the round of this *number*, verified.

    Args:
        number: Its number; :func:`round_after` tells that of a time.
        url: The server that is asked.
        timeout_s: Longest time for the answer, in seconds.

    Raises:
        AnchorError: As :func:`latest_round`, and when it is not due yet.
        ConfigError: When *url* is no address.
        MissingPackageError: When the extra ``anchors`` is missing.
    """
    with closing(Fetcher(timeout_s)) as fetcher:
        return Beacon(fetcher, url).at(number)


def _verified(answer: bytes, where: str) -> Round:
    try:
        told: Any = json.loads(answer)
        found = Round.of(told if isinstance(told, dict) else {})
        verify_round(found)
    except InvalidRoundError as error:
        raise AnchorError(f"{where} tells of no round of the beacon: {error}") from error
    except (ValueError, RecursionError) as error:
        raise AnchorError(f"{where} does not answer with JSON") from error
    return found
