# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler settings``: the complete reference of settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

import typer

from qr_sampler.errors import ConfigError
from qr_sampler.whole_file import write_whole
from qr_sampler_cli.failures import reports_errors
from qr_sampler_cli.generation.records_file import check_destination
from qr_sampler_cli.settings.catalogue import absent_packages, installed_groups
from qr_sampler_cli.settings.plugged import plugged_settings
from qr_sampler_cli.settings.reference import configuration_page, configuration_tables
from qr_sampler_cli.terminal.consoles import printable

__all__ = ["settings"]

MARKS: Final = ("<!-- reference -->", "<!-- /reference -->")
"""Marks around the tables of a page, each on a line of its own."""


@reports_errors
def settings(
    output: Annotated[
        Path | None,
        typer.Option(help="File to write instead; an older one is replaced."),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(help=f"Page whose part from {MARKS[0]} to {MARKS[1]} the tables replace."),
    ] = None,
) -> None:
    """Print every setting: variable, default, range, per-request key and meaning, as Markdown.

    Covers the packages that are installed, those of other projects included whose components name
    their settings; 'doctor vllm' shows the values in effect here.
    """
    plugged = list(plugged_settings())
    groups = [*installed_groups(), *(each.group for each in plugged if each.group)]
    page = configuration_page(groups) + "\n"
    for each in plugged:
        if each.reason:
            typer.echo(f"not shown: {printable(f'{each.component}: {each.reason}')}", err=True)
    if absent := absent_packages():
        typer.echo(f"not installed, so not shown: {', '.join(absent)}", err=True)
    if into is not None:
        _write(into, _with_tables(into), option="--into")
    if output is not None:
        _write(output, page, option="--output")
    if output is None and into is None:
        typer.echo(page, nl=False)


def _with_tables(page: Path) -> str:
    """Returns the text of *page* with up-to-date tables, one level of headings deeper."""
    try:
        text = page.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--into={page}: {error}; name a page in UTF-8") from error
    before, begin, rest = text.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not (begin and end):
        raise ConfigError(f"--into={page}: it has no part from {MARKS[0]} to {MARKS[1]}; add both")
    tables = configuration_tables(installed_groups()).replace("\n## ", "\n### ")
    # They are written for a page in docs/.
    tables = re.sub(r"\]\((?!https?:)", "](docs/", tables)
    return f"{before}{begin}\n#{tables}\n{end}{after}"


def _write(file: Path, text: str, *, option: str) -> None:
    check_destination(file)
    try:
        write_whole(file, text, replace=True)
    except OSError as error:
        raise ConfigError(f"{option}={file}: {error.strerror}; choose another file") from error
