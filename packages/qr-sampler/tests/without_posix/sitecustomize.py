# SPDX-License-Identifier: Apache-2.0
"""Shows our packages this system as if it were Windows, as far as Python is concerned.

A folder on PYTHONPATH with a module of this name is enough: Python loads it when it starts, and so
do the processes that it starts. The standard library and the packages of others see everything:
they have code of their own for Windows, which cannot run here.

What is hidden is what Python's documentation calls available on Unix only.
"""

from __future__ import annotations

import builtins
import os
import select
import signal
import socket
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any


def words(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


OURS = ("qr_sampler", "qr_entropy", "__main__")
"""What the names of our packages begin with; ``__main__`` for commands and scripts."""

MODULES = words(
    "crypt fcntl grp nis ossaudiodev posix pty pwd readline resource spwd syslog termios tty"
)

HIDDEN = {
    os: words(
        "O_ASYNC O_CLOEXEC O_DIRECTORY O_DSYNC O_NDELAY O_NOATIME O_NOCTTY O_NOFOLLOW O_NONBLOCK",
        "O_PATH O_SYNC O_TMPFILE P_NOWAITO PRIO_PROCESS SEEK_DATA SEEK_HOLE WNOHANG",
        "chown chroot ctermid fchdir fchmod fchown fdatasync fork forkpty fpathconf fstatvfs",
        "get_blocking getegid geteuid getgid getgroups getloadavg getpgid getpgrp getpriority",
        "getresuid getuid",
        "initgroups killpg lchown lockf major makedev minor mkfifo mknod nice openpty pathconf",
        "pidfd_open pipe2 posix_fadvise posix_fallocate posix_spawn posix_spawnp pread preadv",
        "pwrite pwritev readv register_at_fork sched_getaffinity sched_setaffinity sched_yield",
        "sendfile set_blocking setegid seteuid setgid setgroups setpgid setpriority setsid setuid",
        "statvfs sync",
        "sysconf tcgetpgrp tcsetpgrp ttyname uname wait wait3 wait4 waitid writev",
    ),
    select: words(
        "PIPE_BUF POLLERR POLLHUP POLLIN POLLNVAL POLLOUT POLLPRI POLLRDHUP",
        "devpoll epoll kqueue poll",
    ),
    signal: words(
        "SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2",
        "alarm getitimer pause pthread_kill pthread_sigmask setitimer siginterrupt sigpending",
        "sigtimedwait sigwait sigwaitinfo",
    ),
    socket: words(
        "AF_UNIX CMSG_LEN CMSG_SPACE MSG_DONTWAIT MSG_NOSIGNAL SCM_RIGHTS SO_PASSCRED",
        "SO_PEERCRED SO_REUSEPORT recv_fds send_fds",
    ),
    time: words(
        "CLOCK_BOOTTIME CLOCK_MONOTONIC CLOCK_MONOTONIC_RAW clock_getres clock_gettime",
        "clock_gettime_ns pthread_getcpuclockid tzset",
    ),
    sys: frozenset(),
}
"""What modules have that are there on Windows, too, and have not there."""

INSTEAD = {(os, "name"): "nt", (os, "O_BINARY"): 0, (sys, "platform"): "win32"}
"""What they have there instead."""

caller = sys._getframe
import_anything = builtins.__import__
open_anything = os.open
Process = subprocess.Popen


def is_ours(variables: dict[str, Any] | None) -> bool:
    """Whether code with these global variables belongs to our packages."""
    return str((variables or {}).get("__name__", "")).startswith(OURS)


class OnWindows(types.ModuleType):
    """A module as our code would see it there."""

    def __new__(cls, *arguments: Any, **options: Any) -> Any:
        # Python makes modules of the type that `sys` has.
        return types.ModuleType(*arguments, **options)

    def __getattribute__(self, name: str) -> Any:
        if is_ours(caller(1).f_globals):
            if (self, name) in INSTEAD:
                return INSTEAD[self, name]
            if name in HIDDEN[self]:
                raise AttributeError(f"module has no attribute {name!r} on Windows")
        return super().__getattribute__(name)


def import_on_windows(name: str, *where: Any, **options: Any) -> Any:
    variables = where[0] if where else options.get("globals")
    if name in MODULES and is_ours(variables):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    if name == "msvcrt" and is_ours(variables):
        return locks_of_windows()
    return import_anything(name, *where, **options)


def locks_of_windows() -> Any:
    """Returns what ``msvcrt`` offers for locks, by those of this system.

    It is not on the path: the standard library would take this for Windows.
    """
    fcntl = import_anything("fcntl")
    module: Any = types.ModuleType("msvcrt")
    module.LK_NBLCK, module.LK_UNLCK = 2, 0

    def locking(descriptor: int, mode: int, _count: int) -> None:
        operation = fcntl.LOCK_EX | fcntl.LOCK_NB if mode == module.LK_NBLCK else fcntl.LOCK_UN
        try:
            fcntl.flock(descriptor, operation)
        except BlockingIOError:
            raise PermissionError(13, "Permission denied") from None

    module.locking = locking
    return module


def open_on_windows(path: Any, flags: int, *rest: Any, **options: Any) -> int:
    if is_ours(caller(1).f_globals) and Path(os.fsdecode(path)).is_dir():
        raise PermissionError(13, "Permission denied", os.fsdecode(path))
    return open_anything(path, flags, *rest, **options)


class ProcessOnWindows(Process):  # type: ignore[type-arg]
    """Starts a process, and refuses what is refused there."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        if is_ours(caller(1).f_globals):
            if options.get("pass_fds"):
                raise AssertionError("pass_fds not supported on Windows.")
            if options.get("preexec_fn") is not None:
                raise ValueError("preexec_fn is not supported on Windows platforms")
        super().__init__(*arguments, **options)


builtins.__import__ = import_on_windows
os.open = open_on_windows
subprocess.Popen = ProcessOnWindows  # type: ignore[misc]
for module in HIDDEN:
    module.__class__ = OnWindows
