# SPDX-License-Identifier: Apache-2.0
"""The unit is the token; means per answer are refused where u decides the length."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis.results import checked_numbers

__all__ = ["answer_means"]


def answer_means(
    values: ArrayLike, sequence: ArrayLike, *, lengths_fixed: bool
) -> NDArray[np.float64]:
    """Returns the mean of every answer, for answers whose length was fixed beforehand.

    An answer that ends where the model says so ends at a token that u has chosen. Its mean is then
    taken over a number of tokens that depends on what is averaged, and is biased though every
    single u is ideal.

    Args:
        values: Shape ``(B,)``.
        sequence: Code or name of each token's answer. Shape ``(B,)``.
        lengths_fixed: Whether the protocol fixed the number of tokens of every answer, so that no
            stop token could end it.

    Returns:
        Means in the order of the sorted codes.

    Raises:
        ConfigError: When lengths were not fixed, or the answers have several.
    """
    numbers = checked_numbers(values)
    _, codes = np.unique(np.asarray(sequence), return_inverse=True)
    if codes.shape != numbers.shape:
        raise ConfigError(f"{numbers.size} values but {codes.size} answers: give one per token")
    lengths = np.bincount(codes)
    if not lengths_fixed or np.unique(lengths).size > 1:
        raise ConfigError(
            f"answers of {lengths.min()} to {lengths.max()} tokens: u decides where an answer "
            "ends, so means per answer are biased without any effect (0.578 instead of 0.5 in a "
            "simulation); pool the tokens, or fix the lengths with max_tokens and ignore_eos"
        )
    means: NDArray[np.float64] = np.bincount(codes, weights=numbers) / lengths
    return means
