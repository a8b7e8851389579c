# SPDX-License-Identifier: Apache-2.0
"""The logits processor of one sequence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qr_sampler_local.llama_cpp.request import Processor
from qr_sampler_local.loop import LocalSampler, LocalSequence, force_tokens

__all__ = ["SequenceProcessor"]


class SequenceProcessor:
    """Chooses the next token of a sequence and forces it in its row.

    llama.cpp calls it from a sampler chain through ctypes, which prints what a callback raises and
    goes on as if nothing had happened. So nothing may leave it: what was raised is kept for
    whoever gets the token.

    Args:
        sampler: Chooses the token.
        sequence: The sequence.
        before: Processors that change the logits first.
    """

    def __init__(
        self, sampler: LocalSampler, sequence: LocalSequence, before: Sequence[Processor] = ()
    ) -> None:
        self._sampler = sampler
        self._sequence = sequence
        self._before = tuple(before)
        self.token_id: int | None = None
        """The token that was chosen and has not been taken; ``None`` if there is none."""
        self.error: BaseException | None = None
        """What was raised instead of choosing."""

    def __call__(
        self, input_ids: NDArray[np.intc], scores: NDArray[np.single]
    ) -> NDArray[np.single]:
        """Returns a row that is 0 at the chosen token and -inf elsewhere.

        Args:
            input_ids: The tokens so far, the prompt included; shape ``(n,)``.
            scores: The logits that continue them, complete and in the host's memory; shape
                ``(V,)``, float32, a view with the stride of llama.cpp's structures. Unchanged.
        """
        try:
            for processor in self._before:
                scores = processor(input_ids, scores)
            row = np.array(scores, dtype=np.float32, ndmin=2)
            (self.token_id,) = self._sampler.step(row, [self._sequence])
            forced: NDArray[np.single] = force_tokens(row, [self.token_id])[0]
        # KeyboardInterrupt included: ctypes would drop it, and the text would go on.
        except BaseException as error:
            self.error = error
            return scores
        return forced
