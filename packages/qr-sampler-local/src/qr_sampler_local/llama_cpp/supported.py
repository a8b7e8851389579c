# SPDX-License-Identifier: Apache-2.0
"""Which ``Llama`` can be sampled."""

from __future__ import annotations

from typing import Any, Final

from qr_sampler import ConfigError

__all__ = ["REPLACED", "check_llama"]

REPLACED: Final = ("generate", "create_completion")
"""The methods of a ``Llama`` in whose place those of a sampler stand."""


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
    for name in REPLACED:
        if name in vars(llama):
            raise ConfigError(
                f"something stands in the place of {name}() of this Llama already, such as another "
                "LlamaCppSampler; end its block first"
            )
