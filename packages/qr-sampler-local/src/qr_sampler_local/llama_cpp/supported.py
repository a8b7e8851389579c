# SPDX-License-Identifier: Apache-2.0
"""Which ``Llama`` can be sampled."""

from __future__ import annotations

from typing import Any

from qr_sampler import ConfigError

__all__ = ["check_llama"]


def check_llama(llama: Any) -> None:
    """Refuses a ``Llama`` whose steps have more than one row, or another sampler.

    Raises:
        ConfigError: Naming the reason and the remedy.
    """
    if llama.draft_model is not None:
        raise ConfigError(
            "draft_model: the rows of a draft are computed before it is known which of them count, "
            "and llama-cpp-python does not say which one a logits processor is called for; make "
            "the Llama without a draft model"
        )
    # It tells nobody but its own pickles.
    if llama.__getstate__()["logits_all"]:
        raise ConfigError(
            "logits_all=True: only the last row of a step chooses a token, and llama-cpp-python "
            "would keep those of the whole context; make the Llama with logits_all=False"
        )
    if "generate" in vars(llama):
        raise ConfigError(
            "something stands in the place of generate() of this Llama already, such as another "
            "LlamaCppSampler; end its block first"
        )
