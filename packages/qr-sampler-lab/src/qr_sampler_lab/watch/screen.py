# SPDX-License-Identifier: Apache-2.0
"""The screen that follows a ledger until it is interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from rich.live import Live

from qr_sampler_cli.terminal.consoles import result_console
from qr_sampler_lab.tables.errors import TablesError
from qr_sampler_lab.watch.display import rendered
from qr_sampler_lab.watch.following import Follower
from qr_sampler_lab.watch.state import WatchState
from qr_sampler_lab.watch.tokens import Decoder

__all__ = ["follow", "print_once"]

PAUSE_S: Final = 0.25
"""Seconds between two looks at files that have no more to read."""


def print_once(follower: Follower, state: WatchState, decoder: Decoder) -> None:
    """Prints what is known of files as they are now."""
    _look(follower, state)
    while follower.has_more:
        _look(follower, state)
    result_console().print(rendered(follower, state, decoder))


def follow(
    follower: Follower,
    state: WatchState,
    decoder: Decoder,
    *,
    wait: Callable[[float], object] = time.sleep,
) -> None:
    """Shows what is known of files as they grow, until it is interrupted.

    Args:
        follower: The files.
        state: What is known of them.
        decoder: Makes text of token ids.
        wait: Called with the seconds until the next look.

    Raises:
        TablesError: When standard output is no terminal.
    """
    console = result_console()
    if not console.is_terminal:
        raise TablesError("standard output is no terminal; use --once to print the present state")
    try:
        with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                _look(follower, state)
                live.update(rendered(follower, state, decoder), refresh=True)
                if not follower.has_more:
                    wait(PAUSE_S)
    except KeyboardInterrupt:
        # How it is meant to end: the terminal is as it was, with the last state on it.
        return


def _look(follower: Follower, state: WatchState) -> None:
    for file, record in follower.look():
        state.take(record, file.path)
    state.settle()
