# SPDX-License-Identifier: Apache-2.0
"""What the command prepares before tokens are derived again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from qr_sampler.errors import ConfigError
from qr_sampler_cli.audit.files import LedgerFile
from qr_sampler_cli.audit.rederivation.names import DeviceName, DtypeName
from qr_sampler_cli.audit.rederivation.rung import ModelUnderAudit
from qr_sampler_cli.audit.rederivation.teacher_forcing import RescoringModel
from qr_sampler_cli.terminal.progress import counting_bar, stage

__all__ = ["model_under_audit"]

_SHORT: Final = 1_000
"""Tokens that are soon judged, so that no progress is worth showing."""

_CHUNK: Final = 2**20
_TOKEN: Final = b'"kind":"token"'


@contextlib.contextmanager
def model_under_audit(
    directory: Path | None,
    ledgers: Iterable[Sequence[LedgerFile]],
    *,
    prompts: Path | None,
    dtype: DtypeName,
    device: DeviceName,
) -> Iterator[ModelUnderAudit | None]:
    """Yields the model that tokens are derived from again; shows how far that is.

    Args:
        directory: Where the model is; without one there is nothing to prepare.
        ledgers: The files of every run.
        prompts: A file of prompts.
        dtype: What the model computes in.
        device: Where.

    Raises:
        MissingPackageError: When torch or transformers is missing.
        ConfigError: When the directory holds no model, there is no such device, or prompts are
            named without a model.
    """
    if directory is None:
        if prompts is not None:
            raise ConfigError(f"--prompts={prompts}: prompts are for --model, which is not given")
        yield None
        return
    with stage(f"loading {directory}"):
        model = RescoringModel(directory, dtype=dtype, device=device)
    tokens = sum(_tokens_in(file.path) for files in ledgers for file in files)
    with contextlib.ExitStack() as stack:
        count = None
        if tokens > _SHORT:
            count = stack.enter_context(counting_bar("deriving again", unit="tokens"))
        done = 0

        def progress() -> None:
            nonlocal done
            done += 1
            if count is not None:
                # Those that are dropped, or cannot be judged, are counted beforehand all the same.
                count(min(done, tokens), tokens)

        yield ModelUnderAudit(
            model=model, dtype=dtype, directory=directory, prompts=prompts, progress=progress
        )


def _tokens_in(path: Path) -> int:
    """Returns about how many lines of tokens a file has."""
    count, rest = 0, b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            text = rest + chunk
            count += text.count(_TOKEN)
            rest = text[-len(_TOKEN) + 1 :]
    return count
