# SPDX-License-Identifier: Apache-2.0
"""A study as a directory: where everything is, and what it says."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Final

from qr_sampler_lab.experiments.blinding import StudyKey
from qr_sampler_lab.experiments.files.errors import StudyError
from qr_sampler_lab.experiments.files.journal import Journal
from qr_sampler_lab.experiments.files.register import Register, register_of
from qr_sampler_lab.experiments.protocol import Protocol, read_protocol
from qr_sampler_lab.experiments.protocol.files import read_bounded
from qr_sampler_lab.experiments.seal import SealedStudy, read_seal

__all__ = ["LARGEST_PROMPT", "PROTOCOL_NAME", "Study"]

PROTOCOL_NAME: Final = "PROTOCOL.yaml"

LARGEST_PROMPT: Final = 2**22
"""Most bytes of a prompt."""


class Study:
    """The directory of a study. Nothing is read before it is asked for.

    Args:
        directory: Where it is; holds at least ``PROTOCOL.yaml``.

    Raises:
        StudyError: When there is no protocol.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        if not self.protocol_path.is_file():
            raise StudyError(
                f"{directory} is no study, since it has no {PROTOCOL_NAME}; make one with "
                "`qr-sampler experiment new NAME`"
            )

    @property
    def protocol_path(self) -> Path:
        """File of the protocol."""
        return self.directory / PROTOCOL_NAME

    @property
    def seal_path(self) -> Path:
        """File of the seal."""
        return self.directory / "seal.json"

    @property
    def key_path(self) -> Path:
        """File of the secrets, readable by its owner only."""
        return self.directory / "key.json"

    @property
    def ledgers(self) -> Path:
        """Directory of the ledgers."""
        return self.directory / "ledgers"

    @property
    def anchors(self) -> Path:
        """Directory of the anchors of the journal."""
        return self.directory / "anchors"

    @property
    def report(self) -> Path:
        """Directory of the report."""
        return self.directory / "report"

    @property
    def model_path(self) -> Path:
        """Directory of the model."""
        return self.directory / Path(self.protocol.model.path).expanduser()

    @cached_property
    def protocol(self) -> Protocol:
        """What ``PROTOCOL.yaml`` says when it is asked for first."""
        return read_protocol(self.protocol_path)

    @cached_property
    def journal(self) -> Journal:
        """The journal, which begins with the seal."""
        return Journal(self.directory / "journal.jsonl")

    @property
    def register(self) -> Register:
        """The register of the laboratory."""
        return register_of(self.directory)

    @property
    def is_sealed(self) -> bool:
        """Whether there is a seal, and a journal that begins with it."""
        return os.path.lexists(self.seal_path) and os.path.lexists(self.journal.path)

    @cached_property
    def sealed(self) -> SealedStudy:
        """The seal.

        Raises:
            StudyError: When the study is not sealed, or its seal is none.
        """
        if not self.is_sealed:
            raise StudyError(
                f"{self.directory} is not sealed; seal it with `qr-sampler experiment seal`"
            )
        return read_seal(self.seal_path)

    @property
    def key(self) -> StudyKey:
        """The secrets of the study.

        Raises:
            ConfigError: When the file is not there.
        """
        return StudyKey.read(self.key_path)

    def made_ledgers(self) -> Path:
        """Returns the directory of the ledgers, made for its owner alone if it is not there.

        Raises:
            StudyError: When it cannot be made.
        """
        try:
            self.ledgers.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StudyError(f"{self.ledgers} cannot be made: {error.strerror}") from error
        return self.ledgers

    def prompt(self, file: str) -> str:
        """Returns the text of a prompt.

        Raises:
            ConfigError: When it cannot be read, or is too large.
            StudyError: When it is not UTF-8.
        """
        try:
            return read_bounded(self.directory / file, LARGEST_PROMPT).decode("utf-8")
        except UnicodeDecodeError as error:
            raise StudyError(f"the prompt {file} is not UTF-8: {error}") from error
