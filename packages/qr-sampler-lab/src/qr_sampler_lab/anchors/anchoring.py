# SPDX-License-Identifier: Apache-2.0
"""Follows ledgers while they are written, and has their heads stamped, now and then."""

from __future__ import annotations

import glob
import logging
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from qr_sampler.errors import ConfigError, QRSamplerError
from qr_sampler.records.files.names import ledgers_in
from qr_sampler.stop_request import StopRequest
from qr_sampler_lab.anchors.deposits import deposit_at
from qr_sampler_lab.anchors.drand import Beacon
from qr_sampler_lab.anchors.fetching import AnchorError, Fetcher
from qr_sampler_lab.anchors.files import write_beacon, write_stamp
from qr_sampler_lab.anchors.heads import GrowingFile, Head
from qr_sampler_lab.anchors.time_stamps import TimeStampAuthority

__all__ = ["Anchoring"]

_LOGGER: Final = logging.getLogger("qr_sampler_lab.anchors")
_ENDING_S: Final = 60.0
_TIME_STAMPS: Final = "the time stamps"


@dataclass(slots=True)
class _Followed:
    """A ledger that is followed."""

    file: GrowingFile
    stamped: str = ""
    """Head that was stamped last."""
    closed: bool = False
    """Whether it was ended in order."""


class Anchoring:
    """Has heads of ledgers stamped, keeps copies elsewhere, and tells their writers of a beacon.

    A witness that cannot be reached is warned of once, until it answers again; nothing stops.
    As a context manager it works in a thread of its own, until the end of the block, where it does
    everything once more.

    Args:
        paths: Ledgers, or directories of them; files that are added to a directory, or that
            continue a ledger under the next number, are followed, too.
        tsa: Address of an authority that stamps times (RFC 3161); ``None`` asks none.
        drand: Address of a server of drand; ``None`` asks none.
        every_s: Time between two rounds in seconds, at least 1.
        deposit: Directory or git repository that keeps heads and finished files; ``None`` for none.
        timeout_s: Longest time for one answer, in seconds.

    Raises:
        ConfigError: When an argument makes no sense.
        MissingPackageError: When the extra ``anchors`` is missing.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        tsa: str | None = None,
        drand: str | None = None,
        every_s: float = 60.0,
        deposit: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        if not every_s >= 1.0:
            raise ConfigError(f"--every={every_s:g} s; ask witnesses once a second at most")
        if not paths:
            raise ConfigError("there is nothing to anchor: name ledgers, or a directory of them")
        if tsa is None and drand is None and deposit is None:
            raise ConfigError("nobody is named who could witness: give --tsa, --drand or --deposit")
        self._paths = tuple(paths)
        self._every_s = every_s
        self._followed: dict[Path, _Followed] = {}
        self._troubles: set[str] = set()
        self._told: set[str] = set()
        self.stamps = 0
        """Number of time stamps so far."""
        self._over = StopRequest()
        self._thread = threading.Thread(target=self.run, name="qr-anchors", daemon=True)
        self._open = ExitStack()
        fetcher = Fetcher(timeout_s)
        self._open.callback(fetcher.close)
        self._authority = None if tsa is None else TimeStampAuthority(fetcher, tsa)
        self._beacon = None if drand is None else Beacon(fetcher, drand)
        self._deposit = None if deposit is None else deposit_at(deposit)
        if self._deposit is not None:
            self._open.callback(self._deposit.close)

    def once(self) -> bool:
        """Does everything once, for all ledgers; returns whether nothing went wrong."""
        self._find()
        self._troubles = set()
        for path, followed in self._followed.items():
            self._anchor(path, followed)
        self._tell_beacon()
        self._settle()
        for what in sorted(self._told - self._troubles):
            _LOGGER.warning("%s: works again", what)
        self._told = self._troubles
        return not self._troubles

    def run(self) -> None:
        """Does everything now and then, until :meth:`stop` is called, and then once more."""
        while not self._over.is_set():
            self.once()
            self._over.wait(self._every_s)
        self.once()

    def stop(self) -> None:
        """Has :meth:`run` end; waits for nothing, and may be called by a signal."""
        self._over.set()

    def close(self) -> None:
        """Releases connections and working copies."""
        self._open.close()

    def __enter__(self) -> Anchoring:
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._thread.join(_ENDING_S)
        self.close()

    def _find(self) -> None:
        """Looks for ledgers that are new."""
        for path in self._paths:
            found = ledgers_in(path) if path.is_dir() else [path, *_continued(path)]
            for each in found:
                self._followed.setdefault(each, _Followed(GrowingFile(each)))

    def _tell_beacon(self) -> None:
        if self._beacon is None:
            return
        try:
            latest = self._beacon.latest()
            for path, followed in self._followed.items():
                if not followed.closed and path.exists():
                    write_beacon(path, latest)
        except (QRSamplerError, OSError) as error:
            self._warn("the beacon", error)

    def _anchor(self, path: Path, followed: _Followed) -> None:
        try:
            head = followed.file.head()
        except (OSError, ValueError) as error:
            self._warn(f"the ledger {path}", error)
            return
        if head is None:
            return
        followed.closed = head.closes
        if head.digest != followed.stamped:
            self._stamp(path, followed, head)
        if self._deposit is not None:
            try:
                self._deposit.keep(path, finished=head.closes)
            except OSError as error:
                self._warn("the deposit", error)

    def _stamp(self, path: Path, followed: _Followed, head: Head) -> None:
        authority = self._authority
        # One that has just not answered is not asked for the other ledgers.
        if authority is None or _TIME_STAMPS in self._troubles:
            return
        try:
            token = authority.stamp(head.line)
        except AnchorError as error:
            self._warn(_TIME_STAMPS, error)
            return
        try:
            write_stamp(path, head, token, authority.url)
        except OSError as error:
            self._warn(f"the anchors of {path}", error)
            return
        followed.stamped = head.digest
        self.stamps += 1
        _LOGGER.info("line n %d of %s is stamped", head.n, path)

    def _settle(self) -> None:
        if self._deposit is None:
            return
        try:
            self._deposit.settle()
        except (AnchorError, OSError) as error:
            self._warn("the deposit", error)

    def _warn(self, what: str, error: Exception) -> None:
        """Warns of a trouble, once until it is over."""
        if what not in self._told and what not in self._troubles:
            _LOGGER.warning("%s: no outside witness for now: %s", what, error)
        self._troubles.add(what)


def _continued(path: Path) -> list[Path]:
    """Returns the files that continue a ledger, as they are named."""
    following = path.parent.glob(f"{glob.escape(path.stem)}_[0-9]*{path.suffix}")
    return sorted(each for each in following if each.stem.rpartition("_")[2].isdigit())
