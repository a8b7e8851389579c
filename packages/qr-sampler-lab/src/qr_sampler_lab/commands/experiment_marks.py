# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler experiment marks``: takes marks over HTTP."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Annotated, Final

import typer

from qr_sampler.stop_request import StopRequest
from qr_sampler_cli.failures import reports_errors
from qr_sampler_cli.terminal.consoles import printable
from qr_sampler_cli.terminal.signals import stop_signals
from qr_sampler_lab.commands.studies import HERE, StudyOption, study_at

__all__ = ["marking"]

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO

marking = typer.Typer()
"""The command, to be merged into the group."""


@marking.command()
@reports_errors
def marks(
    study: StudyOption = HERE,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where; port 0 takes a free one.")
    ] = "127.0.0.1:8765",
    key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A key of one line that every mark must carry."),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Encrypts all connections.")
    ] = None,
    private_key: Annotated[Path | None, typer.Option(metavar="PEM", help="Its key.")] = None,
    button: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="A mark to be made by a touch; repeatable."),
    ] = None,
) -> None:
    """Take marks over HTTP, from a page with buttons or a program, until Ctrl-C or SIGTERM.

    They are lines of the journal like those of 'mark', as long as the study is open. Other
    machines are served only with a certificate and a key.
    """
    from qr_sampler_lab.experiments.marking.key import MarkKey
    from qr_sampler_lab.experiments.marking.page import page_with
    from qr_sampler_lab.experiments.marking.place import Place, tls_context
    from qr_sampler_lab.experiments.marking.server import MarkServer, serving
    from qr_sampler_lab.experiments.marking.writer import MarkWriter

    opened = study_at(study)
    name = opened.sealed.seal.name
    key = None if key_file is None else MarkKey.read(key_file)
    server = MarkServer(
        Place.parse(listen),
        MarkWriter(opened.journal.path, tell=lambda line: typer.echo(printable(line), err=True)),
        page_with(button or [], with_key=key is not None),
        key=key,
        tls=tls_context(certificate, private_key),
    )
    for path in filter(None, (key_file, private_key)):
        if os.name != "nt" and path.stat().st_mode & _OTHERS:
            typer.echo(f"warning: others can read or change {path}; chmod 600 {path}", err=True)
    stop = StopRequest()
    with stop_signals(stop.set), serving(server):
        typer.echo(f"{name}: marks are taken at {server.url}")
        # An endless wait cannot be interrupted on every platform.
        while not stop.wait(1.0):
            pass
