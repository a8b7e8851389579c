# SPDX-License-Identifier: Apache-2.0
"""The ordinary fields of a request that change its logits, as the ledger has them.

vLLM applies them before the plugin sees the logits, or the plugin does so itself: whoever wants to
derive a recorded token again from the model has to do the same.
"""

from __future__ import annotations

from typing import Any, Final

from qr_sampler.records.long_values import json_digest, shortened
from qr_sampler_vllm.requests.penalties import Penalties

__all__ = ["logits_fields_of"]

_STRUCTURE: Final = (
    "json",
    "regex",
    "choice",
    "grammar",
    "json_object",
    "structural_tag",
    "disable_any_whitespace",
    "disable_additional_properties",
    "whitespace_pattern",
)
"""The fields of vLLM's ``StructuredOutputsParams`` that a request can set."""


def logits_fields_of(sampling_params: Any) -> dict[str, Any]:
    """Returns the fields that are not neutral, as JSON-ready values.

    Args:
        sampling_params: vLLM's ``SamplingParams``.

    Returns:
        ``repetition_penalty``, ``frequency_penalty`` and ``presence_penalty`` together;
        ``logit_bias`` by token id; ``allowed_token_ids``; ``bad_words`` as token ids;
        ``min_tokens``; of ``structured_outputs`` the SHA-256 of what it asks for. Of the values
        that name many tokens only their number and digest.
    """
    penalties = Penalties.of(sampling_params)
    fields: dict[str, Any] = {}
    if penalties is not None:
        fields["repetition_penalty"] = penalties.repetition
        fields["frequency_penalty"] = penalties.frequency
        fields["presence_penalty"] = penalties.presence
    if bias := getattr(sampling_params, "logit_bias", None):
        by_id = {str(token_id): float(value) for token_id, value in bias.items()}
        fields["logit_bias"] = shortened(by_id, bias)
    if allowed := getattr(sampling_params, "allowed_token_ids", None):
        fields["allowed_token_ids"] = shortened(list(allowed), allowed)
    if bad_words := getattr(sampling_params, "bad_words_token_ids", None):
        words = [list(word) for word in bad_words]
        fields["bad_words"] = shortened(words, [token_id for word in words for token_id in word])
    if sampling_params.min_tokens:
        fields["min_tokens"] = sampling_params.min_tokens
    if (structure := getattr(sampling_params, "structured_outputs", None)) is not None:
        wanted = {name: getattr(structure, name, None) for name in _STRUCTURE}
        fields["structured_outputs"] = {"sha256": json_digest(wanted)}
    return fields
