# SPDX-License-Identifier: Apache-2.0
"""Replacements for the two modules that vLLM's model runner samples with.

Neither draws a random number of its own: :class:`DraftVerifier` replaces all of vLLM's rejection
sampling, including ``expand_batch_to_tokens``, which returns uninitialised memory on vLLM's CPU
build without Triton (0.32.0).
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.outputs import LogprobsTensors, SamplerOutput
from vllm.v1.sample.rejection_sampler import PLACEHOLDER_TOKEN_ID, RejectionSampler
from vllm.v1.sample.sampler import Sampler

from qr_sampler_vllm.tsd.constraints import constrain
from qr_sampler_vllm.tsd.sequences import RequestRows, Sequences
from qr_sampler_vllm.tsd.verification.contract import Verification

__all__ = ["DraftSampler", "DraftVerifier"]


class DraftSampler(Sampler):  # type: ignore[misc]
    """Samples a step in which nothing was drafted, and does the work of :class:`DraftVerifier`.

    Args:
        model_runner: vLLM's model runner, with its own sampler still in place.
        sequences: The sequences of the engine.
        verification: Chooses the tokens.
    """

    def __init__(self, model_runner: Any, sequences: Sequences, verification: Verification) -> None:
        stock = model_runner.sampler
        super().__init__(stock.logprobs_mode, stock.use_fp64_gumbel)
        self._runner = model_runner
        self._sequences = sequences
        self._verification = verification

    def forward(self, logits: Any, sampling_metadata: Any, *arguments: Any, **options: Any) -> Any:
        """Returns one token per request of the batch; vLLM samples made-up batches itself."""
        if not self.is_batch(sampling_metadata):
            return super().forward(logits, sampling_metadata, *arguments, **options)
        return self.decided(logits, sampling_metadata, None)

    def is_batch(self, sampling_metadata: Any) -> bool:
        """Returns whether *sampling_metadata* belongs to real requests, not to a warm-up."""
        return sampling_metadata is self._runner.input_batch.sampling_metadata

    def decided(self, logits: Any, metadata: Any, draft_counts: list[int] | None) -> SamplerOutput:
        """Returns the tokens of a step.

        Args:
            logits: Tensor of shape ``(R, V)``, modified in place.
            metadata: vLLM's ``SamplingMetadata`` of the batch.
            draft_counts: Number of drafts of each request, ``None`` if there is none.
        """
        with self._sequences.lock:
            requests = self._sequences.rows(draft_counts)
            raw = logits.clone() if self._needs_raw(metadata, requests) else None
            constrained = constrain(self, logits, metadata, requests)
            verified = self._verification.verify(constrained, requests)
            self._sequences.settle(verified.records)
        left = _left_to_vllm(requests, verified.tokens)
        if left:
            # Rows that could not be decided are unchanged.
            chosen = self._choose(constrained if raw is None else raw, metadata, requests)
            for index in left:
                verified.tokens[index].append(chosen[index])
        width = 1 + max(draft_counts or (0,))
        tokens = _padded(verified.tokens, width, logits.device)
        return SamplerOutput(tokens, self._logprobs(raw, metadata, requests, tokens))

    def _needs_raw(self, metadata: Any, requests: list[RequestRows]) -> bool:
        wants_logprobs = metadata.max_num_logprobs is not None or metadata.logprob_token_ids
        return bool(wants_logprobs) or any(request.sequence is None for request in requests)

    def _choose(self, rows: Any, metadata: Any, requests: list[RequestRows]) -> list[int]:
        """Returns the tokens that vLLM itself chooses in the first row of each request."""
        first = rows[torch.tensor([request.first for request in requests], device=rows.device)]
        output = Sampler.forward(self, first, metadata)
        tokens: list[int] = output.sampled_token_ids[:, 0].tolist()
        return tokens

    def _logprobs(
        self, raw: Any, metadata: Any, requests: list[RequestRows], tokens: Any
    ) -> LogprobsTensors | None:
        """Returns the log probabilities that requests asked for, one line per entry of *tokens*."""
        count, specific = metadata.max_num_logprobs, metadata.logprob_token_ids
        if count is None and not specific:
            return None
        width = tokens.shape[1]
        first = torch.tensor([request.first for request in requests], device=raw.device)
        lines = (first[:, None] + torch.arange(width, device=raw.device)).clamp(max=len(raw) - 1)
        values = raw[lines.flatten()].to(torch.float32)
        if self.logprobs_mode == "raw_logprobs":
            values = self.compute_logprobs(values)
        flat = tokens.flatten().clamp(min=0).to(torch.int64)
        if not specific:
            return self.gather_logprobs(values, count, flat)
        by_line = {
            width * index + offset: token_ids
            for index, token_ids in specific.items()
            for offset in range(width)
        }
        return self.gather_specific_token_logprobs(values, by_line, flat)


class DraftVerifier(RejectionSampler):  # type: ignore[misc]
    """Verifies the drafts of a step.

    Args:
        sampler: Does the work.
    """

    def __init__(self, sampler: DraftSampler) -> None:
        super().__init__(sampler)

    def forward(
        self, metadata: Any, draft_probs: Any, logits: Any, sampling_metadata: Any
    ) -> SamplerOutput:
        """Returns the tokens of each request, padded; nothing for a made-up batch."""
        counts = metadata.num_draft_tokens
        if not self.sampler.is_batch(sampling_metadata):
            return SamplerOutput(_padded([[]] * len(counts), 1 + max(counts), logits.device), None)
        return self.sampler.decided(logits, sampling_metadata, counts)


def _left_to_vllm(requests: list[RequestRows], tokens: list[list[int]]) -> list[int]:
    """Returns the requests that emit a token which has not been chosen yet."""
    pairs = zip(requests, tokens, strict=True)
    return [index for index, (request, own) in enumerate(pairs) if request.emits and not own]


def _padded(tokens: list[list[int]], width: int, device: Any) -> Any:
    """Returns *tokens* in vLLM's layout, int32 of shape ``(B, width)``.

    Even a request whose token vLLM drops must have one.
    """
    lines = [own or [0] for own in tokens]
    padded = [[*own, *[PLACEHOLDER_TOKEN_ID] * (width - len(own))] for own in lines]
    return torch.tensor(padded, dtype=torch.int32, device=device)
