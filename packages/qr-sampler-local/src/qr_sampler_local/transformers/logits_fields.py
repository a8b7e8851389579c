# SPDX-License-Identifier: Apache-2.0
"""What changes the logits before they are sampled from, as the ledger has it.

Repetition penalties, suppressed tokens and a user's own processors stay legal. Whoever wants to
derive a recorded token again from the model has to do the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from qr_sampler.records.long_values import json_digest, shortened

__all__ = ["logits_fields_of"]

_NEUTRAL: Final[Mapping[str, tuple[object, ...]]] = {
    "repetition_penalty": (None, 1.0),
    "encoder_repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "guidance_scale": (None, 1),
    "min_length": (None, 0),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "remove_invalid_values": (None, False),
    "exponential_decay_length_penalty": (None,),
    "renormalize_logits": (None, False),
}
"""Parameters with short values, and the values with which they do nothing."""

_TOKENS: Final = ("suppress_tokens", "begin_suppress_tokens")


def logits_fields_of(config: Any, processors: Iterable[Any]) -> dict[str, Any]:
    """Returns the parameters that are not neutral, and all processors, as JSON-ready values.

    Args:
        config: The complete ``GenerationConfig`` of the call.
        processors: Whatever acts on the logits before they are sampled from, in order.

    Returns:
        The parameters by their names, but ``min_new_tokens`` as ``min_tokens`` and
        ``bad_words_ids`` as ``bad_words``. Of those that name many tokens only their number and
        digest. ``logits_processors`` are the names of their classes.
    """
    fields = {
        name: value
        for name, neutral in _NEUTRAL.items()
        if (value := _plain(getattr(config, name, None))) not in neutral
    }
    if fewest := _plain(getattr(config, "min_new_tokens", None)):
        fields["min_tokens"] = fewest
    for name in _TOKENS:
        if tokens := _plain(getattr(config, name, None)):
            fields[name] = shortened(tokens, tokens)
    if words := _plain(getattr(config, "bad_words_ids", None)):
        fields["bad_words"] = shortened(words, [token for word in words for token in word])
    if bias := getattr(config, "sequence_bias", None):
        fields["sequence_bias"] = {"sha256": json_digest(_pairs(bias))}
    if names := [type(processor).__name__ for processor in processors]:
        fields["logits_processors"] = names
    return fields


def _pairs(bias: Any) -> list[Any]:
    """Returns a bias of sequences as a list; Transformers takes a dictionary with tuples, too."""
    pairs = bias.items() if isinstance(bias, Mapping) else bias
    return sorted([_plain(sequence), float(value)] for sequence, value in pairs)


def _plain(value: Any) -> Any:
    """Returns a value without the arrays, tensors and scalars of NumPy and torch."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value
