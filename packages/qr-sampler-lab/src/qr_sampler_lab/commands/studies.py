# SPDX-License-Identifier: Apache-2.0
"""How commands name a study, and what their exit status means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from qr_sampler.errors import ConfigError

if TYPE_CHECKING:
    from qr_sampler_lab.experiments.study import Study

__all__ = ["FAULT_STATUS", "HERE", "StudyArgument", "StudyOption", "study_at"]

FAULT_STATUS: Final = 1
"""Exit status if a study cannot be sealed as it is, or is not what was sealed."""

HERE: Final = Path()
"""The study of a command that names none."""

StudyArgument = Annotated[Path, typer.Argument(metavar="STUDY", help="Directory of the study.")]
StudyOption = Annotated[Path, typer.Option("--study", help="Directory of the study.")]


def study_at(directory: Path) -> Study:
    """Returns the study in a directory.

    Raises:
        ConfigError: When it does not exist.
        StudyError: When it is no study.
    """
    from qr_sampler_lab.experiments.study import Study

    if not directory.is_dir():
        raise ConfigError(f"{directory} is no directory; name that of a study")
    return Study(directory)
