# SPDX-License-Identifier: Apache-2.0
"""Writes marks into the journal of a study, from several threads and not too often."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final

from qr_sampler.errors import ConfigError
from qr_sampler_lab.experiments.files.chained_record import Entry
from qr_sampler_lab.experiments.files.errors import RecordError, StudyError
from qr_sampler_lab.experiments.files.journal import Journal
from qr_sampler_lab.experiments.marking.bounds import RateLimit
from qr_sampler_lab.experiments.marking.requests import RefusedError

__all__ = ["MARKS_PER_SECOND", "MarkWriter"]

MARKS_PER_SECOND: Final = 10
"""Most marks within any second."""

_WAIT_S: Final = 5.0
_BUSY: Final = "The journal is busy. It is not marked; try again."


class MarkWriter:
    """Appends marks to a journal as ``qr-sampler experiment mark`` does.

    Args:
        path: The journal of a study.
        rate: How often.
        tell: Takes a line about each mark, and about each that the journal did not take.
        wait_s: Longest wait for others that append: threads of this object, and processes.
    """

    def __init__(
        self,
        path: Path,
        *,
        rate: RateLimit | None = None,
        tell: Callable[[str], object] = lambda line: None,
        wait_s: float = _WAIT_S,
    ) -> None:
        self._journal = Journal(path, timeout_s=wait_s)
        self._rate = rate or RateLimit(MARKS_PER_SECOND)
        self._tell = tell
        self._wait_s = wait_s
        self._lock = threading.Lock()

    def write(self, text: str, sender: str) -> Entry:
        """Returns the line of a mark, which is then on the disk.

        Args:
            text: The mark.
            sender: Who sent it, for the operator.

        Raises:
            RefusedError: When it is no text, comes too soon after others, the study is over, or the
                journal does not take it. Names neither files nor what the journal holds.
        """
        if not self._rate.admits():
            raise RefusedError(
                HTTPStatus.TOO_MANY_REQUESTS, f"{MARKS_PER_SECOND} marks a second are the most."
            )
        if not self._lock.acquire(timeout=self._wait_s):
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, _BUSY)
        try:
            entry = self._journal.mark(text, while_open=True)
        except ConfigError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"{error}.") from error
        except StudyError as error:
            self._tell(f"{sender}: {error}")
            raise RefusedError(HTTPStatus.CONFLICT, f"{error}.") from error
        except RecordError as error:
            self._tell(f"{sender}: {error}")
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "The journal did not take it; the operator has been told why.",
            ) from error
        finally:
            self._lock.release()
        self._tell(f"{sender}: mark {entry.n}, head {entry.head}")
        return entry
