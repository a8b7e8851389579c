# SPDX-License-Identifier: Apache-2.0
"""The constraints of requests, applied to every row of a step.

Without drafts vLLM has one row per request, and its sampler masks and penalises by request. Here
each row is treated as the only row of an engine that has emitted the drafts before it, with vLLM's
own operations and in the order of its sampler: allowed tokens, bad words, penalties, and stop
tokens before ``min_tokens``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qr_sampler_vllm.tsd.sequences import RequestRows

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["constrain"]


def constrain(sampler: Any, logits: Any, metadata: Any, requests: Sequence[RequestRows]) -> Any:
    """Returns *logits* as float32 with the constraints of the requests, modified in place.

    Args:
        sampler: vLLM's ``Sampler``.
        logits: Tensor of shape ``(R, V)``.
        metadata: vLLM's ``SamplingMetadata`` of the batch.
        requests: The requests of the batch with their rows.
    """
    import torch

    rows = logits.to(torch.float32)
    masked, words = metadata.allowed_token_ids_mask is not None, metadata.bad_words_token_ids
    if masked or words or not metadata.no_penalties:
        by_row = _by_row(metadata, requests, rows.device)
        # The method of the base class: the processors of the batch address requests, not rows.
        rows = sampler.apply_logits_processors(rows, by_row, predict_bonus_token=False)
    for request in requests:
        if request.params.min_tokens > request.position:
            _bar_early_stops(rows, request)
    return rows


def _by_row(metadata: Any, requests: Sequence[RequestRows], device: Any) -> Any:
    """Returns *metadata* with one entry per row."""
    import torch
    from vllm.v1.sample.logits_processor import LogitsProcessors

    counts = [len(request.drafts) + 1 for request in requests]
    owner = torch.from_numpy(np.repeat(np.arange(len(requests)), counts)).to(device)

    def repeated(tensor: Any) -> Any:
        return None if tensor is None else tensor[owner]

    return replace(
        metadata,
        allowed_token_ids_mask=repeated(metadata.allowed_token_ids_mask),
        bad_words_token_ids={
            request.first + row: metadata.bad_words_token_ids[index]
            for index, request in enumerate(requests)
            if index in metadata.bad_words_token_ids
            for row in range(counts[index])
        },
        prompt_token_ids=repeated(metadata.prompt_token_ids),
        frequency_penalties=repeated(metadata.frequency_penalties),
        presence_penalties=repeated(metadata.presence_penalties),
        repetition_penalties=repeated(metadata.repetition_penalties),
        output_token_ids=[
            [*request.output, *request.drafts[:row]]
            for request, count in zip(requests, counts, strict=True)
            for row in range(count)
        ],
        spec_token_ids=None,
        logitsprocs=LogitsProcessors(),
        thinking_budget_state_holder=None,
    )


def _bar_early_stops(rows: Any, request: RequestRows) -> None:
    """Masks the stop tokens in rows before ``min_tokens``, unless a grammar allows nothing else."""
    import torch

    params = request.params
    stops = torch.tensor(sorted(params.all_stop_token_ids), dtype=torch.int64, device=rows.device)
    early = min(params.min_tokens - request.position, len(request.drafts) + 1)
    for line in range(request.first, request.first + early):
        kept = rows[line, stops]
        rows[line, stops] = -torch.inf
        if params.structured_outputs is not None and bool(torch.isneginf(rows[line]).all()):
            rows[line, stops] = kept
