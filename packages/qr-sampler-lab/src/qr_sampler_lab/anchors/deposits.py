# SPDX-License-Identifier: Apache-2.0
"""Second places for heads and finished files: what is lost or changed here is missed there."""

from __future__ import annotations

import os
import shutil
import subprocess  # nosec B404 - git, without a shell
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol

from qr_sampler.errors import ConfigError
from qr_sampler_cli.audit.anchors.files import folder_of
from qr_sampler_lab.anchors.fetching import AnchorError, without_secrets
from qr_sampler_lab.anchors.files import BEACON_FILE

__all__ = ["Deposit", "DirectoryDeposit", "GitDeposit", "deposit_at"]

_GIT_TIMEOUT_S: Final = 120.0
_BRANCH: Final = "main"


class Deposit(Protocol):
    """A second place."""

    def keep(self, ledger: Path, *, finished: bool) -> None:
        """Copies the anchors of *ledger*, and the ledger itself once it is *finished*.

        Never its sidecars: prompts are nobody else's business.

        Raises:
            OSError: When the place refuses.
        """

    def settle(self) -> None:
        """Makes sure that the place has what was copied.

        Raises:
            AnchorError: When it does not.
        """

    def close(self) -> None:
        """Removes what was only needed for copying."""


class DirectoryDeposit:
    """A directory, on another disk or another machine.

    Args:
        folder: Where it is; made when missing.

    Raises:
        ConfigError: When it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: set[str] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--deposit={folder}: {error.strerror}") from error

    def keep(self, ledger: Path, *, finished: bool) -> None:
        """Copies what is not there yet; nothing that is there is changed."""
        anchors = folder_of(ledger)
        for path in _anchors_in(anchors):
            self._copy(path, self._folder / anchors.name / path.name)
        if finished:
            self._copy(ledger, self._folder / ledger.name)

    def settle(self) -> None:
        """Does nothing: every file is whole when it is there."""

    def close(self) -> None:
        """Does nothing."""

    def _copy(self, source: Path, target: Path) -> None:
        name = f"{target.parent.name}/{target.name}"
        if name in self._kept:
            return
        if not target.exists():
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _copy_whole(source, target)
        self._kept.add(name)


class GitDeposit:
    """A branch of a git repository: its history shows what was there, and since when.

    Args:
        remote: Address of the repository. Credentials are those that git finds.

    Raises:
        ConfigError: When git is missing.
    """

    def __init__(self, remote: str) -> None:
        self._remote, self._shown = remote, without_secrets(remote)
        program = shutil.which("git")
        if program is None:
            raise ConfigError(f"--deposit={self._shown} needs git, which is not installed")
        self._git_program = program
        self._folder = Path(tempfile.mkdtemp(prefix="qr-sampler-deposit-"))
        self._ready = False
        self._copies = DirectoryDeposit(self._folder)

    def keep(self, ledger: Path, *, finished: bool) -> None:
        """Copies what is not in the working copy yet."""
        self._copies.keep(ledger, finished=finished)

    def settle(self) -> None:
        """Commits what is new, and pushes it.

        Raises:
            AnchorError: When git cannot; everything is tried again the next time.
        """
        if not self._ready:
            self._git("init", "--quiet", f"--initial-branch={_BRANCH}")
            self._ready = True
        self._git("add", "--all")
        if self._git("status", "--porcelain"):
            self._git(
                *("-c", "user.name=qr-sampler", "-c", "user.email=anchors@localhost"),
                *("-c", "commit.gpgsign=false"),
                *("commit", "--quiet", "--message=Anchors of ledgers"),
            )
        self._follow()
        self._git("push", "--quiet", "--", self._remote, f"HEAD:refs/heads/{_BRANCH}")

    def close(self) -> None:
        """Removes the working copy."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _follow(self) -> None:
        """Puts what is to be pushed behind what others have pushed."""
        if not self._git("ls-remote", "--", self._remote, f"refs/heads/{_BRANCH}"):
            return
        self._git("fetch", "--quiet", "--", self._remote, f"refs/heads/{_BRANCH}")
        self._git(
            *("-c", "user.name=qr-sampler", "-c", "user.email=anchors@localhost"),
            *("rebase", "--quiet", "FETCH_HEAD"),
        )

    def _git(self, *arguments: str) -> str:
        environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        try:
            done = subprocess.run(  # nosec B603 - our own arguments, and a remote behind "--"
                [self._git_program, "-C", str(self._folder), *arguments],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_GIT_TIMEOUT_S,
                env=environment,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            # Its text has the arguments.
            what = error.strerror if isinstance(error, OSError) else "git takes too long"
            raise AnchorError(f"the deposit {self._shown}: {what}") from error
        if done.returncode:
            words = without_secrets(" ".join(done.stderr.split()))[:300]
            raise AnchorError(f"the deposit {self._shown}: git says: {words}")
        return done.stdout


def deposit_at(place: str) -> Deposit:
    """Returns the deposit at *place*: a directory, or the address of a git repository.

    An address has a scheme, ends in ``.git``, is of the form ``user@host:path``, or is the
    directory of a bare repository.

    Raises:
        ConfigError: When there can be none.
    """
    path = Path(place)
    is_bare = (path / "HEAD").is_file() and (path / "objects").is_dir()
    is_remote = "://" in place or place.endswith(".git") or ("@" in place and ":" in place)
    if is_bare or (is_remote and not path.is_dir()):
        return GitDeposit(str(path.resolve()) if is_bare else place)
    return DirectoryDeposit(path)


def _anchors_in(folder: Path) -> Iterable[Path]:
    for path in sorted(folder.glob("*")):
        if path.suffix in {".json", ".tsr"} and path.name != BEACON_FILE:
            yield path


def _copy_whole(source: Path, target: Path) -> None:
    """Copies a file, which its owner alone may read: a ledger has token ids."""
    part = target.with_name(f".{target.name}.part")
    try:
        part.touch(0o600)
        part.chmod(0o600)
        shutil.copyfile(source, part)
        with part.open("r+b") as copy:
            os.fsync(copy.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
