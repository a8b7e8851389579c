# SPDX-License-Identifier: Apache-2.0
"""Texts without what must stay private: whoever reaches a port may read the status of an engine."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Final

__all__ = ["HIDDEN", "public_model_name", "public_text"]

HIDDEN: Final = "…"
"""Stands for words that are left out."""

_MAX_WORDS: Final = 60
_ORDINARY: Final = re.compile(r"[A-Za-z][A-Za-z_'-]*|\d{1,9}(\.\d{1,6})?(ns|us|ms|s|%)?")
_PUNCTUATED: Final = re.compile(r"([(\[\"']*)(.*?)([)\]\"'.,;:!?]*)", re.DOTALL)


def public_text(text: str) -> str:
    """Returns *text* without addresses, paths, keys and whatever else is no ordinary word.

    The words of a failure come from a source, which may quote its settings; the log has them all.

    Examples:
        >>> public_text("no answer from 10.0.0.7:50051 (Connection refused); see /etc/qrng.conf")
        'no answer from … (Connection refused); see …'
    """
    words = text.split()
    shown = [_public_word(word) for word in words[:_MAX_WORDS]]
    return " ".join(shown + [HIDDEN] * (len(words) > _MAX_WORDS))


def public_model_name(name: str) -> str:
    """Returns the name of a model, of a local or remote directory only its last part.

    Examples:
        >>> public_model_name("/data/models/tiny"), public_model_name("Qwen/Qwen3-0.6B")
        ('tiny', 'Qwen/Qwen3-0.6B')
    """
    path = PurePath(name)
    local = path.is_absolute() or "://" in name or name.startswith((".", "~")) or "\\" in name
    return path.name if local or len(path.parts) > 2 else name


def _public_word(word: str) -> str:
    match = _PUNCTUATED.fullmatch(word)
    before, core, after = match.groups() if match is not None else ("", word, "")
    shown = core if not core or _ORDINARY.fullmatch(core) else HIDDEN
    return f"{before}{shown}{after}"
