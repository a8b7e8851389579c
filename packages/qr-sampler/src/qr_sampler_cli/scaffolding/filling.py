# SPDX-License-Identifier: Apache-2.0
"""Fills the templates in, by Copier, with everything switched off by which a template could act."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from qr_sampler.errors import ConfigError, shown
from qr_sampler_cli.failures import import_package
from qr_sampler_cli.remedies import from_clone
from qr_sampler_cli.scaffolding.kinds import Kind
from qr_sampler_cli.scaffolding.names import PackageNames

__all__ = ["TEMPLATES", "make_package"]

TEMPLATES: Final = Path(__file__).parent / "templates"
"""The template of Copier: what all kinds share in one folder, and a folder for each kind."""

SHARED: Final = "shared"


def make_package(
    kind: Kind, names: PackageNames, folder: Path, *, description: str, author: str
) -> list[Path]:
    """Returns the files of a new package, relative to *folder*, in order.

    The same arguments always make the same files. Nothing is fetched. They are complete before the
    first of them is where it shall be.

    Args:
        kind: What the package offers.
        names: What everything in it is called.
        folder: Where it goes; absent or empty.
        description: What it does, in one sentence.
        author: Who has written it.

    Raises:
        ConfigError: When *folder* has something in it, or is out of reach.
        MissingPackageError: When Copier is not installed.
    """
    copier = import_package(
        "copier", needed_for="new", remedy=f"install it {from_clone('qr-sampler[new]')}"
    )
    try:
        _check_free(folder)
    except OSError as error:
        raise ConfigError(f"cannot look at {shown(str(folder))}: {error.strerror}") from error
    answers = {
        **asdict(names),
        "kind": kind.key,
        "description": description,
        "quoted_description": _quoted(description),
        "quoted_author": _quoted(author),
    }
    try:
        with tempfile.TemporaryDirectory(prefix="qr-sampler-new-") as scratch:
            made = Path(scratch) / "package"
            for part in (SHARED, kind.key):
                _fill(copier, made, {**answers, "part": part})
            folder.mkdir(parents=True, exist_ok=True)
            _move(made, folder)
    except OSError as error:
        raise ConfigError(f"cannot make the package at {folder}: {error}") from error
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def _quoted(text: str) -> str:
    """Returns a printable *text* as a string of TOML, which has no surrogate pairs of JSON."""
    return json.dumps(text, ensure_ascii=False)


def _move(made: Path, folder: Path) -> None:
    """Moves what is in *made*; what has arrived goes again where the rest does not follow."""
    begun: list[Path] = []
    try:
        for path in made.iterdir():
            target = folder / path.name
            if os.path.lexists(target):
                raise FileExistsError(f"{target} has come in between")
            begun.append(target)
            shutil.move(path, target)
    except BaseException:
        for target in begun:
            if target.is_dir():
                shutil.rmtree(target, ignore_errors=True)
            else:
                target.unlink(missing_ok=True)
        raise


def _fill(copier: Any, place: Path, answers: dict[str, str]) -> None:
    """Fills in one part of the templates."""
    copier.run_copy(
        str(TEMPLATES),
        place,
        answers,
        # A template with tasks, migrations or extensions is refused, whatever the user trusts
        # elsewhere.
        unsafe=False,
        settings=copier.Settings(),
        # Every question has its answer here.
        defaults=True,
        overwrite=True,
        quiet=True,
    )


def _check_free(folder: Path) -> None:
    """Refuses a place that holds something.

    Raises:
        ConfigError: When *folder* is a file or has anything in it.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ConfigError(f"{folder} is in the way; choose another place with --output")
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(
            f"{folder} is not empty, and nothing in it is overwritten; choose another place with "
            "--output"
        )
