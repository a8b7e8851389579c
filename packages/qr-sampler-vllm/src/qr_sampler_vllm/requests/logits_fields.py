# SPDX-License-Identifier: Apache-2.0
"""The ordinary fields of a request that change its logits, as the ledger has them.

vLLM applies them before the plugin sees the logits, or the plugin does so itself: whoever wants to
derive a recorded token again from the model has to do the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final

from qr_sampler_vllm.requests.penalties import Penalties

__all__ = ["logits_fields_of"]

MOST_IDS: Final = 4096
"""Number of token ids that are written down; of more there is only a digest."""

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
        ``min_tokens``; of ``structured_outputs`` the SHA-256 of what it asks for.
    """
    penalties = Penalties.of(sampling_params)
    fields: dict[str, Any] = {}
    if penalties is not None:
        fields["repetition_penalty"] = penalties.repetition
        fields["frequency_penalty"] = penalties.frequency
        fields["presence_penalty"] = penalties.presence
    if bias := getattr(sampling_params, "logit_bias", None):
        fields["logit_bias"] = {str(token_id): float(value) for token_id, value in bias.items()}
    if allowed := getattr(sampling_params, "allowed_token_ids", None):
        fields["allowed_token_ids"] = _ids(allowed)
    if bad_words := getattr(sampling_params, "bad_words_token_ids", None):
        fields["bad_words"] = [list(word) for word in bad_words]
    if sampling_params.min_tokens:
        fields["min_tokens"] = sampling_params.min_tokens
    if (structure := getattr(sampling_params, "structured_outputs", None)) is not None:
        fields["structured_outputs"] = _digest(
            {name: getattr(structure, name, None) for name in _STRUCTURE}
        )
    return fields


def _ids(token_ids: Sequence[int]) -> list[int] | dict[str, Any]:
    """Returns *token_ids*, of many only how many and the digest of them in order."""
    if len(token_ids) <= MOST_IDS:
        return list(token_ids)
    return {"count": len(token_ids), **_digest(sorted(token_ids))}


def _digest(value: Any) -> dict[str, str]:
    """Returns the SHA-256 of *value* as JSON with sorted keys and no spaces."""
    # Whatever is no JSON has a text; escapes keep half of a surrogate pair within ASCII.
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return {"sha256": hashlib.sha256(text.encode("ascii")).hexdigest()}
