# SPDX-License-Identifier: Apache-2.0
"""The loops of MLX-LM that cannot be served, and how they are recognised."""

from __future__ import annotations

import inspect
import sys
from types import CodeType, FrameType

from qr_sampler import ConfigError

__all__ = ["check_not_speculative", "check_one_row", "check_one_token_more"]

SPECULATIVE = (
    "speculative decoding of MLX-LM is not served: it asks the same sampler for the tokens of the "
    "draft model and for those that may replace them, and does not say which of them it keeps, so "
    "that bytes would be drawn for tokens that nobody reads, and the records could not tell; leave "
    "out draft_model"
)
"""Why it is refused."""


def check_not_speculative(steps: int) -> None:
    """Raises if the caller is MLX-LM's speculative decoding; nothing has been drawn then.

    It hands a sampler nothing by which it could be told from other loops, so that its name among
    the callers has to do.

    Args:
        steps: Number of tokens that the sequence has asked for; looked at before the first alone.

    Raises:
        ConfigError: Because it is.
    """
    if steps:
        return
    wanted = _code_of_speculative_decoding()
    frame = inspect.currentframe()
    if wanted is not None and frame is not None and _is_called_by(wanted, frame):
        raise ConfigError(SPECULATIVE)


def check_one_row(rows: int) -> None:
    """Raises if a loop asks one sequence for the tokens of several *rows*.

    Raises:
        ConfigError: Because it does.
    """
    if rows != 1:
        raise ConfigError(
            f"MLX-LM asks one sequence for the tokens of {rows} rows; in a batch, pass the sampler "
            "that has made the sequences as sampler= and [sequence.read_logits] as the "
            "logits_processors of each row"
        )


def check_one_token_more(before: int | None, now: int) -> None:
    """Raises if the model has seen anything but one token more than in the step before.

    Args:
        before: Number of tokens that it had seen in that step; ``None`` if there was none.
        now: Number of those that it has seen now.

    Raises:
        ConfigError: Because it has.
    """
    if before is not None and now != before + 1:
        raise ConfigError(
            f"the model has seen {now} tokens and had seen {before} in the step before, so that "
            "these are not the steps of one text; make a new sequence for every generation"
        )


def _code_of_speculative_decoding() -> CodeType | None:
    """Returns it, or ``None`` where MLX-LM is not imported or has none."""
    function = getattr(sys.modules.get("mlx_lm.generate"), "speculative_generate_step", None)
    return getattr(function, "__code__", None)


def _is_called_by(code: CodeType, frame: FrameType) -> bool:
    caller: FrameType | None = frame
    while caller is not None:
        if caller.f_code is code:
            return True
        caller = caller.f_back
    return False
