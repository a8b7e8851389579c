# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler anchor``: has others witness ledgers while they are written."""

from __future__ import annotations

import contextlib
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from qr_sampler_cli.failures import ExitCode, reports_errors
from qr_sampler_cli.terminal.signals import stop_signals

__all__ = ["anchor"]


@reports_errors
def anchor(
    ledgers: Annotated[
        list[Path],
        typer.Argument(metavar="LEDGER...", help="Ledgers, or directories of them."),
    ],
    tsa: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Authority that stamps times (RFC 3161), asked for every new head."
        ),
    ] = None,
    drand: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Server of the beacon drand, for example https://api.drand.sh; the ledger takes "
            "in its rounds.",
        ),
    ] = None,
    every: Annotated[
        float, typer.Option(metavar="SECONDS", help="Time between two rounds, at least 1.")
    ] = 60.0,
    once: Annotated[bool, typer.Option("--once", help="Do it once, and end.")] = False,
    deposit: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|GIT-REMOTE",
            help="Second place for anchors and finished ledgers: a directory, or a git repository "
            "that they are pushed to.",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Longest time for an answer.")
    ] = 10.0,
) -> None:
    """Have others witness ledgers while they are written, until Ctrl-C or SIGTERM.

    Anchors are files beside a ledger, in a directory that is named after it; `qr-sampler audit`
    verifies them without a network. A witness that cannot be reached is warned of once, and asked
    again the next time. With --once the exit status is 2 if one could not be reached.
    """
    from qr_sampler_lab.anchors.anchoring import Anchoring

    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    with contextlib.closing(
        Anchoring(ledgers, tsa=tsa, drand=drand, every_s=every, deposit=deposit, timeout_s=timeout)
    ) as anchoring:
        if once:
            if not anchoring.once():
                raise typer.Exit(ExitCode.ERROR)
        else:
            with stop_signals(anchoring.stop):
                anchoring.run()
        typer.echo(f"{anchoring.stamps} time stamps", err=True)
