# SPDX-License-Identifier: Apache-2.0
"""Proposers as a deployment names them: files, installed ones by name, and mixtures of both."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, Final

from qr_sampler.components.registry import Registry
from qr_sampler.foreign import is_ours, is_signal, words_of
from qr_sampler_tsd.errors import ProposerError
from qr_sampler_tsd.proposers.base import Proposer
from qr_sampler_tsd.proposers.files import load_proposer
from qr_sampler_tsd.proposers.guard import GuardedProposer
from qr_sampler_tsd.proposers.mixture import MixedProposer

__all__ = ["PROPOSERS", "described", "parts_of", "proposer_named"]

PROPOSERS: Final[Registry[Proposer[Any]]] = Registry(
    "proposer",
    "qr_sampler_tsd.proposers",
    Proposer,  # type: ignore[type-abstract]
)
"""What installed distributions offer."""

_MOST_PARTS: Final = 8
_NAME: Final = re.compile(r"[A-Za-z][\w-]*")


def parts_of(specification: str) -> tuple[str, ...]:
    """Returns the names and files that *specification* joins by ``+``.

    A file whose own name has a ``+`` is one part.

    Raises:
        ProposerError: When one is empty, or there are more than eight.
    """
    if Path(specification).is_file():
        return (specification,)
    parts = tuple(part.strip() for part in specification.split("+"))
    if not all(parts) or len(parts) > _MOST_PARTS:
        raise ProposerError(
            f"{specification!r} names {len(parts)} proposers; join 1 to {_MOST_PARTS} of them by +"
        )
    return parts


def proposer_named(specification: str, vocab_size: int) -> Proposer[Any]:
    """Returns the proposer that *specification* names: a file, a name, or several joined by ``+``.

    Args:
        specification: For example ``bigram.npz``, ``ngram`` or ``ngram+bigram.npz``; those that
            know best when they know come first, see :class:`MixedProposer`.
        vocab_size: Number of tokens of the model.

    Raises:
        ProposerError: When a proposer cannot be made, or one is of another vocabulary.
        ProposerFileError: When a file cannot be used.
        PluginError: When a name is unknown, contested or broken.
    """
    made = [_part(part, vocab_size) for part in parts_of(specification)]
    return made[0] if len(made) == 1 else MixedProposer(made)


def described(specification: str) -> list[dict[str, str]]:
    """Returns what records say of each part: its name and distribution, or its file's SHA-256.

    Raises:
        ProposerError: When *specification* is none.
        PluginError: When a name is unknown or contested.
        OSError: When a file cannot be read.
    """
    return [_description(part) for part in parts_of(specification)]


def _description(part: str) -> dict[str, str]:
    if _is_name(part):
        return {"name": part, "distribution": PROPOSERS.find(part).distribution}
    return {"file_sha256": hashlib.sha256(Path(part).read_bytes()).hexdigest()}


def _is_name(part: str) -> bool:
    """Whether *part* is a name rather than a file, which ``./`` in front makes of any."""
    if part in PROPOSERS.names():
        return True
    return _NAME.fullmatch(part) is not None and not Path(part).is_file()


def _part(part: str, vocab_size: int) -> Proposer[Any]:
    proposer = _installed(part, vocab_size) if _is_name(part) else load_proposer(part)
    if proposer.vocab_size != vocab_size:
        raise ProposerError(
            f"{part} proposes among {proposer.vocab_size} tokens and the model has {vocab_size}; "
            "make a proposer for this model"
        )
    return proposer


def _installed(name: str, vocab_size: int) -> Proposer[Any]:
    kind = PROPOSERS.load(name)
    try:
        proposer: object = kind.for_vocabulary(vocab_size)
        if not isinstance(proposer, Proposer):
            raise TypeError(f"for_vocabulary() returned {type(proposer).__name__}, not a proposer")
        return proposer if is_ours(proposer) else GuardedProposer(proposer, name)
    # The constructor of another project may raise anything; what it did is reported.
    except BaseException as error:
        if is_signal(error):
            raise
        raise ProposerError(f"the proposer {name!r} cannot be made: {words_of(error)}") from error
