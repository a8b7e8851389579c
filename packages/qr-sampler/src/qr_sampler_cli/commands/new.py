# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler new``: a complete package for a source, a server, an amplifier or a strategy."""

from __future__ import annotations

import shlex
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Final

import typer

from qr_sampler.errors import ConfigError
from qr_sampler_cli.failures import reports_errors
from qr_sampler_cli.terminal.consoles import printable

__all__ = ["new"]

MAX_TEXT_CHARACTERS: Final = 200


class What(str, Enum):
    """What there are templates of."""

    SOURCE = "source"
    SERVER = "server"
    AMPLIFIER = "amplifier"
    STRATEGY = "strategy"


@reports_errors
def new(
    what: Annotated[What, typer.Argument(help="What the package offers.")],
    name: Annotated[
        str, typer.Argument(help="What users configure, such as dice; of a server, its name.")
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the package, absent or empty; by default named like the package, here.",
        ),
    ] = None,
    package: Annotated[
        str | None,
        typer.Option(help="Name of the package, if it is not to be made of NAME."),
    ] = None,
    description: Annotated[
        str | None, typer.Option(help="What it does, in one sentence.", show_default=False)
    ] = None,
    author: Annotated[str | None, typer.Option(help="Who writes it.", show_default=False)] = None,
    no_input: Annotated[
        bool,
        typer.Option(
            "--no-input",
            help="Ask nothing: what is not given has its default. So it is without a terminal.",
        ),
    ] = False,
) -> None:
    """Make a package that can be installed, tested and published, for you to fill in.

    Its tests pass before the first edit. Nothing is fetched and nothing of the templates is run.
    """
    # Commands that make nothing shall not wait for what this one imports.
    from qr_sampler_cli.scaffolding.filling import make_package
    from qr_sampler_cli.scaffolding.kinds import KINDS
    from qr_sampler_cli.scaffolding.names import package_names

    kind = KINDS[what.value]
    names = package_names(kind, name, package)
    asks = not no_input and sys.stdin.isatty()
    described = _text("description", description, f"The {kind.words} {name} for qr-sampler.", asks)
    written_by = _text("author", author, f"The authors of {names.distribution}", asks)
    folder = Path(names.distribution) if output is None else output
    files = make_package(kind, names, folder, description=described, author=written_by)
    for file in files:
        typer.echo(printable(str(folder / file)))
    place = shlex.quote(str(folder))
    typer.echo(
        f"\n{names.distribution}: {len(files)} files. Read {printable(place)}/README.md; its tests "
        f"pass as it is:\n  cd {printable(place)}\n  uv pip install --editable '.[test]'\n  pytest",
        err=True,
    )


def _text(field: str, given: str | None, default: str, asks: bool) -> str:
    """Returns a line of text, asked for if it is not given.

    Raises:
        ConfigError: When it is empty, too long or more than a line.
    """
    text = given
    if text is None:
        text = typer.prompt(field, default=default) if asks else default
    text = text.strip()
    if not (text and text.isprintable() and len(text) <= MAX_TEXT_CHARACTERS):
        raise ConfigError(
            f"the {field} has to be one line of 1 to {MAX_TEXT_CHARACTERS} printable characters"
        )
    return text
