# SPDX-License-Identifier: Apache-2.0
"""Prompts that wait to be written: from when their sequences begin until their first lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from weakref import WeakSet

from qr_sampler.records.entries import Prompt

__all__ = ["WaitingPrompts"]

MOST_IDS: Final = 2**25
"""Most token ids that are kept: 128 MiB of arrays. Lists are mostly those of the engine itself."""

_MOST_PROMPTS: Final = 65_536


class WaitingPrompts:
    """Bounds what waits. For the use of one thread at a time."""

    def __init__(self) -> None:
        self._kept: WeakSet[Prompt] = WeakSet()

    def keep(self, prompt: Prompt, token_ids: Sequence[int]) -> None:
        """Keeps the ids of a prompt that has none yet, or notes that there was no room for them.

        Args:
            prompt: The prompt.
            token_ids: Its ids.
        """
        if prompt.waiting or prompt.digest or prompt.overflowed:
            return
        waiting = sum(each.waiting for each in self._kept)
        if waiting + len(token_ids) > MOST_IDS or len(self._kept) >= _MOST_PROMPTS:
            prompt.overflowed = True
            return
        prompt.keep(token_ids)
        self._kept.add(prompt)
