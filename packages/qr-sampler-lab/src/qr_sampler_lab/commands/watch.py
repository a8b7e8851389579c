# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler watch``: a ledger while it is being written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qr_sampler_cli.failures import reports_errors

__all__ = ["watch"]


@reports_errors
def watch(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A ledger, or a directory of ledgers.")
    ],
    model: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Directory of the model, whose tokenizer makes text."),
    ] = None,
    tau: Annotated[
        float,
        typer.Option(
            min=1e-6,
            max=100.0,
            help="Scale of the shifts that the e-process bets on, in standard deviations.",
        ),
    ] = 0.1,
    alpha: Annotated[
        float, typer.Option(min=1e-9, max=0.5, help="Error probability of the e-process.")
    ] = 0.05,
    once: Annotated[
        bool, typer.Option("--once", help="Print the present state and end, also into a pipe.")
    ] = False,
) -> None:
    """Follow a ledger: its text, shaded by u, and the evidence so far.

    z of all tokens stands beside the limit that holds for whoever looks all the time. Of ledgers
    that belong to a sealed plan only counts are shown. Ends on Ctrl-C.
    """
    from qr_sampler_lab.watch.following import Follower
    from qr_sampler_lab.watch.screen import follow, print_once
    from qr_sampler_lab.watch.state import WatchState
    from qr_sampler_lab.watch.tokens import as_numbers, decoder_of

    follower = Follower(path)
    decoder = as_numbers if model is None else decoder_of(model)
    state = WatchState(tau=tau, alpha=alpha)
    if once:
        print_once(follower, state, decoder)
    else:
        follow(follower, state, decoder)
