# SPDX-License-Identifier: Apache-2.0
"""Makes a bundle: everything that a stranger needs to check a study, and nothing secret."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from qr_sampler.records.files import ledgers_in
from qr_sampler.records.redaction import redact
from qr_sampler_lab.experiments.bundle.bag import PAYLOAD, BagError, finish_bag
from qr_sampler_lab.experiments.bundle.crate import write_crate
from qr_sampler_lab.experiments.environment import files_in
from qr_sampler_lab.experiments.results.revealed import reveal
from qr_sampler_lab.experiments.study import Study

__all__ = ["is_below", "make_bundle"]

_ANCHORS: Final = ".anchors"
_PROMPTS: Final = ".prompts.jsonl"


def make_bundle(study: Study, directory: Path, *, text: bool = True) -> None:
    """Writes the bundle of an unblinded study to a new directory.

    It has the layout of a study below ``data/``, with the register of the laboratory and without
    ``key.json``, whose secrets the journal has revealed.

    Args:
        study: An unblinded study.
        directory: The directory, which must not exist.
        text: Whether what was asked and written goes along: token ids, prompts.

    Raises:
        BagError: When the directory exists or is in the study, or something cannot be copied;
            nothing is left of it then.
        StudyError: When the study is not unblinded.
    """
    reveal(study)
    if directory.resolve().is_relative_to(study.directory.resolve()):
        raise BagError(f"{directory} is in the study, which it would be a part of; name another")
    try:
        directory.mkdir(parents=True)
    except OSError as error:
        raise BagError(f"{directory} cannot be made: {error}") from error
    whole = False
    try:
        _fill(study, directory, text=text)
        whole = True
    except OSError as error:
        raise BagError(f"{directory} cannot be made: {error}") from error
    finally:
        if not whole:
            # Half a bundle would stand in the way of a whole one.
            shutil.rmtree(directory, ignore_errors=True)


def _fill(study: Study, directory: Path, *, text: bool) -> None:
    """Writes everything into the directory of a bundle."""
    payload = directory / PAYLOAD
    payload.mkdir()
    for source, target in _copied(study, text=text):
        (payload / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, payload / target)
    _write_ledgers(study, payload / study.ledgers.name, text=text)
    write_crate(study, payload, text=text)
    finish_bag(
        directory,
        {
            "External-Description": f"Study {study.protocol.name}: {study.protocol.title}",
            "External-Identifier": study.sealed.digest,
            "QR-Text": "included" if text else "left out",
        },
    )


def _copied(study: Study, *, text: bool) -> Iterator[tuple[Path, Path]]:
    """Yields the files that are copied as they stand, and their paths in the payload."""
    here = study.directory
    for path in (study.protocol_path, study.seal_path, study.journal.path):
        yield path, path.relative_to(here)
    yield study.register.path, Path("register.jsonl")
    if text:
        for prompt in study.protocol.prompts:
            yield here / prompt.file, Path(prompt.file)
    for file in files_in(study.protocol).values():
        if is_below(file):
            yield here / file, Path(file)
    for directory in (study.anchors, study.report, *study.ledgers.glob(f"*{_ANCHORS}")):
        for path in sorted(directory.rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield path, path.relative_to(here)


def is_below(file: str) -> bool:
    """Returns whether a path stays below the directory that it is relative to."""
    path = PurePosixPath(file)
    return not path.is_absolute() and ".." not in path.parts


def _write_ledgers(study: Study, target: Path, *, text: bool) -> None:
    target.mkdir(exist_ok=True)
    for path in ledgers_in(study.ledgers):
        if text:
            shutil.copyfile(path, target / path.name)
            beside = path.with_name(path.stem + _PROMPTS)
            if beside.is_file():
                shutil.copyfile(beside, target / beside.name)
        else:
            _redact(path, target / path.name)


def _redact(source: Path, target: Path) -> None:
    """Copies a ledger with its texts left out; its chain still closes."""
    with source.open("rb") as lines, target.open("xb") as redacted:
        for line in redact(line.removesuffix(b"\n") for line in lines if line.endswith(b"\n")):
            redacted.write(line + b"\n")
