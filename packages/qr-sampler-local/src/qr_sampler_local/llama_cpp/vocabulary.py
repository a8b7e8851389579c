# SPDX-License-Identifier: Apache-2.0
"""What a model of llama.cpp says of its tokens."""

from __future__ import annotations

from typing import Any

__all__ = ["Vocabulary", "library_version"]


def library_version() -> str:
    """Returns the version of llama-cpp-python."""
    import llama_cpp

    found: str = llama_cpp.__version__
    return found


class Vocabulary:
    """The tokens of a model, read through llama.cpp's own functions.

    Args:
        llama: A ``llama_cpp.Llama``.
    """

    def __init__(self, llama: Any) -> None:
        import llama_cpp

        self._library = llama_cpp
        self._llama = llama
        self._vocabulary = llama_cpp.llama_model_get_vocab(llama.model)

    @property
    def size(self) -> int:
        """Number of tokens."""
        size: int = self._llama.n_vocab()
        return size

    def end_tokens(self) -> tuple[int, ...]:
        """Returns the tokens that end a text, the model's main one first; there may be none."""
        ends = self._library.llama_vocab_is_eog
        found = [token for token in range(self.size) if ends(self._vocabulary, token)]
        main = self._llama.token_eos()
        return tuple(sorted(found, key=lambda token: (token != main, token)))

    @property
    def context(self) -> int:
        """Longest text that fits into the ``Llama``, in tokens.

        llama.cpp makes room for a little more than it was asked for, and llama-cpp-python does not.
        """
        room: int = self._llama.n_ctx()
        return min(room, len(self._llama.input_ids))

    @property
    def trained_context(self) -> int:
        """Longest text that the model was trained for, in tokens."""
        length: int = self._library.llama_model_n_ctx_train(self._llama.model)
        return length

    def entry(self, token_id: int) -> str:
        """Returns the entry of a token, as the vocabulary spells it; empty if there is none."""
        if token_id < 0:
            return ""
        text: bytes = self._library.llama_vocab_get_text(self._vocabulary, token_id)
        return text.decode("utf-8", errors="replace")
