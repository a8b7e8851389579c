# SPDX-License-Identifier: Apache-2.0
"""The ``qr-sampler`` command: one module per subcommand, heavy imports inside them."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from qr_sampler_cli.chat.command import chat
from qr_sampler_cli.commands.audit import audit
from qr_sampler_cli.commands.baseline import baseline
from qr_sampler_cli.commands.doctor import doctor
from qr_sampler_cli.commands.generate import generate
from qr_sampler_cli.commands.health import health
from qr_sampler_cli.commands.new import new
from qr_sampler_cli.commands.probe import probe
from qr_sampler_cli.commands.quality import quality
from qr_sampler_cli.commands.serve_entropy import serve_entropy
from qr_sampler_cli.commands.settings import settings
from qr_sampler_cli.commands.sources import sources
from qr_sampler_cli.commands.tiny_model import tiny_model
from qr_sampler_cli.commands.tsd import tsd
from qr_sampler_cli.plugged_commands import CommandsOfAllPackages

__all__ = ["app"]

app = typer.Typer(
    name="qr-sampler",
    cls=CommandsOfAllPackages,
    no_args_is_help=True,
    # The commands inherit it.
    context_settings={"help_option_names": ["-h", "--help"]},
    # Local variables may hold API keys.
    pretty_exceptions_show_locals=False,
)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"qr-sampler {version('qr-sampler')}")
        raise typer.Exit


@app.callback()
def _main(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Bring your own physical randomness to LLM sampling.

    Exit status: 0 success, 1 records and tokens disagree, an audit fails, the doctor found a
    problem, a probed server is not usable, a source is broken or has changed, bytes are not
    uniform, a ledger holds alarms or an experiment is refuted, 2 error, 3 fallback although the
    primary source was required, 130 ended by Ctrl-C.
    """


app.command()(audit)
app.command()(baseline)
app.command()(chat)
app.add_typer(doctor, name="doctor")
app.command()(generate)
app.add_typer(health, name="health")
app.command()(new)
app.command()(probe)
app.command()(quality)
app.command("serve-entropy")(serve_entropy)
app.command()(settings)
app.command()(sources)
app.command("tiny-model")(tiny_model)
app.add_typer(tsd, name="tsd")
