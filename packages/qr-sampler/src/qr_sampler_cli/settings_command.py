# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler settings``: the complete reference of settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qr_sampler.configuration_reference import configuration_page
from qr_sampler.errors import ConfigError
from qr_sampler_cli.failures import reports_errors
from qr_sampler_cli.settings_catalogue import absent_packages, installed_groups

__all__ = ["settings"]


@reports_errors
def settings(
    output: Annotated[
        Path | None,
        typer.Option(help="File to write instead; an older one is replaced."),
    ] = None,
) -> None:
    """Print every setting: variable, default, range, key of a request and meaning, as Markdown.

    Shows the packages that are installed. What they are set to here, 'doctor vllm' says.
    """
    page = configuration_page(installed_groups()) + "\n"
    if absent := absent_packages():
        typer.echo(f"not installed, so not shown: {', '.join(absent)}", err=True)
    if output is None:
        typer.echo(page, nl=False)
        return
    try:
        output.write_text(page, "utf-8")
    except OSError as error:
        raise ConfigError(f"--output={output}: {error.strerror}; choose another file") from error
